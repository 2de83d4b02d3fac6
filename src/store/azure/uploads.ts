import { createHash, randomUUID } from 'node:crypto';
import { addAbortSignal, type Readable } from 'node:stream';
import { piecesOf } from '../pieces.ts';
import type { Call, Container } from './container.ts';
import { isBlocksGone, isTaken } from './errors.ts';

export type Outcome = 'created' | 'exists';

export interface UploadsOptions {
  readonly container: Container;
  readonly accessTier: string | undefined;
  /** What is larger goes in blocks of this size. */
  readonly pieceBytes: number;
  /** Whether an object is there, for a creation that met another. */
  readonly isThere: (key: string) => Promise<boolean>;
}

const ONLY_IF_FREE = { ifNoneMatch: '*' };

/** Creates objects, each only if its name is free; Azure compares the bytes of each request with their MD5. */
export class Uploads {
  readonly #options: UploadsOptions;

  constructor(options: UploadsOptions) {
    this.#options = options;
  }

  async create(key: string, body: Uint8Array, signal: AbortSignal): Promise<Outcome> {
    const { pieceBytes } = this.#options;
    if (body.length <= pieceBytes) return this.#atOnce(key, body, signal);
    return this.#inBlocks(key, viewsOf(body, pieceBytes), signal);
  }

  /** `body` is destroyed when this ends or the signal aborts. */
  async createFrom(key: string, body: Readable, signal: AbortSignal): Promise<Outcome> {
    const pieces = piecesOf(addAbortSignal(signal, body), this.#options.pieceBytes);
    try {
      const { value: first = Buffer.alloc(0) } = await pieces.next();
      const { value: second } = await pieces.next();
      if (second === undefined) return await this.#atOnce(key, first, signal);
      return await this.#inBlocks(key, joined([first, second], pieces), signal);
    } finally {
      await pieces.return(undefined);
    }
  }

  async #atOnce(key: string, body: Uint8Array, signal: AbortSignal): Promise<Outcome> {
    const { container, accessTier: tier } = this.#options;
    const call = callFor(key, signal, body.length);
    try {
      await container.callOn(key, call, (blob, abortSignal) => {
        const checked = { transactionalContentMD5: md5(body), ...(tier !== undefined && { tier }) };
        return blob.upload(asBuffer(body), body.length, { ...checked, conditions: ONLY_IF_FREE, abortSignal });
      });
      return 'created';
    } catch (error) {
      if (isTaken(error)) return 'exists';
      throw container.fail(call, error);
    }
  }

  /**
   * Blocks that are never committed are no object: Azure drops them after a week. Their ids are this attempt's own, so that
   * no list can mix them with another's.
   */
  async #inBlocks(
    key: string,
    pieces: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): Promise<Outcome> {
    const { container, accessTier: tier } = this.#options;
    const attempt = randomUUID();
    const blocks: string[] = [];
    const call = callFor(key, signal);
    try {
      for await (const piece of pieces) {
        const id = Buffer.from(`${attempt}-${String(blocks.length).padStart(6, '0')}`).toString('base64');
        await container.callOn(key, callFor(key, signal, piece.length), (blob, abortSignal) =>
          blob.stageBlock(id, asBuffer(piece), piece.length, { transactionalContentMD5: md5(piece), abortSignal }),
        );
        blocks.push(id);
      }
      await container.callOn(key, call, (blob, abortSignal) => {
        const options = { ...(tier !== undefined && { tier }), conditions: ONLY_IF_FREE, abortSignal };
        return blob.commitBlockList(blocks, options);
      });
      return 'created';
    } catch (error) {
      if (isTaken(error)) return 'exists';
      if (isBlocksGone(error) && (await this.#options.isThere(key))) return 'exists';
      throw container.fail(call, error);
    }
  }
}

const callFor = (key: string, signal: AbortSignal, bodyBytes = 0): Call => ({
  action: { what: `create ${key}`, right: 'add/action' },
  signal,
  bodyBytes,
});

const md5 = (bytes: Uint8Array) => createHash('md5').update(bytes).digest();
const asBuffer = (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);

function* viewsOf(body: Uint8Array, pieceBytes: number): Generator<Uint8Array> {
  for (let at = 0; at < body.length; at += pieceBytes) yield body.subarray(at, at + pieceBytes);
}

async function* joined(start: readonly Buffer[], rest: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  yield* start;
  yield* rest;
}
