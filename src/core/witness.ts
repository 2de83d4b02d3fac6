import { xxh3 } from '@node-rs/xxhash';

const DIGITS = 32;

/** XXH3-128 (seed 0) of the bytes, or of the pieces put together, as 32 hex digits: what `xxhsum -H2` prints. */
export function witnessDigest(bytes: Uint8Array | readonly Uint8Array[]): string {
  const whole = bytes instanceof Uint8Array ? bytes : joined(bytes);
  return xxh3.xxh128(whole).toString(16).padStart(DIGITS, '0');
}

function joined(pieces: readonly Uint8Array[]): Uint8Array {
  return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
}

/**
 * The same digest of bytes that come in pieces, each valid only during `update`. It holds a copy of them, `lengthBytes`
 * (a chunk's length) at most, since the library's streaming digests have 64 bits only.
 */
export class WitnessDigest {
  readonly #held: Uint8Array;
  #heldBytes = 0;

  constructor(lengthBytes: number) {
    this.#held = Buffer.allocUnsafe(lengthBytes);
  }

  /** Throws RangeError beyond the announced length. */
  update(piece: Uint8Array): this {
    this.#held.set(piece, this.#heldBytes);
    this.#heldBytes += piece.length;
    return this;
  }

  get lengthBytes(): number {
    return this.#heldBytes;
  }

  /** Of what was given so far; more may follow. */
  digest(): string {
    return witnessDigest(this.#held.subarray(0, this.#heldBytes));
  }
}
