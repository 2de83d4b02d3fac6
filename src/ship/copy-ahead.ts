import { type ChainEnd, step } from '../core/chain.ts';
import type { Header, Read } from '../core/header.ts';
import type { Place } from '../core/keys.ts';

/** An object of the primary's chain that the copy lacks. */
export interface Next {
  /** Its own header says another one where a stranger put it there. */
  readonly place: Place;
  readonly read: Read;
  /** The walk behind it. */
  readonly end: ChainEnd;
  readonly bytes: number;
  readonly writtenMs: number;
}

/**
 * What a copy whose chain ends at `from` lacks next, of what was read at these places: up to the first empty one, or to the
 * term's seal.
 */
export function linked(
  from: ChainEnd,
  places: readonly Place[],
  reads: readonly (Read | null)[],
  nowMs: number,
): Next[] {
  const ahead: Next[] = [];
  for (const [index, read] of reads.entries()) {
    if (read === null) break;
    const stepped = step(ahead.at(-1)?.end ?? from, read);
    const { header, payloadOffset } = read;
    const bytes = payloadOffset + (header.kind === 'chunk' ? header.stored.bytes : 0);
    const saidMs = Date.parse(header.time); // a clock that is ahead must not keep the copy waiting
    const writtenMs = Number.isNaN(saidMs) ? nowMs : Math.min(saidMs, nowMs);
    ahead.push({ place: places[index]!, read, end: stepped.end, bytes, writtenMs });
    if (stepped.met === 'seal') break;
  }
  return ahead;
}

/**
 * How many of a batch must be there before one of its chunks: those that it says were durable when it was made. What it
 * proves in the primary is true of every copy then.
 */
export const settledBefore = (header: Header, first: Place) =>
  header.kind === 'chunk' ? Math.max(0, Math.min(header.slot, header.settled ?? 0) - first.slot) : 0;
