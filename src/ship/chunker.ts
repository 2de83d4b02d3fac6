import type { Block, BlockPool } from '../codec/blocks.ts';
import { type Position, samePlace } from '../core/position.ts';
import type { LogSlice } from '../source/source.ts';

/** A contiguous byte range of one segment, ready to be encoded. Whoever takes it releases its block. */
export interface Cut {
  readonly from: Position;
  readonly to: Position;
  readonly block: Block;
  readonly length: number;
  readonly endsSegment: boolean;
  readonly openTransaction: boolean;
  readonly firstEventMs: number | null;
  readonly lastEventMs: number | null;
  /** Monotonic time at which its first byte was read, milliseconds. */
  readonly readAtMs: number;
}

/** Where a chunk begins, or what was added behind its boundary. */
interface Start {
  readonly from: Position;
  readonly readAtMs: number;
  readonly firstEventMs: number | null;
}

/** Where a chunk may end: after the last slice that was added, or the last one on a transaction boundary. */
interface Mark {
  readonly to: Position;
  readonly length: number;
  readonly endsSegment: boolean;
  readonly lastEventMs: number | null;
  readonly openTransaction: boolean;
}

export interface ChunkerOptions {
  readonly maxBytes: number;
  readonly pool: BlockPool;
  readonly nowMs: () => number;
}

/**
 * Gathers slices into chunks: of one segment, at most `maxBytes`, ending on a transaction boundary unless one
 * transaction alone is larger than that. Holds at most one block.
 */
export class Chunker {
  readonly #options: ChunkerOptions;
  #block: Block | null = null;
  /** Bytes behind the last cut's boundary, until the next block is there. */
  #carried: Uint8Array | null = null;
  #added: Mark | null = null;
  #boundary: Mark | null = null;
  /** Of what is gathered up to the boundary; null where there is none. */
  #start: Start | null = null;
  /** Of what lies behind the boundary, or of all where there is none. */
  #behind: Start | null = null;

  constructor(options: ChunkerOptions) {
    this.#options = options;
  }

  /** Whether a cut would end on a transaction boundary. */
  get ready(): boolean {
    return this.#boundary !== null;
  }

  get empty(): boolean {
    return this.#added === null;
  }

  /** Whether the slice may join what is gathered; if not, `take` first. */
  fits(slice: LogSlice): boolean {
    if (this.#added === null) return true;
    const { to, length, endsSegment } = this.#added;
    return !endsSegment && samePlace(slice.from, to) && length + slice.bytes.length <= this.#options.maxBytes;
  }

  /** Copies the slice's bytes; waits for a block where none is held. */
  async add(slice: LogSlice, signal: AbortSignal): Promise<void> {
    const block = await this.#hold(signal);
    const offset = this.#added?.length ?? 0;
    block.bytes.set(slice.bytes, offset);
    const { from, firstEventMs } = slice;
    this.#behind = joined(this.#behind, { from, firstEventMs, readAtMs: this.#options.nowMs() });
    this.#added = {
      to: slice.to,
      length: offset + slice.bytes.length,
      endsSegment: slice.endsSegment,
      lastEventMs: slice.lastEventMs ?? this.#added?.lastEventMs ?? null,
      openTransaction: !slice.boundary,
    };
    if (!slice.boundary && !slice.endsSegment) return;
    this.#boundary = this.#added;
    this.#start = joined(this.#start, this.#behind);
    this.#behind = null;
  }

  /**
   * What is gathered, up to the last transaction boundary; all of it where there is none. What lies behind the boundary
   * is carried over. Null when nothing is gathered.
   */
  async take(signal: AbortSignal): Promise<Cut | null> {
    const end = this.#boundary ?? this.#added;
    const start = this.#start ?? this.#behind;
    if (end === null || start === null) return null;
    const block = await this.#hold(signal);
    const rest = this.#added!.length - end.length;
    this.#carried = rest > 0 ? new Uint8Array(block.bytes.subarray(end.length, this.#added!.length)) : null;
    this.#added = rest > 0 ? { ...this.#added!, length: rest } : null;
    this.#behind = rest > 0 ? this.#behind : null;
    this.#start = null;
    this.#boundary = null;
    this.#block = null;
    return { ...end, ...start, block };
  }

  /** Forgets what is gathered and gives the block back. */
  drop(): void {
    this.#block?.release();
    this.#block = null;
    this.#carried = null;
    this.#added = null;
    this.#boundary = null;
    this.#start = null;
    this.#behind = null;
  }

  async #hold(signal: AbortSignal): Promise<Block> {
    this.#block ??= await this.#options.pool.acquire(signal);
    if (this.#carried !== null) {
      this.#block.bytes.set(this.#carried);
      this.#carried = null;
    }
    return this.#block;
  }
}

/** The first with what follows it: the oldest event is the first that is known. */
const joined = (first: Start | null, next: Start): Start =>
  first === null ? next : { ...first, firstEventMs: first.firstEventMs ?? next.firstEventMs };
