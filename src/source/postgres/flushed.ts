import { compareIds, parseId, parseLsn, type WalId } from './lsn.ts';

/** What a server answers, of one moment but for a promotion in between. */
export interface StateRow {
  /** At the beginning of the answer and at its end. */
  readonly was_in_recovery: boolean;
  readonly is_in_recovery: boolean;
  /** When the server started. */
  readonly life: string;
  /** On a primary. */
  readonly flushed: string | null;
  readonly writes_timeline: string | null;
  readonly replayed: string | null;
  readonly received: string | null;
  readonly receiver_status: string | null;
  readonly received_timeline: number | null;
  readonly received_flushed: string | null;
  /** `<timeline>/<LSN>` that recovery has passed; only where no receiver has flushed as much as was replayed. */
  readonly recovered: string | null;
}

export const flushedOnPrimary = ({ writes_timeline, flushed }: StateRow): WalId => ({
  timeline: Number.parseInt(writes_timeline!, 16),
  lsn: parseLsn(flushed!),
});

/**
 * Up to where WAL is on a standby's disk for sure; null: that is not known. `remembered`: what was known of it since it
 * started. `newestTimeline`: the highest one that a history file in pg_wal names, read after the row: none is replayed or
 * received before its file is there.
 */
export async function flushedOnStandby(
  row: StateRow,
  remembered: WalId | null,
  newestTimeline: () => Promise<number>,
): Promise<WalId | null> {
  const flushed = newest([remembered, received(row), recovered(row)]);
  const further = flushed && beyondReceiver(row, flushed);
  if (!further || compareIds(further, flushed) <= 0 || (await newestTimeline()) > flushed.timeline) return flushed;
  return further;
}

/** What the walreceiver has flushed of the timeline that it receives; rounded back to a segment's start at first. */
const received = ({ received_timeline, received_flushed }: StateRow): WalId | null =>
  received_timeline && received_flushed ? { timeline: received_timeline, lsn: parseLsn(received_flushed) } : null;

/** WAL is replayed from disk, where recovery made it durable before: what was passed is safe. */
const recovered = ({ recovered: passed }: StateRow): WalId | null =>
  passed === null || passed.startsWith('0/') ? null : parseId(passed);

/**
 * Without a receiver, or with one that tells less than was replayed (until more comes in, it tells where it began), how far
 * the WAL goes on disk if no newer timeline than that of `flushed` is known to this server: neither function says which
 * timeline it means. Replay must be proven to have reached it; what a receiver that is gone had received counts only where
 * there never was another one.
 */
function beyondReceiver(row: StateRow, { timeline }: WalId): WalId | null {
  if (recovered(row)?.timeline !== timeline) return null;
  const ends = timeline === 1 ? [row.replayed, row.received] : [row.replayed];
  return newest(ends.map((end) => (end === null ? null : { timeline, lsn: parseLsn(end) })));
}

const newest = (proofs: readonly (WalId | null)[]): WalId | null =>
  proofs.reduce((best, proof) => (best && (!proof || compareIds(best, proof) >= 0) ? best : proof), null);
