import { decodePayload } from '../codec/decode.ts';
import { type Chunk, decodeHeader, HEADER_READ_BYTES, headerBytes, type Read } from '../core/header.ts';
import type { ObjectStore } from '../store/store.ts';

/** An object's header, with one small request; two where the header is unusually long. Throws NOT_FOUND, BAD_OBJECT. */
export async function readHeader(store: ObjectStore, key: string): Promise<Read> {
  const start = await store.readStart(key, HEADER_READ_BYTES);
  const neededBytes = headerBytes(start, key);
  return decodeHeader(neededBytes > start.length ? await store.readStart(key, neededBytes) : start, key);
}

/** A chunk's payload as stored, unchecked; one byte more than its header says where the object goes on. */
export async function readPayload(
  store: ObjectStore,
  key: string,
  { header, payloadOffset }: Read<Chunk>,
): Promise<Buffer> {
  const end = payloadOffset + header.stored.bytes;
  const pieces: Buffer[] = [];
  for await (const piece of await store.read(key, { start: payloadOffset, end: end + 1 })) pieces.push(piece);
  return Buffer.concat(pieces);
}

/** A chunk's plain bytes, every digest checked; throws CHUNK_CORRUPT. */
export async function readPlain(store: ObjectStore, key: string, read: Read<Chunk>): Promise<Buffer> {
  return decodePayload(await readPayload(store, key, read), read.header, key);
}
