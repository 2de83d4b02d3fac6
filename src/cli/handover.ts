import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import type { Coordination, Overview } from '../coordination/coordination.ts';
import { ShipmateError } from '../errors.ts';
import { checkStream, operator, withCoordination } from './coordination.ts';
import { addHelp, STREAM } from './help.ts';
import { print, printJson } from './terminal.ts';

/** The master answers at once, unless it is dead and its lease not yet run out. */
const ANSWER_MS = 10_000;
const TAKE_OVER_MS = 15_000;
const LOOK_MS = 20;

interface Options {
  to?: string;
  json?: boolean;
}

export function defineHandover(command: Command): void {
  addHelp(command, {
    notes: ["For planned work: nothing is lost or sent twice. Works from any twin's config."],
    examples: ['shipmate handover orders', 'shipmate handover orders --to db-2'],
  });
  command
    .argument('<stream>', STREAM)
    .option('--to <node>', 'the twin that should take over; by default any that is ready')
    .option('--json', 'print JSON')
    .action(async (stream: string, { to, json = false }: Options) => {
      await withCoordination(command, async (coordination, config) => {
        checkStream(stream, config, await coordination.overview());
        const done = await handOver(coordination, { stream, to });
        if (json) printJson(done);
        else if (done.from === done.to) print(`${done.to} already leads ${stream}`);
        else print(`${done.to} leads ${stream} now, in place of ${done.from}; that took ${done.tookMs} ms`);
      });
    });
}

type Board = Pick<Coordination, 'overview' | 'requests'>;

export interface HandedOver {
  readonly stream: string;
  readonly from: string;
  readonly to: string;
  /** From the request until the new master was seen. */
  readonly tookMs: number;
}

/** Asks the master to resign to a ready twin, and waits until that leads. Throws a ShipmateError if it can't be. */
export async function handOver(
  coordination: Board,
  { stream, to }: { readonly stream: string; readonly to?: string | undefined },
): Promise<HandedOver> {
  const before = await coordination.overview();
  const from = masterOf(before, stream);
  if (from === null) throw failed(`stream ${stream} has no master that could hand it over`, 'see "shipmate status"');
  if (from === to) return { stream, from, to, tookMs: 0 };
  requireSuccessor(before, { stream, from, to });

  const began = performance.now();
  const request = { kind: 'handover', ...(to !== undefined && { to }), by: operator(), time: now() } as const;
  const answer = await coordination.requests.ask(stream, request, ANSWER_MS);
  if (answer === null) {
    throw failed(
      `${from}, the master of stream ${stream}, did not answer within ${ANSWER_MS / 1000} s`,
      `see "shipmate status"; if the daemon on ${from} is dead, another twin takes over when its lease has run out`,
    );
  }
  if (!answer.ok) throw failed(`${from} refused to hand over stream ${stream}: ${answer.message}`);
  const successor = await newMaster(coordination, stream, from);
  return { stream, from, to: successor, tookMs: Math.round(performance.now() - began) };
}

function requireSuccessor(
  { twins }: Overview,
  { stream, from, to }: { stream: string; from: string; to?: string | undefined },
): void {
  const others = twins.flatMap(({ node, streams }) =>
    streams.filter(({ name }) => name === stream && node !== from).map((twin) => ({ node, ...twin })),
  );
  const asked = others.filter(({ node }) => to === undefined || node === to);
  if (asked.some(({ ready }) => ready)) return;
  if (to !== undefined && asked.length === 0) {
    const known = others.map(({ node }) => node).join(', ');
    throw failed(`no live daemon ${to} has stream ${stream}`, known ? `these have it: ${known}` : 'start it first');
  }
  const reasons = asked.map(({ node, reason }) => `${node}: ${reason}`).join('; ');
  throw failed(
    `no twin is ready to take over stream ${stream}${reasons && ` (${reasons})`}`,
    reasons
      ? 'see "shipmate status" for what each twin waits for'
      : 'no other daemon of this stream is alive: start one',
  );
}

const masterOf = ({ streams }: Overview, stream: string) => streams.find(({ name }) => name === stream)?.master ?? null;

/** The node that leads the stream after `from`, once it says so itself: its term is open by then. */
async function newMaster(coordination: Board, stream: string, from: string): Promise<string> {
  const deadline = performance.now() + TAKE_OVER_MS;
  while (performance.now() < deadline) {
    const overview = await coordination.overview();
    const master = masterOf(overview, stream);
    const twin = overview.twins.find(({ node }) => node === master);
    const leads = twin?.streams.some(({ name, role }) => name === stream && role === 'master');
    if (master !== null && master !== from && leads) return master;
    await sleep(LOOK_MS);
  }
  throw failed(
    `${from} gave up stream ${stream}, but no other twin was seen to lead it within ${TAKE_OVER_MS / 1000} s`,
    'see "shipmate status" for what each twin waits for',
  );
}

const now = () => new Date().toISOString();
const failed = (message: string, hint?: string) => new ShipmateError(message, { code: 'HANDOVER_FAILED', hint });
