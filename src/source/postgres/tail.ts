import { type Position, samePlace } from '../../core/position.ts';
import type { LogSlice } from '../source.ts';
import type { PgWal } from './pg-wal.ts';

const TAIL_BYTES = 1 << 13;

/** The last bytes that were read: a server that was put back meanwhile, and has written on, has others in their place. */
export class Tail {
  #to: Position | null = null;
  #bytes = Buffer.alloc(0);

  /** After each slice. */
  set({ to, bytes }: LogSlice): void {
    this.#to = to;
    this.#bytes = Buffer.from(bytes.subarray(-TAIL_BYTES));
  }

  /** Whether they are here still, as far as can be told before one reads on from a position. */
  async isHere(wal: PgWal, at: Position): Promise<boolean> {
    const [to, bytes] = [this.#to, this.#bytes];
    if (to === null || !samePlace(to, at)) return true;
    const found = await wal.use(at.segment, async (file) => {
      const there = Buffer.allocUnsafe(bytes.length);
      const read = await file.read(there, there.length, at.offset - bytes.length);
      return (await file.isInPlace()) ? there.subarray(0, read) : null;
    });
    return found === null || found.equals(bytes);
  }
}
