import { Readable } from 'node:stream';
import { abortReason, isError } from '../errors.ts';
import { type Account, Container, type Timings } from './azure/container.ts';
import { isAbsent, isBeyondEnd, tooSlow } from './azure/errors.ts';
import { Uploads } from './azure/uploads.ts';
import { checkKey, checkPrefix, clip, compareKeys, notFound } from './keys.ts';
import { paced } from './limited.ts';
import type { ByteRange, ObjectInfo, ObjectStore } from './store.ts';

export interface AzureStoreOptions extends Account {
  /** In the config. */
  readonly name: string;
  readonly container: string;
  /** Of all object names, without the `/` at its end. */
  readonly prefix?: string;
  /** Of new objects; default: the account's. */
  readonly accessTier?: string;
  /** For tests. */
  readonly timings?: Partial<Timings>;
  readonly pieceBytes?: number;
}

const TIMINGS: Timings = { stallMs: 20_000, deadlineMs: 30_000 };
const PIECE_BYTES = 16 << 20;
const DELETES_AT_ONCE = 16;

/** A container of Azure Blob Storage. Nothing is loaded or asked of it before the first call. */
export function openAzureStore(options: AzureStoreOptions): ObjectStore {
  return new AzureStore(options);
}

class AzureStore implements ObjectStore {
  readonly name: string;
  readonly #container: Container;
  readonly #uploads: Uploads;

  constructor(options: AzureStoreOptions) {
    const { name, prefix = '', accessTier, pieceBytes = PIECE_BYTES } = options;
    if (prefix !== '') checkKey(prefix);
    this.name = name;
    this.#container = new Container({ ...options, prefix, timings: { ...TIMINGS, ...options.timings } });
    const isThere = async (key: string) => (await this.head(key)) !== null;
    this.#uploads = new Uploads({ container: this.#container, accessTier, pieceBytes, isThere });
  }

  /** Azure decides which of two creations was first, and answers when the object is durable in its region. */
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
    const count = range.end === undefined ? undefined : end - start;
    const action = { what: `read ${key}`, right: 'read' };
    try {
      const { readableStreamBody } = await this.#container.callOn(key, { action }, (blob, abortSignal) =>
        // The signal of a call ends with it: the body is read past that.
        blob.download(start, count, { maxRetryRequests: 0, abortSignal }),
      );
      return paced(readableStreamBody === undefined ? Readable.from([]) : Readable.from(readableStreamBody), {
        stallMs: this.#container.timings.stallMs,
        tooSlow: (waitedMs) => tooSlow(this.name, action, waitedMs),
        failed: (cause) => asError(this.#container.fail({ action }, cause)),
      });
    } catch (error) {
      if (isBeyondEnd(error)) return Readable.from([]);
      throw isAbsent(error) ? notFound(this.name, key) : this.#container.fail({ action }, error);
    }
  }

  async readStart(key: string, maxBytes: number): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for await (const piece of await this.read(key, { start: 0, end: maxBytes })) pieces.push(piece);
    return Buffer.concat(pieces);
  }

  /** Reads a byte: unlike to HEAD, the answer to that tells an absent object from an absent container. */
  async head(key: string): Promise<ObjectInfo | null> {
    checkKey(key);
    const call = { action: { what: `look for ${key}`, right: 'read' } };
    try {
      const { contentRange, readableStreamBody } = await this.#container.callOn(key, call, (blob, abortSignal) =>
        blob.download(0, 1, { maxRetryRequests: 0, abortSignal }),
      );
      readableStreamBody?.resume();
      return { key, size: Number(contentRange?.split('/')[1] ?? 0) };
    } catch (error) {
      if (isBeyondEnd(error)) return { key, size: 0 };
      if (isAbsent(error)) return null;
      throw this.#container.fail(call, error);
    }
  }

  /** Azure knows no name to begin after: what comes before it is listed too, 5,000 a request, and left out here. */
  async *list(prefix: string, from: { after?: string; delimiter?: '/' } = {}): AsyncIterable<ObjectInfo> {
    checkPrefix(prefix);
    let marker: string | undefined;
    do {
      const page = await this.#page(prefix, from.delimiter, marker);
      for (const object of page.objects) {
        if (from.after === undefined || compareKeys(object.key, from.after) > 0) yield object;
      }
      marker = page.next;
    } while (marker !== undefined && marker !== '');
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

  async #page(
    prefix: string,
    delimiter: '/' | undefined,
    continuationToken: string | undefined,
  ): Promise<{ objects: ObjectInfo[]; next: string | undefined }> {
    const container = this.#container;
    const call = { action: { what: `list ${prefix}`, right: 'read' } };
    try {
      return await container.call(call, async (client, abortSignal) => {
        const options = { prefix: container.nameOf(prefix), abortSignal };
        const at = continuationToken === undefined ? {} : { continuationToken };
        const first = delimiter
          ? await client.listBlobsByHierarchy(delimiter, options).byPage(at).next()
          : await client.listBlobsFlat(options).byPage(at).next();
        if (first.done) return { objects: [], next: undefined };
        const { segment, continuationToken: next } = first.value;
        const objects = segment.blobItems.map(({ name, properties }) => ({
          key: container.keyOf(name),
          size: properties.contentLength ?? 0,
        }));
        for (const { name } of foldedIn(segment)) objects.push({ key: container.keyOf(name), size: 0 });
        objects.sort((a, b) => compareKeys(a.key, b.key));
        return { objects, next };
      });
    } catch (error) {
      throw container.fail(call, error);
    }
  }

  async #remove(key: string): Promise<void> {
    const call = { action: { what: `delete ${key}`, right: 'delete' } };
    try {
      await this.#container.callOn(key, call, (blob, abortSignal) => blob.delete({ abortSignal }));
    } catch (error) {
      if (!isAbsent(error)) throw this.#container.fail(call, error);
    }
  }

  async #nothing(key: string): Promise<Readable> {
    if ((await this.head(key)) === null) throw notFound(this.name, key);
    return Readable.from([]);
  }
}

/** Of a listing with a delimiter. */
function foldedIn(segment: { blobItems: unknown; blobPrefixes?: { name: string }[] }): { name: string }[] {
  return segment.blobPrefixes ?? [];
}

const asError = (error: unknown) => (isError(error) ? error : new Error(String(error)));
