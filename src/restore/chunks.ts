import { type Archive, readFloor } from '../archive/walk.ts';
import { type Decoded, type Decoder, openDecoder } from '../codec/decoder.ts';
import { decodeHeader } from '../core/header.ts';
import { comparePlaces, placeKey } from '../core/keys.ts';
import type { Piece } from '../core/ranges.ts';
import { ArchiveNotWhole, ShipmateError } from '../errors.ts';

/** What is read of a chunk: where it is, and which one it must be. */
export type ChunkRef = Pick<Piece, 'place' | 'digest' | 'chunkLength'>;

/** Bounds what is in memory, plain bytes. One chunk that is larger than all of it is read alone. */
const MAX_BYTES_AHEAD = 24 << 20;
const MAX_CHUNKS_AHEAD = 256;

/** Reads an archive's chunks, a few at once. */
export class ChunkReader {
  readonly archive: Archive;
  readonly #decoder: Decoder;

  constructor(archive: Archive, decoder: Decoder = openDecoder()) {
    this.archive = archive;
    this.#decoder = decoder;
  }

  /**
   * A chunk's plain bytes, all of it proven: the header by the digest that the chain gave, the payload by its own. Throws
   * ArchiveNotWhole, naming the object, for one that is damaged or gone; PRUNED where retention has deleted it meanwhile.
   */
  async read(ref: ChunkRef): Promise<Decoded> {
    const key = placeKey(this.archive.info.stream, ref.place);
    try {
      return await this.#decode(key, ref);
    } catch (error) {
      if (isNotFound(error) && comparePlaces(ref.place, await readFloor(this.archive)) < 0) throw this.#pruned(key);
      throw notWhole(error);
    }
  }

  /**
   * The chunks' plain bytes in the order that is asked for, a few of them read and decoded ahead of the one that is handed
   * out. Bytes are valid only until the next ones are asked for.
   */
  async *readInOrder<R extends ChunkRef>(refs: Iterable<R>): AsyncGenerator<{ ref: R; bytes: Uint8Array }> {
    const ahead: { ref: R; decoding: Promise<Decoded> }[] = [];
    let bytesAhead = 0;
    for (const ref of refs) {
      while (ahead.length > 0 && !fits(ref, ahead.length, bytesAhead)) yield* handOut();
      const decoding = this.read(ref);
      decoding.catch(() => {}); // thrown when its turn comes
      ahead.push({ ref, decoding });
      bytesAhead += ref.chunkLength;
    }
    while (ahead.length > 0) yield* handOut();

    async function* handOut() {
      const { ref, decoding } = ahead.shift()!;
      const decoded = await decoding;
      yield { ref, bytes: decoded.bytes };
      decoded.release();
      bytesAhead -= ref.chunkLength;
    }
  }

  /**
   * Reads and proves all of them, in no order; `onChunk` is told of each what was found: that it is damaged, or encrypted and
   * could not be opened, so that its stored bytes alone are proven.
   */
  async proveEach<R extends ChunkRef>(
    refs: Iterable<R>,
    onChunk: (ref: R, found: 'proven' | 'unopened' | ArchiveNotWhole) => void,
  ): Promise<void> {
    const running = new Set<Promise<void>>();
    let bytesRunning = 0;
    const prove = async (ref: R) => {
      try {
        (await this.read(ref)).release();
        onChunk(ref, 'proven');
      } catch (error) {
        if (error instanceof ArchiveNotWhole) return onChunk(ref, error);
        if (isPruned(error)) return onChunk(ref, 'proven'); // there is nothing to prove any more
        if (!(error instanceof ShipmateError) || error.code !== 'ENCRYPTED') throw error;
        onChunk(ref, 'unopened');
      }
    };
    try {
      for (const ref of refs) {
        while (running.size > 0 && !fits(ref, running.size, bytesRunning)) await Promise.race(running);
        bytesRunning += ref.chunkLength;
        const proving = prove(ref).finally(() => {
          running.delete(proving);
          bytesRunning -= ref.chunkLength;
        });
        proving.catch(() => {}); // thrown by whoever waits for it
        running.add(proving);
      }
      await Promise.all(running);
    } finally {
      await Promise.allSettled(running); // what was begun is told of, whatever went wrong
    }
  }

  #pruned(key: string): ShipmateError {
    const { store, info } = this.archive;
    return new ShipmateError(`object ${key} in store ${store.name} was deleted by retention while it was wanted`, {
      code: 'PRUNED',
      hint: `run it again: it begins where the archive begins now. "shipmate ls ${info.stream}" shows that`,
    });
  }

  async #decode(key: string, { digest }: ChunkRef): Promise<Decoded> {
    const { store } = this.archive;
    const pieces: Buffer[] = [];
    for await (const piece of await store.read(key)) pieces.push(piece);
    const object = joined(pieces);
    const { header, digest: found, payloadOffset } = decodeHeader(object, key);
    if (found !== digest || header.kind !== 'chunk') {
      throw new ArchiveNotWhole(
        `object ${key} in store ${store.name} is not the one that was there when the archive was read`,
        'somebody replaced it: run "shipmate verify --deep", and compare with a copy of the archive',
      );
    }
    return this.#decoder.decode(object.subarray(payloadOffset), header, key);
  }
}

const fits = ({ chunkLength }: ChunkRef, chunks: number, bytes: number) =>
  chunks < MAX_CHUNKS_AHEAD && bytes + chunkLength <= MAX_BYTES_AHEAD;

/** In a buffer of their own, which can be handed to another thread. */
function joined(pieces: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let length = 0;
  for (const piece of pieces) {
    whole.set(piece, length);
    length += piece.length;
  }
  return whole;
}

/** Whether retention has deleted what was being read: whoever reads begins again (protocol rule 12). */
export const isPruned = (error: unknown): boolean => error instanceof ShipmateError && error.code === 'PRUNED';
const isNotFound = (error: unknown) => error instanceof ShipmateError && error.code === 'NOT_FOUND';

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
