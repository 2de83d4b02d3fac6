import { Readable } from 'node:stream';
import { abortReason } from '../errors.ts';
import { BucketPaths } from './gcs/bucket.ts';
import { Connection, collect, jsonOf, refusalOf, type Timings } from './gcs/connection.ts';
import { anonymous, type Credentials, googleCredentials } from './gcs/credentials.ts';
import { isNoBucket } from './gcs/errors.ts';
import { mediaOf } from './gcs/media.ts';
import { Uploads } from './gcs/uploads.ts';
import { checkKey, checkPrefix, clip, compareKeys, notFound } from './keys.ts';
import type { ByteRange, ObjectInfo, ObjectStore } from './store.ts';

export interface GcsStoreOptions {
  /** In the config. */
  readonly name: string;
  readonly bucket: string;
  /** Of all object names, without the `/` at its end. */
  readonly prefix?: string;
  /** Default: Google's. One with http, not https, is an emulator: it is shown no credentials. */
  readonly apiEndpoint?: string;
  /** Of new objects; default: the bucket's. */
  readonly storageClass?: string;
  /** Credentials in a file; by default the environment's. */
  readonly keyFile?: string;
  /** For tests. */
  readonly timings?: Partial<Timings>;
  readonly pieceBytes?: number;
  readonly credentials?: Credentials;
}

export const GOOGLE = 'https://storage.googleapis.com';
const TIMINGS: Timings = { stallMs: 20_000, deadlineMs: 30_000 };
/** In one request up to here; it is kept in memory, and sent again as a whole when it fails. */
const PIECE_BYTES = 16 << 20;
const DELETES_AT_ONCE = 16;

/** A bucket of Google Cloud Storage. Nothing is asked of it before the first call. */
export function openGcsStore(options: GcsStoreOptions): ObjectStore {
  return new GcsStore(options);
}

/** Calls to the endpoint that the options name, with the credentials that they name. */
export function connectToGcs(options: GcsStoreOptions): Connection {
  const { name, apiEndpoint: endpoint = GOOGLE, keyFile } = options;
  const timings = { ...TIMINGS, ...options.timings };
  const google = { store: name, endpoint, ...(keyFile !== undefined && { keyFile }), timeoutMs: timings.stallMs };
  const credentials = options.credentials ?? (endpoint.startsWith('http:') ? anonymous : googleCredentials(google));
  return new Connection({ name, endpoint, credentials, timings });
}

class GcsStore implements ObjectStore {
  readonly name: string;
  readonly #connection: Connection;
  readonly #paths: BucketPaths;
  readonly #uploads: Uploads;

  constructor(options: GcsStoreOptions) {
    const { name, bucket, prefix = '', storageClass, pieceBytes = PIECE_BYTES } = options;
    if (prefix !== '') checkKey(prefix);
    this.name = name;
    this.#connection = connectToGcs(options);
    this.#paths = new BucketPaths({ bucket, prefix });
    this.#uploads = new Uploads({ connection: this.#connection, paths: this.#paths, storageClass, pieceBytes });
  }

  /** Google decides which of two creations was first, and answers when the object is durable in its region. */
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
    const isAll = start === 0 && end === Number.MAX_SAFE_INTEGER;
    if (start === end) return this.#nothing(key);
    const action = `read ${key}`;
    const response = await this.#connection.open({
      action,
      method: 'GET',
      path: this.#paths.object(key, 'alt=media'),
      ...(!isAll && { headers: { range: `bytes=${start}-${range.end === undefined ? '' : end - 1}` } }),
    });
    const { statusCode: status = 0 } = response;
    const { stallMs } = this.#connection.timings;
    if (status === 200 || status === 206) return mediaOf(response, { store: this.name, key, stallMs });
    const answer = { status, body: await collect(response) };
    if (status === 416) return Readable.from([]); // begins at the object's end, or beyond
    throw this.#isAbsent(answer) ? notFound(this.name, key) : this.#connection.fail(action, answer);
  }

  async readStart(key: string, maxBytes: number): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for await (const piece of await this.read(key, { start: 0, end: maxBytes })) pieces.push(piece);
    return Buffer.concat(pieces);
  }

  async head(key: string): Promise<ObjectInfo | null> {
    checkKey(key);
    const action = `look for ${key}`;
    const answer = await this.#connection.ask({ action, method: 'GET', path: this.#paths.object(key, 'fields=size') });
    if (answer.status === 200) return { key, size: sizeOf(jsonOf(this.name, action, answer)) };
    if (this.#isAbsent(answer)) return null;
    throw this.#connection.fail(action, answer);
  }

  async *list(prefix: string, from: { after?: string; delimiter?: '/' } = {}): AsyncIterable<ObjectInfo> {
    checkPrefix(prefix);
    const { after, delimiter } = from;
    const query = new URLSearchParams({
      prefix: this.#paths.nameOf(prefix),
      fields: 'nextPageToken,prefixes,items(name,size)',
      ...(delimiter && { delimiter }),
      ...(after !== undefined && after > prefix && { startOffset: this.#paths.nameOf(firstAfter(after, delimiter)) }),
    });
    for (;;) {
      const page = await this.#page(prefix, query);
      for (const object of page.objects) if (after === undefined || compareKeys(object.key, after) > 0) yield object;
      if (page.next === undefined) return;
      query.set('pageToken', page.next);
    }
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

  async #page(prefix: string, query: URLSearchParams): Promise<{ objects: ObjectInfo[]; next?: string }> {
    const action = prefix === '' ? 'list its objects' : `list ${prefix}`;
    const answer = await this.#connection.ask({ action, method: 'GET', path: this.#paths.objects(query.toString()) });
    if (answer.status !== 200) throw this.#connection.fail(action, answer);
    const { items = [], prefixes = [], nextPageToken: next }: ListPage = jsonOf(this.name, action, answer);
    const objects = items.map(({ name, size }) => ({ key: this.#paths.keyOf(name), size: sizeOf({ size }) }));
    for (const name of prefixes) objects.push({ key: this.#paths.keyOf(name), size: 0 });
    // Each of the two comes in order; a page of both goes on where the last one ended.
    if (prefixes.length > 0) objects.sort((a, b) => compareKeys(a.key, b.key));
    return { objects, ...(next !== undefined && { next }) };
  }

  async #remove(key: string): Promise<void> {
    const action = `delete ${key}`;
    const answer = await this.#connection.ask({ action, method: 'DELETE', path: this.#paths.object(key) });
    if (answer.status >= 300 && !this.#isAbsent(answer)) throw this.#connection.fail(action, answer);
  }

  async #nothing(key: string): Promise<Readable> {
    if ((await this.head(key)) === null) throw notFound(this.name, key);
    return Readable.from([]);
  }

  /** A bucket that is not there is no object that is not there, and nor is a page that some proxy answers with. */
  #isAbsent(answer: { status: number; body: Buffer }): boolean {
    const refusal = refusalOf(answer);
    const isGoogles = refusal.reason !== '' || /^(no such object|not found)/i.test(refusal.message);
    return refusal.status === 404 && isGoogles && !isNoBucket(refusal);
  }
}

interface ListPage {
  readonly items?: readonly { readonly name: string; readonly size?: string }[];
  readonly prefixes?: readonly string[];
  readonly nextPageToken?: string;
}

const sizeOf = ({ size }: { readonly size?: unknown }) => Number(size ?? 0);

/** Where a listing begins that shall go on after a name: past all that is folded into it, if it is a folded one. */
function firstAfter(after: string, delimiter: '/' | undefined): string {
  // '0' is what follows '/'.
  return delimiter !== undefined && after.endsWith('/') ? `${after.slice(0, -1)}0` : after;
}
