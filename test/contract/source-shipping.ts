import type { Position } from '../../src/core/position.ts';
import { follows, samePlace } from '../../src/core/position.ts';
import type { Head, Located, LogSlice, LogSource, Witness } from '../../src/source/source.ts';
import { headWith, proofOf } from '../helpers/head.ts';

interface ShippedChunk extends Witness {
  readonly bytes: Buffer;
}

/** An archive reduced to what a source meets of it: every slice is a chunk, openings cut what they take back. */
export class Shipping {
  #chunks: ShippedChunk[] = [];
  #position: Position | null = null;
  #left: Position[] = [];
  #anew: Position | null = null;

  /** What a reader of the archive would restore: each segment's bytes by name, of the newest life of that name. */
  contents(): Map<string, Buffer> {
    const pieces = new Map<string, { incarnation: string; bytes: Buffer[] }>();
    for (const { from, bytes } of this.#chunks) {
      const known = pieces.get(from.segment);
      if (known?.incarnation === from.incarnation) known.bytes.push(bytes);
      else pieces.set(from.segment, { incarnation: from.incarnation, bytes: [bytes] });
    }
    return new Map([...pieces].map(([name, { bytes }]) => [name, Buffer.concat(bytes)]));
  }

  get position(): Position | null {
    return this.#position;
  }

  get chunks(): readonly Witness[] {
    return this.#chunks;
  }

  head(): Head {
    const bytesOf = (witness: Witness) => this.#chunks.find((chunk) => chunk === witness)!.bytes;
    const [position, left, anew] = [this.#position, this.#left, this.#anew];
    return headWith({ position, chunks: this.#chunks.toReversed(), left, anew, bytesOf });
  }

  /** A new term: goes on from `at`, and cuts what was shipped beyond the common point of a truncation or fork. */
  open({ result, at, common = at ?? undefined }: Located): void {
    if ((result === 'truncate' || result === 'fork') && common) {
      const last = this.#chunks.findLastIndex(({ to }) => samePlace(to, common));
      this.#chunks = this.#chunks.slice(0, last + 1);
    }
    if (result === 'fork' && this.#position) this.#left.unshift(this.#position);
    if (result === 'reset') this.#anew = at;
    this.#position = at;
  }

  add({ from, to, bytes, boundary }: LogSlice): void {
    if (this.#position && !follows(from, this.#position)) {
      throw new Error(
        `${from.segment}:${from.offset} does not follow ${this.#position.segment}:${this.#position.offset}`,
      );
    }
    const copy = Buffer.from(bytes);
    this.#chunks.push({
      from,
      to,
      length: copy.length,
      ...proofOf(copy),
      openTransaction: !boundary,
      bytes: copy,
    });
    this.#position = to;
  }

  /** Ships what `source` has until nothing is left behind, and acknowledges it. Returns the slices without their bytes. */
  async ship(source: LogSource): Promise<Omit<LogSlice, 'bytes'>[]> {
    const slices: Omit<LogSlice, 'bytes'>[] = [];
    const stop = new AbortController();
    try {
      if ((await source.backlog(this.#position)).bytes === 0) return slices;
      for await (const slice of source.read(this.#position, stop.signal)) {
        this.add(slice);
        const { bytes: _, ...rest } = slice;
        slices.push(rest);
        await source.acknowledge(slice.to);
        if ((await source.backlog(slice.to)).bytes === 0) break;
      }
    } finally {
      stop.abort();
    }
    return slices;
  }
}

/** The error that an async generator ends with; fails when it goes on past `maxSlices`. */
export async function endOf(
  slices: AsyncIterable<LogSlice>,
  onSlice: (slice: LogSlice) => void = () => {},
): Promise<unknown> {
  try {
    for await (const slice of slices) onSlice(slice);
  } catch (error) {
    return error;
  }
  throw new Error('the source ended without an error');
}
