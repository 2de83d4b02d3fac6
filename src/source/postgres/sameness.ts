import { samePlace } from '../../core/position.ts';
import type { Head, Witness } from '../source.ts';
import { livingEnd, type OwnLog } from './own-log.ts';
import { isInHistory, type Timeline } from './timelines.ts';
import { WalScanner } from './wal-records.ts';

/** What comparing an archive's chunks with the WAL here has shown. */
export interface Comparison {
  /** Whether some chunk is here in other bytes. */
  readonly differs: boolean;
  /** The newest chunk before which nothing differs; null: none that is here. */
  readonly common: Witness | null;
}

/** Chunks without a transaction may be equal by chance; so many are looked at for one that can't. */
const MAX_CHUNKS = 1000;
const SCAN_PIECE_BYTES = 1 << 18;
/** So soon behind a timeline's beginning comes the record that ends recovery, with the time of the promotion. */
const FIRST_RECORD_BYTES = 128n;

/**
 * Compares an archive with the WAL here. Two servers that were promoted alone at the same place may have written equal
 * history files, and equal bytes behind them: zeros after a log switch, records of an idle server. So at first it goes
 * back to a chunk that tells them apart: with a commit (which has a time in microseconds), or with the timeline's first
 * record. From then on the last chunk is enough.
 */
export class Sameness {
  #proven = '';
  #seen: Witness | null = null;

  /** Something may have been put in the place of what was compared. */
  forget(): void {
    this.#proven = '';
    this.#seen = null;
  }

  /** `timeline`: the head's, which is of this server's history too. */
  async compare(own: OwnLog, head: Head, timeline: Timeline): Promise<Comparison> {
    const name = `${own.descent.originOf(timeline)} ${timeline.incarnation}`;
    const newest = head.witness;
    if (newest && this.#seen && isSame(newest, this.#seen)) return { differs: false, common: newest };
    let differs = false;
    let common: Witness | null = null;
    let isProven = this.#proven === name;
    let count = 0;
    for await (const chunk of head.history()) {
      const of = own.descent.find(chunk.to);
      const isEnough = of === undefined || (of !== timeline && !differs);
      if (isEnough || count++ === MAX_CHUNKS) break;
      if (isInHistory(chunk.to) || own.descent.lsnOf(chunk.to) > livingEnd(own, of)) continue;
      const isHere = await own.wal.has(chunk);
      if (isHere === null) continue;
      if (isHere) common ??= chunk;
      else {
        this.forget();
        isProven = false;
        [differs, common] = [true, null];
      }
      isProven ||= isHere && of === timeline && (await isTelling(own, chunk, timeline));
      if (isHere && (isProven || of !== timeline)) break;
    }
    if (!differs && isProven) this.#proven = name;
    if (!differs && newest && common && isSame(newest, common)) this.#seen = newest;
    return { differs, common };
  }
}

const isSame = (a: Witness, b: Witness) => a.mark === b.mark && samePlace(a.from, b.from) && samePlace(a.to, b.to);

/** Whether no other timeline that left its parent at the same place can have the bytes of a chunk. */
async function isTelling(own: OwnLog, chunk: Witness, { begin }: Timeline): Promise<boolean> {
  const { descent, wal } = own;
  const [start, end] = [descent.lsnOf(chunk.from), descent.lsnOf(chunk.to)];
  if (begin > 0n && start <= begin && end >= begin + FIRST_RECORD_BYTES) return true;
  let found = false;
  const scanner = new WalScanner((event) => {
    // What is before was copied from the parent.
    found ||= event.start >= begin;
  });
  const buffer = Buffer.allocUnsafe(Math.min(chunk.length, SCAN_PIECE_BYTES));
  await wal.use(chunk.from.segment, async (file) => {
    for (let done = 0; done < chunk.length && !found; ) {
      const read = await file.read(buffer, Math.min(buffer.length, chunk.length - done), chunk.from.offset + done);
      if (read === 0) break;
      scanner.feed(start + BigInt(done), buffer.subarray(0, read));
      done += read;
    }
  });
  return found;
}
