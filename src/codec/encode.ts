import { hash } from 'node:crypto';
import { constants, zstdCompressSync } from 'node:zlib';
import { keyedWitness, witnessDigest } from '../core/witness.ts';
import { encryptAge } from './age.ts';
import { fingerprintOf, parseRecipient } from './age-keys.ts';

/** How chunks are encrypted. */
export interface Encryption {
  /** Of age, at least one. */
  readonly recipients: readonly string[];
  /** The stream's, for the witness; hex. */
  readonly secret: string;
}

/** What encoding gives: the payload as it is stored, and the digests that its header names. */
export interface Encoded {
  /**
   * One zstd frame that tells its plain size and needs no dictionary; encrypted: in an age file. It ends a buffer of its
   * own, behind HEADER_ROOM_BYTES that are free.
   */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Of `bytes`. */
  readonly sha256: string;
  /** Of the plain bytes; encrypted: `keyedWitness`. */
  readonly witness: string;
  /** Fingerprints; absent where it is not encrypted. */
  readonly recipients?: readonly string[];
}

/** Left free before each payload, so that its header can be put there and the payload needs no copy. */
export const HEADER_ROOM_BYTES = 4096;

/** Encodes on the calling thread. */
export function encodePayload(plain: Uint8Array, level: number, encryption: Encryption | null = null): Encoded {
  // Room for the worst case, so that the frame comes in one piece; what isn't written to takes no memory.
  const chunkSize = plain.length + (plain.length >>> 8) + 1024;
  const frame = zstdCompressSync(plain, {
    chunkSize,
    params: { [constants.ZSTD_c_compressionLevel]: level },
    pledgedSrcSize: plain.length,
  });
  const bytes = encryption
    ? encryptAge(frame, encryption.recipients.map(parseRecipient), HEADER_ROOM_BYTES)
    : withRoom(frame);
  // Small frames lie in a buffer that others share; a large one's own is given back now, not when memory gets short.
  if (frame.buffer.byteLength === chunkSize) discard(frame.buffer);
  const witness = witnessDigest(plain);
  const encoded = { bytes, sha256: hash('sha256', bytes, 'hex') };
  if (encryption === null) return { ...encoded, witness };
  const { recipients, secret } = encryption;
  return { ...encoded, witness: keyedWitness(witness, secret), recipients: recipients.map(fingerprintOf) };
}

function withRoom(frame: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(new ArrayBuffer(HEADER_ROOM_BYTES + frame.length), HEADER_ROOM_BYTES);
  bytes.set(frame);
  return bytes;
}

/** Frees a buffer's memory at once; it is empty afterwards. Garbage collection would let tens of megabytes pile up. */
export function discard(buffer: ArrayBuffer): void {
  buffer.transfer(0);
}
