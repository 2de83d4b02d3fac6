import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { adminUrl } from '../admin-url.ts';
import type { Config } from '../config.ts';
import type { StatusReport } from '../core/status.ts';
import { messageOf, ShipmateError } from '../errors.ts';
import { readConfig } from './config-file.ts';
import { addHelp } from './help.ts';
import { parseSeconds } from './seconds.ts';

const WITHIN_SECONDS = 270;
/** What is not shipped so long after the database has stopped waits for a store, or for etcd: its twin goes on. */
const SHIP_WITHIN_MS = 20_000;
const LOOK_MS = 500;
const ASK_MS = 5_000;

export function defineDrain(command: Command): void {
  addHelp(command, {
    notes: [
      'For what stops a database and its daemon together, such as a pod: it keeps the daemon from being stopped until the ' +
        'database has written its last, and that is shipped. The daemon that is stopped then hands over at once.',
    ],
    examples: ['shipmate drain', 'shipmate drain --within 60'],
  });
  command
    .option('--within <seconds>', 'wait for the databases no longer than this', parseSeconds, WITHIN_SECONDS)
    .action(async ({ within }: { within: number }) => {
      const config = await readConfig(command);
      const byMs = performance.now() + within * 1_000;
      await untilStopped(config, byMs);
      await untilShipped(config, Math.min(byMs, performance.now() + SHIP_WITHIN_MS));
    });
}

async function untilStopped({ streams }: Config, byMs: number): Promise<void> {
  for (const { name, source } of Object.values(streams)) {
    const url = 'url' in source ? source.url : undefined;
    while (url !== undefined && (await accepts(endpointOf(url)))) {
      if (performance.now() >= byMs) {
        throw notDrained(`the database of stream ${name} still runs`, 'it writes on, and the twin ships that');
      }
      await sleep(LOOK_MS);
    }
  }
}

type Endpoint = { readonly path: string } | { readonly host: string; readonly port: number };

/** Where the server of a source listens: `mariadb://…?socket=FILE`, `postgresql://…?host=DIRECTORY`, or a host and a port. */
export function endpointOf(url: string): Endpoint {
  const { protocol, hostname, port, searchParams } = new URL(url.replace(/@(?=[/?]|$)/, '@localhost'));
  const isPostgres = protocol.startsWith('postgres');
  const number = Number(port || searchParams.get('port') || (isPostgres ? 5432 : 3306));
  const socket = searchParams.get('socket');
  if (socket !== null) return { path: socket };
  const directory = searchParams.get('host');
  if (directory?.startsWith('/')) return { path: `${directory}/.s.PGSQL.${number}` };
  return { host: directory ?? hostname.replace(/^\[|\]$/g, ''), port: number };
}

function accepts(endpoint: Endpoint): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(endpoint, () => resolve(true)).on('error', () => resolve(false));
  return promise.finally(() => socket.destroy());
}

/** Looks twice: the second time at numbers that were measured after the database had stopped. */
async function untilShipped(config: Config, byMs: number): Promise<void> {
  const url = `${adminUrl(config)}/api/v1/status`;
  for (let shipped = 0; shipped < 2; ) {
    const why = await notShipped(url, config.node);
    if (why !== null && performance.now() >= byMs) {
      throw notDrained(why, 'the twin goes on from there, as far as its own database has it');
    }
    shipped = why === null ? shipped + 1 : 0;
    await sleep(LOOK_MS);
  }
}

/** What the daemon leads and has not shipped to its log's end; null: nothing. */
async function notShipped(url: string, node: string): Promise<string | null> {
  let report: StatusReport;
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(ASK_MS) });
    if (!response.ok) return `the daemon does not know how its streams stand: ${(await response.text()).trim()}`;
    report = JSON.parse(await response.text());
  } catch (error) {
    return `the daemon does not answer at ${url}: ${messageOf(error)}`;
  }
  const own = report.streams
    .filter(({ master }) => master === node)
    .map(({ name, twins }) => ({ name, bytes: twins.find((twin) => twin.node === node)?.lagBytes ?? 0 }));
  const owing = own.find(({ bytes }) => bytes > 0);
  return owing ? `${owing.bytes} bytes of stream ${owing.name} are not shipped` : null;
}

const notDrained = (message: string, hint: string) => new ShipmateError(message, { code: 'NOT_DRAINED', hint });
