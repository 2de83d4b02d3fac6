import type { Position } from '../../core/position.ts';
import type { PgWal } from './pg-wal.ts';
import type { ServerState } from './server-state.ts';
import { type Descent, earlier, type Timeline } from './timelines.ts';
import { segmentNameAt } from './wal-name.ts';

/** A server's WAL as it was at one moment: what it said, where it comes from, and what is in pg_wal. */
export interface OwnLog {
  readonly state: ServerState;
  readonly descent: Descent;
  readonly wal: PgWal;
}

/** Up to where a timeline's WAL is part of this server's history and on its disk. */
export function livingEnd({ state }: OwnLog, { end }: Timeline): bigint {
  // A standby may know its timeline before it has all of the one before.
  return end === null ? state.flushed : earlier(end, state.flushed);
}

/** Up to where a timeline is read: its last segment's beginning is in its child's first segment. */
export function readableEnd(own: OwnLog, timeline: Timeline): bigint {
  const last = own.descent.lastSegmentOf(timeline);
  const end = livingEnd(own, timeline);
  return last === null ? end : earlier(last, end);
}

/** A timeline, and the start of the first segment of it that is here. */
interface Oldest {
  readonly timeline: Timeline;
  readonly lsn: bigint;
}

/** From where on nothing is missing up to the newest byte; null where not even its segment is here. */
async function oldestOf({ state, descent, wal }: OwnLog): Promise<Oldest | null> {
  const { segmentBytes } = descent.cluster;
  const step = BigInt(segmentBytes);
  const names = await wal.segments();
  let oldest: Oldest | null = null;
  for (const timeline of descent.timelines.toReversed()) {
    const start = descent.startOf(timeline);
    const end = descent.lastSegmentOf(timeline) ?? state.flushed;
    // A timeline without a segment of its own that counts: its history file tells of it all the same.
    if (end <= start && timeline.history !== null) oldest = { timeline, lsn: start };
    for (let lsn = end - ((end - 1n) % step) - 1n; lsn >= start && end > start; lsn -= step) {
      if (!names.has(segmentNameAt(timeline.number, lsn, segmentBytes))) return oldest;
      oldest = { timeline, lsn };
    }
  }
  return oldest;
}

/** Where a term begins that has all WAL that is here; null where there is none. */
export async function beginningOf(own: OwnLog): Promise<Position | null> {
  const oldest = await oldestOf(own);
  return oldest && own.descent.beginningAt(oldest.timeline, oldest.lsn);
}
