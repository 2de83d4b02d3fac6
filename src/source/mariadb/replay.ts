import { isValidEvent } from './checksums.ts';
import { corrupt } from './errors.ts';
import { CHECKSUM_BYTES, eventLength, eventType, HEADER_BYTES, MAGIC } from './events.ts';
import { type Flavour, gtidStateAt } from './gtid.ts';
import type { Segment, SegmentHeader } from './segment.ts';
import { isGroupStart, Transactions } from './transactions.ts';

/** Events that stand between transactions are short, but for lists of GTIDs at a file's start. */
const MAX_PEEK_BYTES = 4096;

/**
 * Whether a transaction boundary is at this offset, judged by the event that starts there: one that can only stand between
 * transactions, proven by its checksum (without checksums nothing can be proven). False means: perhaps not.
 */
export async function isBetweenTransactions(segment: Segment, header: SegmentHeader, offset: number): Promise<boolean> {
  if (!header.checksums) return false;
  const bytes = Buffer.alloc(MAX_PEEK_BYTES);
  const filled = await segment.read(bytes, 0, bytes.length, offset);
  if (filled < HEADER_BYTES || !isGroupStart(eventType(bytes, 0))) return false;
  const length = eventLength(bytes, 0);
  return length <= filled && isValidEvent(bytes, 0, length);
}

export interface Replayed {
  readonly transactions: Transactions;
  /** Where the event ends that `upTo` lies in; null: an event ends there. */
  readonly insideEventTo: number | null;
}

/** Goes through a file's events from the start up to an offset, to know the transaction that is open there. */
export async function replay({
  segment,
  header,
  flavour,
  upTo,
  bytes,
}: {
  segment: Segment;
  header: SegmentHeader;
  flavour: Flavour;
  upTo: number;
  bytes: Buffer;
}): Promise<Replayed> {
  const transactions = new Transactions(flavour, gtidStateAt(flavour, header.startId));
  const checksumBytes = header.checksums ? CHECKSUM_BYTES : 0;
  let offset = MAGIC.length;
  while (offset < upTo) {
    const filled = await segment.read(bytes, 0, bytes.length, offset);
    let at = 0;
    while (filled - at >= HEADER_BYTES && offset + at < upTo) {
      const length = eventLength(bytes, at);
      if (length < HEADER_BYTES) throw corrupt(segment.path, offset + at, `an event can't be ${length} bytes long`);
      // An event that does not fit is taken at the buffer's start, where its header and statement are.
      if (length > filled - at && at > 0) break;
      transactions.event(bytes, at, at + length - checksumBytes);
      at += length;
    }
    if (at === 0) throw corrupt(segment.path, offset, 'it ends inside an event');
    offset += at;
  }
  return { transactions, insideEventTo: offset === upTo ? null : offset };
}
