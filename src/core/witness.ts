import { createHmac } from 'node:crypto';
import { xxh3 } from '@node-rs/xxhash';

/** A digest of each seed makes one half. The first half is what `xxhsum -H3` prints. */
const SEEDS = [0n, 1n] as const;
const HALF_DIGITS = 16;
const DIGITS = SEEDS.length * HALF_DIGITS;
/** What one half has read is still in the processor's cache when the other one reads it: a quarter less time. */
const CACHED_BYTES = 64 * 1024;

/**
 * The digest of a range's plain bytes, given piece by piece: XXH3-64 with seed 0, then with seed 1; 32 hex digits. It
 * shows that the same bytes are there again; against an attacker it proves nothing (chunks have a SHA-256 for that).
 *
 * Two 64-bit digests, since the library computes them with vector instructions while bytes stream through, ten times as
 * fast as its 128-bit digest, which takes whole buffers only and would cost a third of the compression's time.
 */
export class WitnessDigest {
  readonly #halves = SEEDS.map((seed) => xxh3.Xxh3.withSeed(seed));

  /** The piece is read at once; the caller may use its memory again. */
  update(piece: Uint8Array): this {
    for (let at = 0; at < piece.length; at += CACHED_BYTES) {
      const cached = piece.subarray(at, at + CACHED_BYTES);
      for (const half of this.#halves) half.update(cached);
    }
    return this;
  }

  /** Of what was given so far; more may follow. */
  digest(): string {
    return this.#halves.map((half) => half.digest().toString(16).padStart(HALF_DIGITS, '0')).join('');
  }
}

/** The witness of the bytes, or of the pieces put together. */
export function witnessDigest(bytes: Uint8Array | readonly Uint8Array[]): string {
  const digest = new WitnessDigest();
  for (const piece of bytes instanceof Uint8Array ? [bytes] : bytes) digest.update(piece);
  return digest.digest();
}

/**
 * What stands in the place of the witness in an encrypted chunk's header: its HMAC-SHA256 under the stream's secret, the
 * first 32 hex digits. Who reads the store alone can't try guesses of the plain bytes against it.
 */
export function keyedWitness(witness: string, secret: string): string {
  return createHmac('sha256', Buffer.from(secret, 'hex')).update(witness).digest('hex').slice(0, DIGITS);
}
