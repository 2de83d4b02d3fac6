import { samePlace } from '../../core/position.ts';
import type { Head, Witness } from '../source.ts';
import { eventLength, eventType, HEADER_BYTES, MAGIC } from './events.ts';
import { type Gtid, MariadbGtidState } from './gtid.ts';
import { isGtid } from './transactions.ts';

/** Enough of an event to know its GTID. */
const GTID_EVENT_BYTES = HEADER_BYTES + 13;

/**
 * The GTIDs of the transactions that begin in an archive's chunks, chunk by chunk, oldest first; the first must start on a
 * transaction boundary. Null for the first that is encrypted, and no more then. Reads the store.
 */
export async function* gtidsIn(head: Head, chunks: readonly Witness[]): AsyncIterable<Gtid[] | null> {
  const events = new EventStarts();
  let before: Witness | null = null;
  for (const chunk of chunks) {
    if (!before || !samePlace(before.to, chunk.from)) events.restart(chunk.from.offset);
    before = chunk;
    const bytes = await head.bytes(chunk);
    yield bytes && [...events.gtids(bytes)];
    if (bytes === null) return;
  }
}

/** Steps from event to event through bytes that come in parts. */
class EventStarts {
  readonly #state = new MariadbGtidState();
  /** Bytes to step over before the next event. */
  #skip = 0;
  /** The start of an event whose rest is yet to come. */
  #begun: Buffer = Buffer.alloc(0);

  restart(offset: number): void {
    this.#skip = Math.max(0, MAGIC.length - offset);
    this.#begun = Buffer.alloc(0);
  }

  *gtids(part: Uint8Array): Iterable<Gtid> {
    const bytes = Buffer.concat([this.#begun, part]);
    let at = this.#skip;
    while (at + GTID_EVENT_BYTES <= bytes.length) {
      const length = eventLength(bytes, at);
      // What a crash left at a file's end.
      if (length < HEADER_BYTES) at = bytes.length;
      else if (isGtid(eventType(bytes, at))) {
        this.#state.begin(bytes, at);
        yield this.#state.begunGtid();
      }
      at += Math.max(length, HEADER_BYTES);
    }
    this.#begun = Buffer.from(bytes.subarray(Math.min(at, bytes.length)));
    this.#skip = Math.max(0, at - bytes.length);
  }
}
