import { addAbortSignal, type Readable } from 'node:stream';
import type { StorageClass } from '@aws-sdk/client-s3';
import { crc32c } from '@node-rs/crc32';
import { RESERVED } from '../keys.ts';
import { piecesOf } from '../pieces.ts';
import type { Bucket, Call } from './bucket.ts';
import { conflict, isConflict, isTaken, tooLarge } from './errors.ts';

export type Outcome = 'created' | 'exists';

export interface UploadsOptions {
  readonly bucket: Bucket;
  readonly storageClass: string | undefined;
  /** A stream that is longer goes in parts of this size, 5 MiB at least. */
  readonly pieceBytes: number;
  /** Whether an object is there, for a creation that met another. */
  readonly isThere: (key: string) => Promise<boolean>;
}

interface Part {
  readonly PartNumber: number;
  readonly ETag: string | undefined;
  readonly ChecksumCRC32C: string;
}

/** The bytes of a stream as far as they were read, and the rest. */
interface Streamed {
  readonly start: readonly Buffer[];
  readonly rest: AsyncIterable<Buffer>;
}

/** Streams are held in memory up to here where a server can't create in parts only if the name is free. */
const MAX_HELD_BYTES = 64 << 20;
const RIGHT = 's3:PutObject';
const PROBE = `${RESERVED}probe`;

/**
 * Creates objects, each only if its name is free. What is in memory goes in one request whatever its size (AWS takes 5 GiB):
 * there every server that passes the start-up probe honours the condition.
 */
export class Uploads {
  readonly #options: UploadsOptions;
  #honoursInParts: boolean | null = null;

  constructor(options: UploadsOptions) {
    this.#options = options;
  }

  async create(key: string, body: Uint8Array, signal: AbortSignal): Promise<Outcome> {
    const { bucket, storageClass } = this.#options;
    const call = { action: { what: `create ${key}`, right: RIGHT }, signal, bodyBytes: body.length };
    try {
      await bucket.call(call, ({ sdk, client, limits }) => {
        const checked = { Body: body, ChecksumCRC32C: crc32cOf(body), ContentLength: body.length };
        const object = { ...bucket.place(key), ...checked, ...storageClassOf(storageClass) };
        return client.send(new sdk.PutObjectCommand({ ...object, IfNoneMatch: '*' }), limits);
      });
      return 'created';
    } catch (error) {
      return this.#outcome(key, call, error);
    }
  }

  /** `body` is destroyed when this ends or the signal aborts. */
  async createFrom(key: string, body: Readable, signal: AbortSignal): Promise<Outcome> {
    const { bucket, pieceBytes } = this.#options;
    const pieces = piecesOf(addAbortSignal(signal, body), pieceBytes);
    try {
      const { value: first = Buffer.alloc(0) } = await pieces.next();
      const { value: second } = await pieces.next();
      if (second === undefined) return await this.create(key, first, signal);
      const streamed = { start: [first, second], rest: pieces };
      if (await this.#isSafeInParts(signal)) return await this.#inParts(key, streamed, signal);
      return await this.create(key, await held(streamed, () => tooLarge(bucket.name, key, MAX_HELD_BYTES)), signal);
    } finally {
      await pieces.return(undefined);
    }
  }

  async #outcome(key: string, call: Call, error: unknown): Promise<Outcome> {
    if (isTaken(error)) return 'exists';
    if (!isConflict(error)) throw this.#options.bucket.fail(call, error);
    if (await this.#options.isThere(key)) return 'exists';
    throw conflict(this.#options.bucket.name, key);
  }

  /**
   * Some servers (radosgw 16) honour the condition of a plain creation, and ignore that of an upload in parts. Asked once, of
   * an object of the store's own that may stay.
   */
  async #isSafeInParts(signal: AbortSignal): Promise<boolean> {
    if (this.#honoursInParts === null) {
      const create = () => this.#inParts(PROBE, { start: [Buffer.from('probe')], rest: piecesOfNone() }, signal);
      // Whatever the first one finds, the second one finds the name taken.
      await create();
      this.#honoursInParts = (await create()) === 'exists';
    }
    return this.#honoursInParts;
  }

  async #inParts(key: string, { start, rest }: Streamed, signal: AbortSignal): Promise<Outcome> {
    const { bucket, storageClass } = this.#options;
    const call = { action: { what: `create ${key}`, right: RIGHT }, signal };
    let upload: string | undefined;
    try {
      const { UploadId } = await bucket.call(call, ({ sdk, client, limits }) => {
        const object = { ...bucket.place(key), ...storageClassOf(storageClass) };
        return client.send(new sdk.CreateMultipartUploadCommand({ ...object, ChecksumAlgorithm: 'CRC32C' }), limits);
      });
      upload = UploadId;
      const parts: Part[] = [];
      for (const piece of start)
        parts.push(await this.#part(key, { UploadId, number: parts.length + 1, piece }, signal));
      for await (const piece of rest) {
        parts.push(await this.#part(key, { UploadId, number: parts.length + 1, piece }, signal));
      }
      await bucket.call(call, ({ sdk, client, limits }) => {
        const whole = { ...bucket.place(key), UploadId, MultipartUpload: { Parts: parts } };
        return client.send(new sdk.CompleteMultipartUploadCommand({ ...whole, IfNoneMatch: '*' }), limits);
      });
      return 'created';
    } catch (error) {
      if (upload !== undefined) await this.#abort(key, upload);
      return this.#outcome(key, call, error);
    }
  }

  async #part(
    key: string,
    { UploadId, number, piece }: { UploadId: string | undefined; number: number; piece: Buffer },
    signal: AbortSignal,
  ): Promise<Part> {
    const { bucket } = this.#options;
    const call = { action: { what: `create ${key}`, right: RIGHT }, signal, bodyBytes: piece.length };
    const ChecksumCRC32C = crc32cOf(piece);
    const { ETag } = await bucket.call(call, ({ sdk, client, limits }) => {
      const part = { UploadId, PartNumber: number, Body: piece, ChecksumCRC32C };
      return client.send(new sdk.UploadPartCommand({ ...bucket.place(key), ...part }), limits);
    });
    return { PartNumber: number, ETag, ChecksumCRC32C };
  }

  /** Parts that are left over are paid for: where this fails, a lifecycle rule of the bucket removes them. */
  async #abort(key: string, UploadId: string): Promise<void> {
    const { bucket } = this.#options;
    const action = { what: `abort an upload of ${key}`, right: 's3:AbortMultipartUpload' };
    const abort = bucket.call({ action }, ({ sdk, client, limits }) =>
      client.send(new sdk.AbortMultipartUploadCommand({ ...bucket.place(key), UploadId }), limits),
    );
    await abort.catch(() => {});
  }
}

/** The SDK's type names the classes of the day it was made; the config takes any, and the server judges. */
const storageClassOf = (given: string | undefined) =>
  given === undefined ? {} : { StorageClass: given as StorageClass };

async function held({ start, rest }: Streamed, tooMuch: () => Error): Promise<Buffer> {
  const pieces = [...start];
  let bytes = start.reduce((sum, { length }) => sum + length, 0);
  for await (const piece of rest) {
    bytes += piece.length;
    if (bytes > MAX_HELD_BYTES) throw tooMuch();
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

async function* piecesOfNone(): AsyncGenerator<Buffer> {}

/** As S3 writes it: base64 of four bytes, big-endian. */
function crc32cOf(piece: Uint8Array): string {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32BE(crc32c(piece));
  return bytes.toString('base64');
}
