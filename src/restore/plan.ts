import type { Hole, Reading } from '../archive/reader.ts';
import { type Archive, readFloor } from '../archive/walk.ts';
import { comparePlaces, placeText } from '../core/keys.ts';
import { cutRun, type Run, runEnd, runStart, type Segment, stretchesOf } from '../core/ranges.ts';
import { ArchiveNotWhole, ShipmateError, UsageError } from '../errors.ts';
import type { LogFormat, Until } from '../source/source.ts';
import { type ChunkReader, isPruned } from './chunks.ts';
import { withCompanion } from './companion.ts';
import { type Found, fileStartOf, locate } from './locate.ts';
import type { Progress } from './progress.ts';
import { type ChainSummary, readSummary, readThroughTerm } from './reading.ts';
import { beginOf, type StatedRun, startAfter, stateBefore, stated } from './states.ts';
import { timeText, untilText } from './until.ts';

/** What a restore writes, to the byte. */
export interface RestorePlan {
  readonly archive: string;
  readonly stream: string;
  readonly until: Until;
  readonly from: string | null;
  readonly afterGap: boolean;
  readonly throughTerm: number | null;
  readonly runs: readonly PlannedRun[];
  readonly segments: number;
  /** Of the log. */
  readonly bytes: number;
  /** Where it ends: the log's ID, and the last time that is known at or before it. */
  readonly end: { readonly id: string | null; readonly timeMs: number | null };
  /** The time that was asked for is later than all of the archive: everything is restored. */
  readonly beyondArchive: boolean;
  /** Nothing that was restored lies beyond what was asked for. */
  readonly isWhole: boolean;
}

export interface PlannedRun {
  /** Below the target directory; empty where there is one run only, whose files lie in it directly. */
  readonly directory: string;
  readonly origin: string;
  readonly segments: readonly PlannedSegment[];
  readonly bytes: number;
  /** What is not to be applied again from the run's files; empty where the log begins with it. */
  readonly before: string;
  /** What who applies the runs up to this one has then. */
  readonly end: string;
  /** The log began anew with this run: its IDs tell nothing about the runs before. */
  readonly anew: boolean;
}

/** A file to write. */
export interface PlannedSegment extends Segment {
  /** What stands before the segment's bytes; empty where these are a file by themselves. */
  readonly fileStart: Uint8Array;
}

export const fileBytes = ({ fileStart, length }: PlannedSegment) => fileStart.length + length;

export interface PlanOptions {
  readonly chunks: ChunkReader;
  readonly format: LogFormat;
  readonly until: Until;
  /** What a base backup has already: only the files that hold more; null: from the archive's start. */
  readonly from?: string | null;
  /** The log as this term left it: with what a later fork left behind. */
  readonly throughTerm?: number | null;
  /** Only what follows the last gap, for a base backup that was taken after it. */
  readonly afterGap: boolean;
  readonly progress: Progress;
}

/**
 * Reads the archive's headers, and as much of its chunks as it takes to find the target. Writes nothing. Throws
 * ArchiveNotWhole where bytes are missing before the target. Where retention deletes what it reads it begins again.
 */
export async function planRestore(options: PlanOptions): Promise<RestorePlan> {
  const { archive } = options.chunks;
  for (;;) {
    const floor = await readFloor(archive);
    try {
      const plan = await planNow(options);
      if (comparePlaces(floor, await readFloor(archive)) === 0) return plan;
    } catch (error) {
      if (!isPruned(error)) throw error;
    }
  }
}

async function planNow(options: PlanOptions): Promise<RestorePlan> {
  const { chunks, format, progress, from = null, until, throughTerm = null, afterGap } = options;
  const { archive } = chunks;
  if (throughTerm !== null) return (await planOf(options, await readThroughTerm(archive, progress, throughTerm)))!;
  // Which gap is the last one all of the archive tells.
  const part = await readSummary(archive, progress, afterGap ? undefined : { from, until }, format);
  return (await planOf(options, part)) ?? (await planOf(options, await readSummary(archive, progress)))!;
}

/** Null where the target or the start is not in what was read, but there is more. */
async function planOf(options: PlanOptions, reading: Reading<ChainSummary>): Promise<RestorePlan | null> {
  const { chunks, until, from = null, afterGap, throughTerm = null } = options;
  const { archive } = chunks;
  const { reader, hole, goesOn, isPart } = reading;
  const stretches = stretchesOf(reader.living.runs);
  const index = indexOfStretch(options, stretches);
  const stretch = stretches[index];
  if (stretch === undefined) throw nothingShipped(archive, hole);
  if (afterGap && index === 0) {
    throw new UsageError(`the archive of stream ${archive.info.stream} has no gap`, 'leave --after-gap out');
  }
  demandWholeStart(options, stretch);
  demandNotBefore(options, stretch);

  const { runs, found } = await cutRuns(options, stretch);
  if (found === null) {
    const next = stretches[index + 1];
    if (next !== undefined) throw gapAhead(archive, stretch, next);
    if (goesOn) return null;
    if (hole !== null) throw holeAhead(archive, stretch, hole);
    if (until.kind === 'id') throw notThere(archive, until, stretch);
  }
  if (found === 'end' && goesOn) return null;
  const needed = from === null ? runs : startAfter(runs, from, options.format);
  if (needed === null && isPart) return null;
  if (needed === null) throw notThere(archive, { kind: 'id', id: from! }, stretch);
  if (from !== null) await demandHas(needed, from, options);
  const { stream, archive: id } = archive.info;
  const placed = placeRuns(
    await withCompanion(needed, { archive, format: options.format, living: reader.living.runs }),
    options.format,
  );
  const isCut = found !== null && found !== 'end';
  return {
    archive: id,
    stream,
    until,
    from,
    afterGap,
    throughTerm,
    runs: placed,
    segments: placed.reduce((sum, { segments }) => sum + segments.length, 0),
    bytes: placed.reduce((sum, run) => sum + run.bytes, 0),
    end: isCut && found.timeMs !== undefined ? { id: found.id, timeMs: found.timeMs } : endOf(needed),
    beyondArchive: found === null && until.kind === 'time',
    isWhole: !isCut,
  };
}

/** With a base backup what follows it: of the stretches that begin with no more than it has the last. */
function indexOfStretch({ format, from = null, afterGap }: PlanOptions, stretches: readonly Run[][]): number {
  if (afterGap) return stretches.length - 1;
  if (from === null) return 0;
  return Math.max(
    0,
    stretches.findLastIndex((runs) => format.covers?.(from, beginOf(runs, format))),
  );
}

/** The runs up to the target; each that another server's log follows, up to where that goes on. */
async function cutRuns(
  options: PlanOptions,
  stretch: readonly Run[],
): Promise<{ runs: StatedRun[]; found: Found | 'end' | null }> {
  const { until, format } = options;
  const runs: StatedRun[] = [];
  let found: 'end' | null = null;
  for (const [index, each] of stretch.entries()) {
    const before = stateBefore(stretch.slice(index), runs.at(-1)?.end ?? '', format);
    const next = firstId(stretch[index + 1]);
    const run = await untilItsEnd(options, each, { before, next });
    const here = until.kind === 'latest' ? null : await locate({ ...options, run, until, before, next });
    if (here !== null && here !== 'end') {
      return { runs: notEmpty([...runs, stated(cutRun(run, here), before, format)]), found: here };
    }
    found ??= here;
    runs.push(stated(run, before, format));
  }
  return { runs: notEmpty(runs), found };
}

const firstId = (run: Run | undefined) => run?.segments[0]?.fromId ?? null;

async function untilItsEnd(
  options: PlanOptions,
  run: Run,
  about: { before: string; next: string | null },
): Promise<Run> {
  if (run.until === null) return run;
  const found = await locate({ ...options, ...about, run, until: { kind: 'id', id: run.until } });
  return found === null || found === 'end' ? run : cutRun(run, found);
}

/** Throws where the runs, which are taken to have an ID by its numbers, have other transactions under them. */
export async function demandHas(
  runs: readonly { readonly run: Run; readonly before: string }[],
  id: string,
  options: Pick<PlanOptions, 'chunks' | 'format' | 'progress'>,
): Promise<void> {
  for (const [index, { run }] of runs.entries()) {
    const next = firstId(runs[index + 1]?.run);
    const found = await locate({ ...options, run, until: { kind: 'id', id }, before: '', next, first: 0 });
    if (found !== null) return;
  }
}

const notEmpty = (runs: readonly StatedRun[]) => runs.filter(({ run }) => run.segments.length > 0);

function placeRuns(runs: readonly StatedRun[], format: LogFormat): PlannedRun[] {
  return runs.map(({ run, before, end }, index) => {
    const segments = run.segments.map((segment) => ({
      ...demandPlainName(segment),
      fileStart: fileStartOf(segment, format) ?? new Uint8Array(0),
    }));
    const directory = runs.length === 1 ? '' : `${String(index + 1).padStart(2, '0')}-${plainName(run.origin)}`;
    const bytes = segments.reduce((sum, segment) => sum + fileBytes(segment), 0);
    return { directory, origin: run.origin, segments, bytes, before, end, anew: run.anew };
  });
}

function endOf(runs: readonly StatedRun[]): RestorePlan['end'] {
  const times = runs.map(({ run }) => runEnd(run).timeMs);
  const last = runs.at(-1);
  const id = last === undefined || runEnd(last.run).id === null ? null : last.end;
  return { id, timeMs: times.findLast((timeMs) => timeMs !== null) ?? null };
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

function demandWholeStart({ chunks, format }: PlanOptions, runs: readonly Run[]): void {
  const { info } = chunks.archive;
  const segments = runs.flatMap((run) => run.segments);
  const torn = segments.find((segment) => segment.offset > 0 && fileStartOf(segment, format) === null);
  if (torn === undefined) return;
  throw new ArchiveNotWhole(
    `stream ${info.stream}: the first ${torn.offset} bytes of ${torn.name} are not in the archive`,
    'the rest can be taken out by hand: docs/restore.md shows how',
  );
}

/** What lies before the archive's first transaction can't be cut to. */
function demandNotBefore({ chunks, until, format }: PlanOptions, stretch: readonly Run[]): void {
  const { timeMs } = runStart(stretch[0]!);
  const begin = beginOf(stretch, format);
  const isBefore =
    until.kind === 'time'
      ? timeMs !== null && until.ms < timeMs
      : until.kind === 'id' && begin !== '' && format.covers?.(begin, until.id);
  if (isBefore) throw notThere(chunks.archive, until, stretch);
}

function notThere({ info, store }: Archive, until: Until, stretch: readonly Run[]): ShipmateError {
  const [first, last] = [runStart(stretch[0]!), runEnd(stretch.at(-1)!)];
  return new ShipmateError(
    `${untilText(until)} is not in the archive of stream ${info.stream} in store ${store.name}: ` +
      `it has what comes after ${placeInLog(first)}, up to ${placeInLog(last)}`,
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
