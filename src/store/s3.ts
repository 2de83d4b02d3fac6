import { Readable } from 'node:stream';
import { abortReason, codeOf, isError } from '../errors.ts';
import { checkKey, checkPrefix, clip, compareKeys, notFound, RESERVED } from './keys.ts';
import { paced } from './limited.ts';
import { Bucket, type Credentials, type Timings } from './s3/bucket.ts';
import { endless, isAbsent, isBeyondEnd, tooSlow } from './s3/errors.ts';
import { Uploads } from './s3/uploads.ts';
import type { ByteRange, ObjectInfo, ObjectStore } from './store.ts';

export interface S3StoreOptions {
  /** In the config. */
  readonly name: string;
  readonly bucket: string;
  /** Of all object names, without the `/` at its end. */
  readonly prefix?: string;
  /** Default: the environment's. */
  readonly region?: string;
  /** Default: AWS's for the region. */
  readonly endpoint?: string;
  /** The bucket's name in the path instead of the host's name. */
  readonly forcePathStyle?: boolean;
  /** Of new objects; default: the bucket's. */
  readonly storageClass?: string;
  /** For tests; default: what the SDK finds in the environment. */
  readonly credentials?: Credentials;
  readonly timings?: Partial<Timings>;
  readonly pieceBytes?: number;
}

const TIMINGS: Timings = { stallMs: 20_000, deadlineMs: 30_000 };
const PIECE_BYTES = 16 << 20;
const DELETES_AT_ONCE = 16;
/** Sorts after all that a folded name stands for. */
const LAST = '\u{10ffff}';

/** A bucket of S3, or of a server that speaks its protocol. Nothing is loaded or asked of it before the first call. */
export function openS3Store(options: S3StoreOptions): ObjectStore {
  return new S3Store(options);
}

class S3Store implements ObjectStore {
  readonly name: string;
  readonly #bucket: Bucket;
  readonly #uploads: Uploads;

  constructor(options: S3StoreOptions) {
    const { name, bucket, prefix = '', region, endpoint, forcePathStyle = false, storageClass, credentials } = options;
    if (prefix !== '') checkKey(prefix);
    this.name = name;
    const timings = { ...TIMINGS, ...options.timings };
    this.#bucket = new Bucket({ name, bucket, prefix, region, endpoint, forcePathStyle, credentials, timings });
    const isThere = async (key: string) => (await this.head(key)) !== null;
    const pieceBytes = options.pieceBytes ?? PIECE_BYTES;
    this.#uploads = new Uploads({ bucket: this.#bucket, storageClass, pieceBytes, isThere });
  }

  /** The server decides which of two creations was first, and answers when the object is durable. */
  async create(key: string, body: Uint8Array | (() => Readable), signal: AbortSignal): Promise<'created' | 'exists'> {
    checkKey(key);
    if (signal.aborted) throw abortReason(signal);
    try {
      if (typeof body !== 'function') return await this.#uploads.create(key, body, signal);
      return await this.#uploads.createFrom(key, body(), signal);
    } catch (error) {
      throw signal.aborted ? abortReason(signal) : error;
    }
  }

  async read(key: string, range: ByteRange = { start: 0 }): Promise<Readable> {
    checkKey(key);
    const { start, end } = clip(range, Number.MAX_SAFE_INTEGER);
    if (start === end) return this.#nothing(key);
    const isAll = start === 0 && range.end === undefined;
    const body = await this.#get(key, isAll ? null : `bytes=${start}-${range.end === undefined ? '' : end - 1}`);
    if (body === null) return Readable.from([]);
    // A reader may take its time; that of the other side is measured.
    if ('socket' in body.stream) Object(body.stream.socket).setTimeout?.(0);
    const action = { what: `read ${key}`, right: 's3:GetObject' };
    return paced(body.stream, {
      stallMs: this.#bucket.timings.stallMs,
      tooSlow: (waitedMs) => tooSlow(this.name, action, waitedMs),
      failed: (cause) => asError(this.#bucket.fail({ action }, cause)),
    });
  }

  async readStart(key: string, maxBytes: number): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for await (const piece of await this.read(key, { start: 0, end: maxBytes })) pieces.push(piece);
    return Buffer.concat(pieces);
  }

  /** Reads a byte: unlike to HEAD, the answer to that tells an absent object from an absent bucket. */
  async head(key: string): Promise<ObjectInfo | null> {
    checkKey(key);
    try {
      const found = await this.#get(key, 'bytes=0-0');
      found?.stream.resume();
      return { key, size: found?.size ?? 0 };
    } catch (error) {
      if (isNotFound(error)) return null;
      throw error;
    }
  }

  async *list(prefix: string, from: { after?: string; delimiter?: '/' } = {}): AsyncIterable<ObjectInfo> {
    checkPrefix(prefix);
    const { after, delimiter } = from;
    const isFolded = delimiter !== undefined && after?.endsWith('/');
    const start = after === undefined || after <= prefix ? undefined : after + (isFolded ? LAST : '');
    let token: string | undefined;
    do {
      const page = await this.#page(prefix, { delimiter, start, token });
      for (const object of page.objects) {
        const isOwn = object.key.startsWith(RESERVED);
        if (!isOwn && (after === undefined || compareKeys(object.key, after) > 0)) yield object;
      }
      token = page.next;
    } while (token !== undefined);
  }

  /** A right that `run` does without. */
  async delete(keys: readonly string[]): Promise<void> {
    for (const key of keys) checkKey(key);
    for (let at = 0; at < keys.length; at += DELETES_AT_ONCE) {
      await Promise.all(keys.slice(at, at + DELETES_AT_ONCE).map((key) => this.#remove(key)));
    }
  }

  /** As much as is paid for. */
  async capacity(): Promise<null> {
    return null;
  }

  /** Null where the range begins at the object's end. */
  async #get(key: string, range: string | null): Promise<{ stream: Readable; size: number } | null> {
    const call = { action: { what: `read ${key}`, right: 's3:GetObject and s3:ListBucket' } };
    try {
      const { Body, ContentRange, ContentLength } = await this.#bucket.call(call, ({ sdk, client, limits }) => {
        const object = { ...this.#bucket.place(key), ...(range !== null && { Range: range }) };
        return client.send(new sdk.GetObjectCommand(object), limits);
      });
      const size = Number(ContentRange?.split('/')[1] ?? ContentLength ?? 0);
      return { stream: isStream(Body) ? Body : Readable.from([]), size };
    } catch (error) {
      if (isBeyondEnd(error)) return null;
      throw isAbsent(error) ? notFound(this.name, key) : this.#bucket.fail(call, error);
    }
  }

  async #page(
    prefix: string,
    { delimiter, start, token }: Record<'delimiter' | 'start' | 'token', string | undefined>,
  ): Promise<{ objects: ObjectInfo[]; next: string | undefined }> {
    const bucket = this.#bucket;
    const call = { action: { what: `list ${prefix}`, right: 's3:ListBucket' } };
    try {
      const page = await bucket.call(call, ({ sdk, client, limits }) => {
        const { Bucket } = bucket.place(prefix);
        const query = {
          Bucket,
          Prefix: bucket.nameOf(prefix),
          ...(delimiter !== undefined && { Delimiter: delimiter }),
          ...(start !== undefined && { StartAfter: bucket.nameOf(start) }),
          ...(token !== undefined && { ContinuationToken: token }),
        };
        return client.send(new sdk.ListObjectsV2Command(query), limits);
      });
      const objects = (page.Contents ?? []).map(({ Key = '', Size = 0 }) => ({ key: bucket.keyOf(Key), size: Size }));
      for (const { Prefix = '' } of page.CommonPrefixes ?? []) objects.push({ key: bucket.keyOf(Prefix), size: 0 });
      // Each of the two comes in order; a page of both goes on where the last one ended.
      objects.sort((a, b) => compareKeys(a.key, b.key));
      if (page.IsTruncated && page.NextContinuationToken === undefined) throw endless(this.name, call.action);
      return { objects, next: page.IsTruncated ? page.NextContinuationToken : undefined };
    } catch (error) {
      throw bucket.fail(call, error);
    }
  }

  async #remove(key: string): Promise<void> {
    const call = { action: { what: `delete ${key}`, right: 's3:DeleteObject' } };
    try {
      await this.#bucket.call(call, ({ sdk, client, limits }) =>
        client.send(new sdk.DeleteObjectCommand(this.#bucket.place(key)), limits),
      );
    } catch (error) {
      if (!isAbsent(error)) throw this.#bucket.fail(call, error);
    }
  }

  async #nothing(key: string): Promise<Readable> {
    if ((await this.head(key)) === null) throw notFound(this.name, key);
    return Readable.from([]);
  }
}

/** Not `instanceof`: a stream may be another realm's. */
const isStream = (body: unknown): body is Readable =>
  typeof body === 'object' && body !== null && 'pipe' in body && 'destroy' in body;
const isNotFound = (error: unknown) => codeOf(error) === 'NOT_FOUND';
const asError = (error: unknown) => (isError(error) ? error : new Error(String(error)));
