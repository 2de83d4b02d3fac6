import { constants, getPriority, setPriority } from 'node:os';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { Decoder, DecoderOptions } from '../codec/decoder.ts';
import { streamOf } from '../config.ts';
import { messageOf, NotInArchive, UsageError } from '../errors.ts';
import type { Recovery } from '../restore/ahead-files.ts';
import type { ChunkReader } from '../restore/chunks.ts';
import { readConfig } from './config-file.ts';
import { addHelp, STREAM } from './help.ts';
import { readIdentities } from './identity.ts';

interface Options {
  store?: string;
  identity?: string;
  timeout: number;
  readAhead?: number;
}

const MAIN = fileURLToPath(new URL('../main.ts', import.meta.url));
/** For each read: a quarter of a minute. */
const ATTEMPTS = 10;
const TIMEOUT_SECONDS = 300;
/** While the archive goes over to another timeline: a master that dies just then has a successor by then. */
const GOING_OVER = { withinMs: 30_000, everyMs: 250 } as const;
/** Of short-lived garbage, where the launcher allows 1: collecting it so often took a seventh of what reads ahead. */
const READ_AHEAD_MIB = 32;
/** What is replayed now comes before what is replayed later: with equal rights recovery took a twentieth longer. */
const READ_AHEAD_NICER = 5;

export function defineFetch(command: Command): void {
  addHelp(command, {
    notes: [
      'Exit codes of its own: 0 done; 1 it is not in the archive, for sure; 126 anything else: recovery must stop, not end.',
    ],
    examples: ["restore_command = 'shipmate fetch billing %f %p'"],
  });
  command
    .argument('<stream>', STREAM)
    .argument('<segment>', 'the name of a WAL segment or a timeline history file: %f')
    .argument('<dest>', 'where to write it: %p')
    .option('--store <store>', "which store to read from; by default the stream's primary")
    .option('--identity <file>', 'the age identity file that opens what is encrypted')
    .option('--timeout <seconds>', 'fail after so long', parseSeconds, TIMEOUT_SECONDS)
    .addOption(new Option('--read-ahead <bytes>', 'keep ready what follows the segment').argParser(Number).hideHelp())
    .action((stream: string, segment: string, dest: string, options: Options) =>
      options.readAhead !== undefined
        ? readOn(command, { stream, segment, dest, options })
        : carryOut(command, { stream, segment, dest, options }),
    );
}

function parseSeconds(text: string): number {
  const seconds = Number(text);
  if (seconds > 0 && seconds <= 86_400) return seconds;
  throw new InvalidArgumentError('seconds, such as 60');
}

interface Asked {
  readonly stream: string;
  readonly segment: string;
  readonly dest: string;
  readonly options: Options;
}

async function carryOut(command: Command, asked: Asked): Promise<void> {
  const { stream, segment, dest, options } = asked;
  const files = await walFiles();
  const kind = files.kindOf(segment);
  if (kind === null) {
    throw new UsageError(`"${segment}" is no name of a WAL file`, "restore_command = 'shipmate fetch STREAM %f %p'");
  }
  if (kind === 'never') throw notInArchive(asked, 'it holds segments and history files alone');
  const timer = setTimeout(() => giveUp(asked), options.timeout * 1_000);
  const [{ takeAhead }, { findFile }, { onceOver }, write] = await Promise.all([
    import('../restore/ahead-files.ts'),
    import('../restore/fetch-find.ts'),
    import('../restore/fetch-over.ts'),
    import('../restore/fetch-write.ts'),
  ]);
  const path = resolve(dest);
  await write.sweepPartials(path);
  const partial = write.partialPath(path);
  const recovery = kind === 'segment' ? await recoveryOf(command) : null;
  if (recovery && (await takeAhead(recovery, segment, path))) return;
  // For one file alone a thread takes longer to start than to decode.
  const decoder = await decoderFor(options, { inlineBytes: Number.POSITIVE_INFINITY });
  const chunks = await openChunks(command, asked, decoder);
  const onWait = ({ message }: Error) => process.stderr.write(`warning: ${message}; waiting for it\n`);
  const found = await onceOver(() => findFile(chunks, segment, files), { ...GOING_OVER, onWait });
  if ('absent' in found) {
    if (found.isPassed && !(await write.hasOwn(segment, path))) return write.writeStandIn(stream, path, partial);
    throw notInArchive(asked, found.absent);
  }
  if (recovery && found.goesOn) await letReadOn(command, asked, recovery, found.fileBytes);
  await write.writeFound(chunks, found, path, partial);
  if (await write.dropIfOwn(found, path)) {
    const message = `of ${segment} the archive of stream ${stream} has no more than the server itself`;
    throw new NotInArchive(message, 'the server goes on with its own');
  }
  clearTimeout(timer);
}

const walFiles = async () => (await import('../source/postgres/wal-files.ts')).walFiles();

const notInArchive = ({ segment, stream }: Asked, why: string) =>
  new NotInArchive(
    `${segment} is not in the archive of stream ${stream}: ${why}`,
    'this is how recovery learns where it ends',
  );

function giveUp({ segment, stream, options: { timeout } }: Asked): never {
  process.stderr.write(`error: ${segment} of stream ${stream} could not be fetched within ${timeout} s\n`);
  process.stderr.write('hint: the store or a link is slow or hangs; --timeout allows more\n');
  process.kill(process.pid, 'SIGKILL'); // a thread that hangs in a dead mount would keep an orderly exit waiting
  throw new Error('killed');
}

async function decoderFor({ identity }: Options, more: Pick<DecoderOptions, 'inlineBytes'> = {}): Promise<Decoder> {
  const { openDecoder } = await import('../codec/decoder.ts');
  return openDecoder({ identities: await readIdentities(identity), ...more });
}

async function openChunks(command: Command, { stream, options }: Asked, decoder: Decoder): Promise<ChunkReader> {
  const [config, { openStore }, { ChunkReader }, { demandArchive }, { patient }] = await Promise.all([
    readConfig(command, { lazy: true }),
    import('../wiring/stores.ts'),
    import('../restore/chunks.ts'),
    import('../restore/reading.ts'),
    import('../archive/patient-store.ts'),
  ]);
  const {
    name,
    plan: { primary },
  } = streamOf(config, stream);
  const { store: storeName = primary } = options;
  const store = patient(await openStore(config, storeName), {
    signal: new AbortController().signal,
    attempts: ATTEMPTS,
    onFailure: (error) => process.stderr.write(`warning: ${messageOf(error)}; trying again\n`),
  });
  const archive = await demandArchive(store, name);
  const { type } = archive.info.identity;
  if (type === 'postgres') return new ChunkReader(archive, decoder);
  throw new UsageError(`stream ${name} is a log of ${type}, not of postgres`, '"shipmate restore" is for it');
}

/** As bin/shipmate tells it; null without it. */
async function recoveryOf(command: Command): Promise<Recovery | null> {
  const { recoveryAt } = await import('../restore/ahead-files.ts');
  const { config } = command.optsWithGlobals<{ config: string }>();
  return recoveryAt(process.env.SHIPMATE_READ_AHEAD, resolve(config));
}

/** What keeps others from being read ahead is no failure of this one. */
async function letReadOn(command: Command, asked: Asked, recovery: Recovery, segmentBytes: number): Promise<void> {
  const { stream, segment, dest, options } = asked;
  const { readOnAfter } = await import('../restore/ahead-files.ts');
  const { config } = command.optsWithGlobals<{ config: string }>();
  const flags = ['--config', resolve(config), '--read-ahead', String(segmentBytes)];
  if (options.store !== undefined) flags.push('--store', options.store);
  if (options.identity !== undefined) flags.push('--identity', resolve(options.identity));
  const args = [`--max-semi-space-size=${READ_AHEAD_MIB}`, MAIN, 'fetch', stream, segment, resolve(dest), ...flags];
  try {
    await readOnAfter({ recovery, after: segment, command: [process.execPath, ...args] });
  } catch (error) {
    process.stderr.write(`warning: ${messageOf(error)}\n`);
  }
}

async function readOn(command: Command, asked: Asked): Promise<void> {
  const recovery = await recoveryOf(command);
  if (recovery === null) throw new UsageError('nobody says where to keep what is read ahead', 'use bin/shipmate');
  setPriority(Math.min(getPriority() + READ_AHEAD_NICER, constants.priority.PRIORITY_LOW));
  const decoder = await decoderFor(asked.options);
  decoder.start(); // while all else is loaded and found
  const { readAhead } = await import('../restore/read-ahead.ts');
  const stopping = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.once(signal, () => stopping.abort());
  await readAhead({
    open: () => openChunks(command, asked, decoder),
    files: await walFiles(),
    recovery,
    after: asked.segment,
    segmentBytes: asked.options.readAhead!,
    signal: stopping.signal,
  });
}
