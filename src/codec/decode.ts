import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { zstdDecompress } from 'node:zlib';
import type { Chunk } from '../core/header.ts';
import { witnessDigest } from '../core/witness.ts';
import { messageOf, ShipmateError } from '../errors.ts';
import { decryptAge } from './age.ts';
import type { Identity } from './age-keys.ts';
import { framesOf } from './frames.ts';

const decompress = promisify(zstdDecompress);

/** What a chunk's header says of its payload. */
export type PayloadFacts = Pick<Chunk, 'length' | 'witness' | 'stored' | 'recipients'>;

/** Throws CHUNK_CORRUPT unless these are the bytes that the header speaks of, as stored: no decoding needed. */
export function checkStored(payload: Uint8Array, { stored }: PayloadFacts, key: string): void {
  if (payload.length !== stored.bytes) {
    throw corrupt(key, `its payload has ${payload.length} bytes, its header says ${stored.bytes}`);
  }
  const sha256 = createHash('sha256').update(payload).digest('hex');
  if (sha256 !== stored.sha256)
    throw corrupt(key, `the SHA-256 of its payload is ${sha256}, its header says ${stored.sha256}`);
}

/**
 * The plain bytes of a chunk's payload (what follows the header frame; one or more zstd frames, in an age file if it is
 * encrypted). Checks the stored bytes' SHA-256, then the plain bytes' length and witness; throws CHUNK_CORRUPT, naming
 * `key`. An encrypted chunk's witness is keyed: there age's own proof of each piece stands in its place. Throws ENCRYPTED
 * where none of the identities opens it. Memory: the plain length.
 */
export async function decodePayload(
  payload: Uint8Array,
  facts: PayloadFacts,
  key: string,
  identities: readonly Identity[] = [],
): Promise<Buffer<ArrayBuffer>> {
  checkStored(payload, facts, key);
  const frames = facts.recipients ? decrypt(payload, facts.recipients, key, identities) : payload;
  const plain = await inflate(frames, facts.length, key);
  if (plain.length !== facts.length) {
    throw corrupt(key, `it holds ${plain.length} plain bytes, its header says ${facts.length}`);
  }
  if (facts.recipients) return plain;
  const witness = witnessDigest(plain);
  if (witness !== facts.witness)
    throw corrupt(key, `its plain bytes have the digest ${witness}, its header says ${facts.witness}`);
  return plain;
}

function decrypt(
  payload: Uint8Array,
  recipients: readonly string[],
  key: string,
  identities: readonly Identity[],
): Uint8Array {
  const isOpen = identities.length > 0;
  try {
    const frames = isOpen ? decryptAge(payload, identities) : null;
    if (frames !== null) return frames;
  } catch (cause) {
    throw corrupt(key, `it can't be decrypted: ${messageOf(cause)}`, cause);
  }
  const given = isOpen ? `, and the identities given are ${identities.map((each) => each.fingerprint).join(', ')}` : '';
  throw new ShipmateError(`object ${key} is encrypted for ${recipients.join(', ')}${given}`, {
    code: 'ENCRYPTED',
    hint: 'give the file with the private key of one of them: --identity FILE. docs/encryption.md says how to tell which',
  });
}

async function inflate(payload: Uint8Array, lengthBytes: number, key: string): Promise<Buffer<ArrayBuffer>> {
  const pieces: Buffer<ArrayBuffer>[] = [];
  let room = lengthBytes;
  try {
    for (const { kind, bytes } of framesOf(payload)) {
      if (kind === 'skippable') continue;
      // One output buffer: the default would go to the thread pool and back every 16 KiB. Once full it would be given a
      // successor, hence a little more than can come.
      const piece = await decompress(bytes, { chunkSize: room + 64, maxOutputLength: Math.max(room, 1) });
      pieces.push(piece);
      room -= piece.length;
    }
  } catch (cause) {
    throw corrupt(key, `it can't be decompressed to ${lengthBytes} bytes: ${messageOf(cause)}`, cause);
  }
  return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
}

function corrupt(key: string, why: string, cause?: unknown): ShipmateError {
  return new ShipmateError(`object ${key} is damaged: ${why}`, {
    code: 'CHUNK_CORRUPT',
    hint: 'take this object from a copy of the archive, if there is one: run "shipmate verify --deep" on each store',
    cause,
  });
}
