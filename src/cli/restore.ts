import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import type { StreamConfig } from '../config.ts';
import { bytesText, countText, secondsText } from '../core/format.ts';
import { UsageError } from '../errors.ts';
import type { PlannedRun, RestorePlan } from '../restore/plan.ts';
import { timeText } from '../restore/until.ts';
import { readArchives } from './archives.ts';
import { addHelp, STREAM } from './help.ts';
import { print, printable, printJson } from './terminal.ts';

interface Options {
  to: string;
  until: string;
  from?: string;
  store?: string;
  afterGap?: boolean;
  throughTerm?: number;
  dryRun?: boolean;
  identity?: string;
  replay?: boolean;
  socket?: string;
  user?: string;
  json?: boolean;
}

export function defineRestore(command: Command): void {
  addHelp(command, {
    notes: [
      'Reads the store alone, and may be repeated: what is there already is not read again. Exit code 3: it would have to cross a gap.',
    ],
    examples: [
      'shipmate restore orders --to /srv/restore --dry-run',
      'shipmate restore orders --to /srv/restore --until 2026-11-22T13:05:00Z',
      'shipmate restore orders --to /srv/restore --from 0-1-5200 --replay',
    ],
  });
  command
    .argument('<stream>', STREAM)
    .requiredOption('--to <dir>', 'where to write: a new or empty directory, or one of the same restore, interrupted')
    .option('--until <target>', '"latest", a time like 2026-11-22T13:05:00Z, or a log ID; inclusive', 'latest')
    .option('--store <store>', "which store to read from; by default the stream's primary")
    .option('--from <id>', "a base backup's GTID position or start LSN: only what comes after it")
    .option('--after-gap', 'restore what follows the last gap, for a base backup that was taken after it')
    .option('--through-term <n>', 'the log as this term left it, with what a later fork left behind', parseTerm)
    .option('--identity <file>', 'the age identity file that opens what is encrypted; may hold several keys')
    .option('--replay', 'then apply it to a server: each transaction that the server does not have yet')
    .option('--socket <path>', "with --replay: the server's socket; by default as the mariadb client finds it")
    .option('--user <name>', 'with --replay: by default as the mariadb client has it')
    .option('--dry-run', 'tell what would be restored, and write nothing')
    .option('--json', 'print JSON')
    .action((stream: string, options: Options) => carryOut(command, stream, options));
}

function parseTerm(text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw new UsageError(`"${text}" is not a term`, '"shipmate ls" shows them');
}

async function carryOut(command: Command, name: string, options: Options): Promise<void> {
  const { store, afterGap = false, throughTerm = null, dryRun = false, json = false, socket, user } = options;
  const begunMs = performance.now();
  const archives = await readArchives(command, options);
  const [stream] = archives.streams(name);
  const [{ parseUntil }, { planRestore }, { restore }, { besideOf }, { replay, replayCommands }] = await Promise.all([
    import('../restore/until.ts'),
    import('../restore/plan.ts'),
    import('../restore/restore.ts'),
    import('../restore/beside.ts'),
    import('../restore/replay.ts'),
  ]);
  const format = archives.formatOf(stream!);
  if (options.replay && format.replay === undefined) throw cannotReplay(stream!);
  const until = parseUntil(options.until, format);
  const from = options.from === undefined ? null : format.parseId(options.from);
  const chunks = await archives.open(stream!, store);
  const { progress } = archives;
  const directory = resolve(options.to);
  const plan = await planRestore({ chunks, format, until, from, afterGap, throughTerm, progress });
  const replaying = { chunks, format, directory, target: { socket, user }, progress };
  const commands = replayCommands(plan, replaying);
  if (dryRun) {
    if (json) printJson({ ...planJson(plan), replay: commands });
    else printLines([`would restore ${summary(plan, directory)}`, ...runLines(plan)]);
    return;
  }
  const afterwards = options.replay ? () => replay(plan, replaying) : async () => {};
  const wroteBytes = await restore(plan, { chunks, format, directory, progress, afterwards });
  const { guide } = besideOf(plan, format, directory);
  const seconds = (performance.now() - begunMs) / 1000;
  if (json) {
    printJson({
      ...planJson(plan),
      directory,
      wroteBytes,
      seconds,
      replay: commands,
      replayed: options.replay ?? false,
      guide: guide && join(directory, guide),
    });
    return;
  }
  const kept = plan.bytes - wroteBytes;
  const resumed = kept > 0 ? ` (${bytesText(kept)} were there already)` : '';
  printLines([
    `restored ${summary(plan, directory)}`,
    ...runLines(plan),
    `every digest agrees; ${secondsText(seconds)}${resumed}`,
    ...(options.replay ? ['replayed: the server has every transaction of it'] : byHand(commands)),
    ...(guide ? ['', `${join(directory, guide)} says how to recover from it, and has the settings for that`] : []),
  ]);
}

const cannotReplay = ({ name, source }: StreamConfig) =>
  new UsageError(
    `stream ${name}: there is no --replay for source type ${source.type}`,
    'leave it out: what is restored is used as docs/restore.md says; for PostgreSQL a file beside it says how',
  );

const printLines = (lines: readonly string[]) => print(lines.map(printable).join('\n'));

const byHand = (commands: readonly string[]) =>
  commands.length === 0 ? [] : ['', 'to replay it (--replay does the same, and can be repeated):', ...commands];

function summary({ stream, runs, segments, bytes, end, beyondArchive }: RestorePlan, directory: string): string {
  const counted = `${countText(runs.length, 'run')}, ${countText(segments, 'segment')}, ${bytesText(bytes)}`;
  const last = [end.id, end.timeMs === null ? null : timeText(end.timeMs)].filter(
    (text) => text !== null && text !== '',
  );
  const upTo = last.length > 0 ? `, up to ${last.join(', ')}` : '';
  const note = beyondArchive ? '; the time asked for is later than all of the archive' : '';
  return `stream ${stream} to ${directory}: ${counted}${upTo}${note}`;
}

function runLines({ runs }: RestorePlan): string[] {
  return runs.map(({ directory, origin, segments, bytes }) => {
    const [first, last] = [segments[0]!.name, segments.at(-1)!.name];
    const names = segments.length === 1 ? first : `${first} … ${last}`;
    return `  ${directory || origin}: ${names} (${countText(segments.length, 'file')}, ${bytesText(bytes)})`;
  });
}

function planJson({ archive, stream, runs, segments, bytes, end, beyondArchive }: RestorePlan): object {
  return {
    stream,
    archive,
    runs: runs.map(runJson),
    segments,
    bytes,
    end: { id: end.id, time: end.timeMs === null ? null : timeText(end.timeMs) },
    beyondArchive,
  };
}

function runJson({ directory, origin, segments, bytes }: PlannedRun): object {
  return {
    directory,
    origin,
    bytes,
    segments: segments.map(fileJson),
  };
}

const fileJson = ({ name, fileStart, length }: PlannedRun['segments'][number]) => ({
  name,
  bytes: fileStart.length + length,
});
