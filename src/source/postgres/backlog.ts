import type { Position } from '../../core/position.ts';
import type { Backlog } from '../source.ts';
import { type OwnLog, readableEnd } from './own-log.ts';
import { earlier, isInHistory, type Timeline } from './timelines.ts';
import { segmentStartAt } from './wal-name.ts';
import { DEFAULT_PAGE_BYTES } from './wal-page.ts';
import { WalScanner } from './wal-records.ts';

const PAGE_BYTES = BigInt(DEFAULT_PAGE_BYTES);
const PIECE_BYTES = 1 << 16;
/** So far a commit is looked for, of which the time tells when the bytes were written. */
const SCAN_BYTES = 1n << 20n;

const NOTHING: Backlog = { bytes: 0, oldestMs: null };

/** Measures what a reader would ship from a position on; remembers when the oldest byte was written. */
export class BacklogMeter {
  #known: { id: string; incarnation: string; ms: number } | null = null;

  async measure(own: OwnLog, timeline: Timeline, position: Position): Promise<Backlog> {
    const bytes = Number(bytesBeyond(own, timeline, position));
    if (bytes === 0) return NOTHING;
    const { id, incarnation } = position;
    if (this.#known?.id === id && this.#known.incarnation === incarnation) return { bytes, oldestMs: this.#known.ms };
    const { commitMs, modifiedMs } = await writtenMs(own, timeline, own.descent.lsnOf(position));
    if (commitMs !== null) this.#known = { id, incarnation, ms: commitMs };
    return { bytes, oldestMs: commitMs ?? modifiedMs };
  }
}

function bytesBeyond(own: OwnLog, timeline: Timeline, position: Position): bigint {
  const { descent } = own;
  let bytes = historyBytesLeft(timeline, position) + positive(readableEnd(own, timeline) - descent.lsnOf(position));
  for (let each = descent.childOf(timeline); each !== undefined; each = descent.childOf(each)) {
    bytes += BigInt(each.history?.length ?? 0) + positive(readableEnd(own, each) - descent.startOf(each));
  }
  return bytes;
}

function historyBytesLeft({ history }: Timeline, position: Position): bigint {
  return isInHistory(position) && history !== null ? positive(BigInt(history.length - position.offset)) : 0n;
}

const positive = (bytes: bigint) => (bytes > 0n ? bytes : 0n);

/** When the first commit after an LSN was made, if one is near; and when its segment was last written to. */
async function writtenMs(own: OwnLog, timeline: Timeline, lsn: bigint) {
  const { descent, wal } = own;
  const child = descent.childOf(timeline);
  const end = readableEnd(own, timeline);
  if (child && lsn >= end) return writtenMs(own, child, descent.startOf(child));
  let commitMs: number | null = null;
  const scanner = new WalScanner(({ micros, end: after }) => {
    if (after > lsn) commitMs ??= Math.floor(micros / 1000);
  });
  const segmentStart = segmentStartAt(lsn, descent.cluster.segmentBytes);
  const last = earlier(earlier(end, lsn + SCAN_BYTES), segmentStart + BigInt(descent.cluster.segmentBytes));
  const buffer = Buffer.allocUnsafe(PIECE_BYTES);
  const modifiedMs = await wal.use(descent.position(timeline, lsn).segment, async (file) => {
    for (let at = lsn - (lsn % PAGE_BYTES); at < last && commitMs === null; ) {
      const length = Number(earlier(last - at, BigInt(PIECE_BYTES)));
      const read = await file.read(buffer, length, Number(at - segmentStart));
      if (read === 0) break;
      scanner.feed(at, buffer.subarray(0, read));
      at += BigInt(read);
    }
    return file.modifiedMs();
  });
  return { commitMs: commitMs as number | null, modifiedMs };
}
