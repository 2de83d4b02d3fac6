import type { Hole } from '../archive/reader.ts';
import type { Archive } from '../archive/walk.ts';
import { placeText } from '../core/keys.ts';
import { cutRun, type Run, runBytes, runEnd, runStart, type Segment, stretchesOf } from '../core/ranges.ts';
import { ArchiveNotWhole, ShipmateError, UsageError } from '../errors.ts';
import type { LogFormat, Until } from '../source/source.ts';
import type { ChunkReader } from './chunks.ts';
import { locate } from './locate.ts';
import type { Progress } from './progress.ts';
import { readSummary } from './reading.ts';
import { timeText, untilText } from './until.ts';

/** What a restore writes, to the byte. */
export interface RestorePlan {
  readonly archive: string;
  readonly stream: string;
  readonly until: Until;
  readonly afterGap: boolean;
  readonly runs: readonly PlannedRun[];
  readonly segments: number;
  /** Of the log. */
  readonly bytes: number;
  /** Where it ends: the log's ID, and the last time that is known at or before it. */
  readonly end: { readonly id: string | null; readonly timeMs: number | null };
  /** The time that was asked for is later than all of the archive: everything is restored. */
  readonly beyondArchive: boolean;
}

export interface PlannedRun {
  /** Below the target directory; empty where there is one run only, whose files lie in it directly. */
  readonly directory: string;
  readonly origin: string;
  readonly segments: readonly Segment[];
  readonly bytes: number;
}

export interface PlanOptions {
  readonly chunks: ChunkReader;
  readonly format: LogFormat;
  readonly until: Until;
  /** Only what follows the last gap, for a base backup that was taken after it. */
  readonly afterGap: boolean;
  readonly progress: Progress;
}

/**
 * Reads the archive's headers, and as much of its chunks as it takes to find the target. Writes nothing. Throws
 * ArchiveNotWhole where bytes are missing before the target.
 */
export async function planRestore(options: PlanOptions): Promise<RestorePlan> {
  const { chunks, until, afterGap, progress } = options;
  const { archive } = chunks;
  const { reader, hole } = await readSummary(archive, progress);
  const stretches = stretchesOf(reader.living.runs);
  const index = afterGap ? stretches.length - 1 : 0;
  const stretch = stretches[index];
  if (stretch === undefined) throw nothingShipped(archive, hole);
  if (afterGap && index === 0) {
    throw new UsageError(`the archive of stream ${archive.info.stream} has no gap`, 'leave --after-gap out');
  }
  demandWholeStart(archive, stretch);
  demandNotBefore(options, stretch);

  const { runs, isReached } = await cutRuns(options, stretch);
  if (!isReached) {
    const next = stretches[index + 1];
    if (next !== undefined) throw gapAhead(archive, stretch, next);
    if (hole !== null) throw holeAhead(archive, stretch, hole);
    if (until.kind === 'id') throw notThere(archive, until, stretch);
  }
  const { stream, archive: id } = archive.info;
  return {
    archive: id,
    stream,
    until,
    afterGap,
    runs: placeRuns(runs),
    segments: runs.reduce((sum, { segments }) => sum + segments.length, 0),
    bytes: runs.reduce((sum, run) => sum + runBytes(run), 0),
    end: endOf(runs),
    beyondArchive: !isReached && until.kind === 'time',
  };
}

/** The runs up to the target; each that another server's log follows, up to where that goes on. */
async function cutRuns(options: PlanOptions, stretch: readonly Run[]): Promise<{ runs: Run[]; isReached: boolean }> {
  const { until } = options;
  const runs: Run[] = [];
  for (const run of stretch) {
    if (until.kind !== 'latest') {
      const cut = await locate({ ...options, run, until });
      if (cut !== null) return { runs: notEmpty([...runs, cutRun(run, cut)]), isReached: true };
    }
    runs.push(await untilItsEnd(options, run));
  }
  return { runs: notEmpty(runs), isReached: false };
}

async function untilItsEnd(options: PlanOptions, run: Run): Promise<Run> {
  if (run.until === null) return run;
  const cut = await locate({ ...options, run, until: { kind: 'id', id: run.until } });
  return cut === null ? run : cutRun(run, cut);
}

const notEmpty = (runs: readonly Run[]) => runs.filter(({ segments }) => segments.length > 0);

function placeRuns(runs: readonly Run[]): PlannedRun[] {
  return runs.map((run, index) => ({
    directory: runs.length === 1 ? '' : `${String(index + 1).padStart(2, '0')}-${plainName(run.origin)}`,
    origin: run.origin,
    segments: run.segments.map(demandPlainName),
    bytes: runBytes(run),
  }));
}

function endOf(runs: readonly Run[]): RestorePlan['end'] {
  const ends = runs.map(runEnd);
  return { id: ends.at(-1)?.id ?? null, timeMs: ends.findLast(({ timeMs }) => timeMs !== null)?.timeMs ?? null };
}

const plainName = (name: string) => name.replaceAll(/[^A-Za-z0-9._-]/g, '_');

/** Names come from the archive: none may lead out of the directory, or be taken for Shipmate's own. */
function demandPlainName(segment: Segment): Segment {
  if (/^[^/\\\p{Cc}]{1,255}$/u.test(segment.name) && !/^(\.|\.\.|\.shipmate.*)$/.test(segment.name)) return segment;
  throw new ShipmateError(`the archive holds a segment named ${JSON.stringify(segment.name)}, which is no file name`, {
    code: 'BAD_SEGMENT_NAME',
    hint: 'no database names its log so: somebody else may have written to the archive',
  });
}

function demandWholeStart({ info }: Archive, runs: readonly Run[]): void {
  const torn = runs.flatMap(({ segments }) => segments).find(({ offset }) => offset > 0);
  if (torn === undefined) return;
  throw new ArchiveNotWhole(
    `stream ${info.stream}: the first ${torn.offset} bytes of ${torn.name} are not in the archive`,
    'the rest can be taken out by hand: docs/restore.md shows how',
  );
}

/** What lies before the archive's first transaction can't be cut to. */
function demandNotBefore({ chunks, until, format }: PlanOptions, stretch: readonly Run[]): void {
  const start = runStart(stretch[0]!);
  const isBefore =
    until.kind === 'time'
      ? start.timeMs !== null && until.ms < start.timeMs
      : until.kind === 'id' && start.id !== null && start.id !== '' && format.covers?.(start.id, until.id);
  if (isBefore) throw notThere(chunks.archive, until, stretch);
}

function notThere({ info, store }: Archive, until: Until, stretch: readonly Run[]): ShipmateError {
  const [first, last] = [runStart(stretch[0]!), runEnd(stretch.at(-1)!)];
  return new ShipmateError(
    `${untilText(until)} is not in the archive of stream ${info.stream} in store ${store.name}: ` +
      `it goes from ${placeInLog(first)} to ${placeInLog(last)}`,
    {
      code: 'NOT_IN_ARCHIVE',
      hint: 'give an ID or time in between, or "latest"; a time is written like 2026-11-22T13:05:00Z',
    },
  );
}

function placeInLog({ id, timeMs }: { id: string | null; timeMs: number | null }): string {
  const time = timeMs === null ? '' : ` (${timeText(timeMs)})`;
  return `${id || 'the log’s beginning'}${time}`;
}

function nothingShipped({ info, store }: Archive, hole: Hole | null): ShipmateError {
  if (hole !== null) return new ArchiveNotWhole(missing(info.stream, hole), VERIFY);
  return new ShipmateError(`the archive of stream ${info.stream} in store ${store.name} holds no byte of the log yet`, {
    code: 'NOTHING_SHIPPED',
    hint: 'once a daemon runs and the database writes, there is something to restore: "shipmate ls" shows it',
  });
}

const VERIFY = 'run "shipmate verify" on this store and on its copies: --store of "restore" names the one to read from';

const missing = (stream: string, { at, next }: Hole) =>
  `stream ${stream}: the object at ${placeText(at)} is missing, although the one at ${placeText(next)} is there`;

function holeAhead({ info }: Archive, stretch: readonly Run[], hole: Hole): ArchiveNotWhole {
  const { id } = runEnd(stretch.at(-1)!);
  return new ArchiveNotWhole(missing(info.stream, hole), `${beforeHint(id)}${VERIFY}`);
}

function gapAhead({ info }: Archive, before: readonly Run[], after: readonly Run[]): ArchiveNotWhole {
  const end = before.at(-1)!;
  const last = end.segments.at(-1)!;
  const first = after[0]!.segments[0]!;
  const { id } = runEnd(end);
  return new ArchiveNotWhole(
    `stream ${info.stream} has a gap: bytes are missing between ${last.name}:${last.offset + last.length} ` +
      `(${id || 'no ID'}) and ${first.name}:${first.offset} (${first.fromId || 'no ID'})`,
    `${beforeHint(id)}for a base backup taken after the gap, --after-gap restores what follows it`,
  );
}

const beforeHint = (id: string | null) => (id ? `--until ${id} restores everything before it; ` : '');
