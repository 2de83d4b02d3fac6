import type { Archive } from '../archive/walk.ts';
import { decodePayload } from '../codec/decode.ts';
import { decodeHeader } from '../core/header.ts';
import { placeKey } from '../core/keys.ts';
import type { Piece } from '../core/ranges.ts';
import { ArchiveNotWhole, ShipmateError } from '../errors.ts';
import type { ObjectStore } from '../store/store.ts';

/** What is read of a chunk: where it is, and which one it must be. */
export type ChunkRef = Pick<Piece, 'place' | 'digest' | 'chunkLength'>;

/** Bounds what is in memory, plain bytes. One chunk that is larger than all of it is read alone. */
const MAX_BYTES_AHEAD = 48 << 20;
const MAX_CHUNKS_AHEAD = 32;

/**
 * A chunk's plain bytes, all of it proven: the header by the digest that the chain gave, the payload by its own. Throws
 * ArchiveNotWhole, naming the object, for one that is damaged or gone.
 */
export async function readChunk(archive: Archive, ref: ChunkRef): Promise<Buffer> {
  const key = placeKey(archive.info.stream, ref.place);
  try {
    return await decodeChunk(archive.store, key, ref);
  } catch (error) {
    throw notWhole(error);
  }
}

async function decodeChunk(store: ObjectStore, key: string, { digest }: ChunkRef): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of await store.read(key)) pieces.push(piece);
  const object = Buffer.concat(pieces);
  const { header, digest: found, payloadOffset } = decodeHeader(object, key);
  if (found !== digest || header.kind !== 'chunk') {
    throw new ArchiveNotWhole(
      `object ${key} in store ${store.name} is not the one that was there when the archive was read`,
      'somebody replaced it: run "shipmate verify --deep", and compare with a copy of the archive',
    );
  }
  return decodePayload(object.subarray(payloadOffset), header, key);
}

const DAMAGE = new Set(['CHUNK_CORRUPT', 'BAD_OBJECT', 'CHAIN_BROKEN', 'BAD_ARCHIVE_FILE']);

/** Damage as what it means to an operator: the archive is not whole. Anything else stays what it is. */
export function notWhole(error: unknown): unknown {
  if (!(error instanceof ShipmateError)) return error;
  if (DAMAGE.has(error.code)) return new ArchiveNotWhole(error.message, error.hint);
  if (error.code !== 'NOT_FOUND') return error;
  return new ArchiveNotWhole(
    error.message,
    'it was there when the archive was read: run the command again if retention ran meanwhile; else "shipmate verify"',
  );
}

/**
 * The chunks' plain bytes in the order that is asked for, a few of them read and decoded at once, ahead of the one that
 * is handed out.
 */
export async function* readChunks<R extends ChunkRef>(
  archive: Archive,
  refs: Iterable<R>,
): AsyncGenerator<{ ref: R; bytes: Buffer }> {
  const ahead: { ref: R; bytes: Promise<Buffer> }[] = [];
  let bytesAhead = 0;
  for (const ref of refs) {
    while (ahead.length > 0 && !fits(ref, ahead.length, bytesAhead)) yield* handOut();
    const bytes = readChunk(archive, ref);
    bytes.catch(() => {}); // thrown when its turn comes
    ahead.push({ ref, bytes });
    bytesAhead += ref.chunkLength;
  }
  while (ahead.length > 0) yield* handOut();

  async function* handOut() {
    const { ref, bytes } = ahead.shift()!;
    yield { ref, bytes: await bytes };
    // Not before: whoever took them holds them until now.
    bytesAhead -= ref.chunkLength;
  }
}

/** Does all of them, a few at once, in no order. The first failure ends it. */
export async function forEachChunk<R extends ChunkRef>(refs: Iterable<R>, work: (ref: R) => Promise<void>) {
  const running = new Set<Promise<void>>();
  let bytesRunning = 0;
  for (const ref of refs) {
    while (running.size > 0 && !fits(ref, running.size, bytesRunning)) await Promise.race(running);
    bytesRunning += ref.chunkLength;
    const one = work(ref).finally(() => {
      running.delete(one);
      bytesRunning -= ref.chunkLength;
    });
    one.catch(() => {}); // thrown by whoever waits for it
    running.add(one);
  }
  await Promise.all(running);
}

const fits = ({ chunkLength }: ChunkRef, chunks: number, bytes: number) =>
  chunks < MAX_CHUNKS_AHEAD && bytes + chunkLength <= MAX_BYTES_AHEAD;
