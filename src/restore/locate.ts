import type { Cut, Piece, Run, Segment } from '../core/ranges.ts';
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
  /** The first segment to scan; by default one that the chunks' headers tell. */
  readonly first?: number;
  readonly progress: Progress;
}

/**
 * Where the target cuts the run, by the format's own scanner over the run's bytes; null if the run ends before it. The
 * chunks' headers spare the scanner the segments that surely lie before the target.
 */
export async function locate(search: Search): Promise<Cut | null> {
  const { chunks, format, run, until, before, first = firstToScan(search), progress } = search;
  const cutter = format.cutter(until, before);
  progress.stage(`looking for ${untilText(until)}`, { unit: 'bytes' });
  try {
    for await (const { ref, bytes } of chunks.readInOrder(piecesFrom(run, first))) {
      if (ref.fileStart !== null) cutter.feed(ref.name, ref.fileStart);
      const kept = cutter.feed(ref.name, bytes.subarray(0, ref.length));
      progress.advance(ref.length);
      if (kept < ref.length || cutter.reached) {
        return { segment: ref.segment, offset: ref.offset + kept, id: cutter.id ?? null };
      }
    }
    return null;
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
