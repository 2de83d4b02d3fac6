import { realpath, stat } from 'node:fs/promises';
import { get } from 'node:http';
import { basename, dirname, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import { adminUrl } from '../admin-url.ts';
import type { Config } from '../config.ts';
import { codeOf, messageOf, ShipmateError, UsageError } from '../errors.ts';
import { readConfig } from './config-file.ts';
import { addHelp } from './help.ts';
import { parseSeconds } from './seconds.ts';

interface Options {
  stream?: string;
  timeout: number;
}

const TIMEOUT_SECONDS = 30;
const ASK_MS = 5_000;
const FIRST_PAUSE_MS = 20;
const LONGEST_PAUSE_MS = 500;

export function definePush(command: Command): void {
  addHelp(command, {
    notes: ['Asks the daemon of this host, at admin.listen; ships nothing itself.'],
    examples: ["archive_command = 'shipmate push %p'"],
  });
  command
    .argument('<segment-path>', '%p: relative to the data directory, from where it is called, or absolute')
    .option('--stream <stream>', 'the stream; by default the one whose source has this data directory')
    .option('--timeout <seconds>', 'fail after so long', parseSeconds, TIMEOUT_SECONDS)
    .action(async (path: string, options: Options) => {
      const config = await readConfig(command, { lazy: true });
      const stream = options.stream ?? (await streamOfFile(config, path));
      const asked = { stream, segment: basename(path), inode: await inodeOf(path) };
      const witness = () => witnessOf(path);
      await untilDurable({ url: questionUrl(config, asked), witness }, options.timeout * 1_000);
    });
}

/** `pg_wal` may be a symbolic link, and so may the data directory. */
async function streamOfFile(config: Config, path: string): Promise<string> {
  const dataDir = await real(dirname(dirname(resolve(path))));
  const own: string[] = [];
  for (const { name, source } of Object.values(config.streams)) {
    if (source.type === 'postgres' && (await real(source.dir)) === dataDir) own.push(name);
  }
  if (own.length === 1) return own[0]!;
  throw new UsageError(
    `${own.length === 0 ? 'no stream' : 'more than one stream'} of the config has the data directory ${dataDir}`,
    own.length === 0 ? 'correct source.dir, or name the stream with --stream' : 'name the stream with --stream',
  );
}

const real = (path: string) => realpath(path).catch(() => path);

interface Asked {
  readonly stream: string;
  readonly segment: string;
  readonly inode: bigint;
}

/** No file has it. */
const NO_INODE = 0n;

/** Whoever listens there may be a daemon of other servers, with a stream of the same name: it is told which file is meant. */
const inodeOf = (path: string): Promise<bigint> =>
  stat(path, { bigint: true }).then(
    ({ ino }) => ino,
    () => NO_INODE,
  );

function questionUrl(config: Config, { stream, segment, inode }: Asked): string {
  const query = new URLSearchParams({ segment, inode: String(inode) });
  return `${adminUrl(config)}/api/v1/streams/${encodeURIComponent(stream)}/durable?${query}`;
}

interface Question {
  readonly url: string;
  /** Of the file's bytes; read where its inode is not enough. */
  readonly witness: () => Promise<string>;
}

async function witnessOf(path: string): Promise<string> {
  const { openFile, witnessIn } = await import('../restore/file-witness.ts');
  const file = await openFile(path);
  try {
    return (file && (await witnessIn(file, 0, (await file.stat()).size))) ?? '';
  } finally {
    await file?.close();
  }
}

/** Asks again and again; throws with the last answer when the time is over. */
async function untilDurable({ url, witness }: Question, timeoutMs: number): Promise<void> {
  const untilMs = performance.now() + timeoutMs;
  let more = '';
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
    const why = await ask(url + more);
    if (why === null) return;
    if (why.code === OTHER_FILE && more === '') {
      more = `&witness=${await witness()}`;
      continue;
    }
    if (performance.now() + pauseMs >= untilMs) throw why;
    await delay(pauseMs);
  }
}

/** Null for a plain yes; why not otherwise. Throws what asking again does not help. */
async function ask(url: string): Promise<ShipmateError | null> {
  let reply: Reply;
  try {
    reply = await read(url);
  } catch (cause) {
    const hint = codeOf(cause) === 'ECONNREFUSED' ? 'start it: "shipmate run"' : 'is admin.listen that of the daemon?';
    return notDurable(`the daemon does not answer at ${new URL(url).host}: ${messageOf(cause)}`, hint, { cause });
  }
  if (reply.status === 404) throw new UsageError(`the daemon has no such stream: ${reply.body.trim()}`, 'restart it');
  const answer = answerOf(reply);
  if (answer?.durable === true) return null;
  const segment = new URL(url).searchParams.get('segment');
  const reason =
    answer?.reason ?? `the daemon answered ${reply.status}: ${errorIn(reply) ?? reply.body.slice(0, 200).trim()}`;
  return notDurable(
    `${segment} is not durable in the archive: ${reason}`,
    answer?.hint ?? 'the server keeps it and asks again; "shipmate status" tells how the stream stands',
    { code: answer?.isOther ? OTHER_FILE : 'NOT_DURABLE' },
  );
}

const OTHER_FILE = 'OTHER_FILE';

const notDurable = (message: string, hint: string, more: { code?: string; cause?: unknown } = {}) =>
  new ShipmateError(message, { code: 'NOT_DURABLE', hint, ...more });

interface Reply {
  readonly status: number;
  readonly body: string;
}

interface Answer {
  readonly durable: boolean;
  readonly reason: string;
  readonly hint?: string;
  readonly isOther: boolean;
}

function answerOf({ status, body }: Reply): Answer | null {
  if (status !== 200) return null;
  const { durable, reason, hint, isOther } = fieldsOf(body);
  if (typeof durable !== 'boolean') return null;
  return { durable, reason: String(reason), ...(typeof hint === 'string' && { hint }), isOther: isOther === true };
}

function errorIn({ body }: Reply): string | null {
  const { error } = fieldsOf(body);
  return typeof error === 'string' ? error : null;
}

function fieldsOf(body: string): Readonly<Record<string, unknown>> {
  try {
    return { ...JSON.parse(body) };
  } catch {
    return {};
  }
}

function read(url: string): Promise<Reply> {
  return new Promise((done, fail) => {
    const request = get(url, { agent: false, timeout: ASK_MS }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text) => {
        body += text;
      });
      response.on('end', () => done({ status: response.statusCode ?? 0, body }));
      response.on('error', fail);
    });
    request.on('timeout', () => request.destroy(new Error(`no answer within ${ASK_MS / 1_000} s`)));
    request.on('error', fail);
  });
}
