import { type Cut, type Piece, type Run, runEnd, type Segment } from '../core/ranges.ts';
import type { LogFormat, Until } from '../source/source.ts';
import type { ChunkReader } from './chunks.ts';
import type { Progress } from './progress.ts';
import { untilText } from './until.ts';

export interface Search {
  readonly chunks: ChunkReader;
  readonly format: LogFormat;
  readonly run: Run;
  readonly until: Until;
  /** All that the log had before the run; empty where the run is its beginning, or begins anew. */
  readonly before: string;
  /** The first ID of the run that goes on from it; null where it is the last. */
  readonly next: string | null;
  /** The first segment to scan; by default one that the chunks' headers tell. */
  readonly first?: number;
  readonly progress: Progress;
}

/** Where a target cuts a run. */
export interface Found extends Cut {
  /** When the last transaction before the target was committed; undefined where the format does not tell. */
  readonly timeMs: number | null | undefined;
}

/**
 * Where the target cuts the run, by the format's own scanner over the run's bytes; `end`: the run ends with it, and `null`
 * before it. The chunks' headers spare the scanner the segments that surely lie before the target.
 */
export async function locate(search: Search): Promise<Found | 'end' | null> {
  const { chunks, format, run, until, before, next, first = firstToScan(search), progress } = search;
  const cutter = format.cutter(until, before, next);
  progress.stage(`looking for ${untilText(until)}`, { unit: 'bytes' });
  try {
    for await (const { ref, bytes } of chunks.readInOrder(piecesFrom(run, first))) {
      if (ref.fileStart !== null) cutter.feed(ref.name, ref.fileStart);
      const kept = cutter.feed(ref.name, bytes.subarray(0, ref.length));
      progress.advance(ref.length);
      if (kept < ref.length || cutter.reached) {
        const cut = { segment: ref.segment, offset: ref.offset + kept, id: cutter.id ?? null };
        const timeMs = cutter.timeMs ?? (cutter.timeMs === null ? lastTimeBefore(run, first) : undefined);
        return { ...withBeyond(cut, run, format), timeMs };
      }
    }
    return cutter.isAtEnd ? 'end' : null;
  } finally {
    progress.end();
  }

  function* piecesFrom({ segments }: Run, from: number) {
    for (const [index, segment] of segments.entries()) {
      if (index < from) continue;
      for (const piece of segment.pieces) {
        const fileStart = piece === segment.pieces[0] ? fileStartOf(segment, format) : null;
        yield { ...piece, name: segment.name, segment: index, fileStart };
      }
    }
  }
}

const lastTimeBefore = ({ segments, ...run }: Run, first: number) =>
  runEnd({ ...run, segments: segments.slice(0, first) }).timeMs;

/** What is kept behind the target, since the database wants to see that it was passed. */
function withBeyond(cut: Cut, { segments }: Run, { segmentsBeyond }: LogFormat): Cut {
  if (segmentsBeyond === undefined) return cut;
  const segment = Math.min(segments.length - 1, cut.segment + segmentsBeyond);
  const { offset, length } = segments[segment]!;
  return { ...cut, segment, offset: offset + length };
}

/** What has to stand before the segment's bytes to make a file of them; null where they are one, or nothing is known. */
export function fileStartOf({ offset, evidence }: Segment, format: LogFormat): Uint8Array | null {
  return offset > 0 && evidence !== null ? (format.fileStart?.(evidence) ?? null) : null;
}

/**
 * The scanner may begin with any segment. Transactions stand in the order of their commits, while their times are those
 * of their statements' starts: one segment more is scanned than the first that tells a later time.
 */
function firstToScan({ format, run: { segments }, until, before }: Search): number {
  if (until.kind === 'id') {
    if (!format.covers) return 0;
    const idAt = ({ fromId }: Segment) => format.union?.(before, fromId) ?? fromId;
    const after = segments.findIndex((segment) => idAt(segment) !== '' && format.covers!(idAt(segment), until.id));
    return Math.max(0, (after === -1 ? segments.length : after) - 1);
  }
  const targetMs = until.kind === 'time' ? until.ms : Number.POSITIVE_INFINITY;
  const later = segments.findIndex(({ pieces }) => pieces.some((piece) => isLater(piece, targetMs)));
  return Math.max(0, (later === -1 ? segments.length : later) - 1);
}

const isLater = ({ firstEventMs, lastEventMs }: Piece, ms: number) =>
  Math.max(firstEventMs ?? 0, lastEventMs ?? 0) > ms;
