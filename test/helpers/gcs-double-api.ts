import { randomBytes } from 'node:crypto';
import type { Operation } from './gcs-double-faults.ts';
import { type Bucket, crc32cOf, type StoredObject } from './gcs-double-objects.ts';

export interface Call {
  readonly method: string;
  readonly url: URL;
  readonly header: (name: string) => string | undefined;
  readonly body: Buffer;
}

export interface Answer {
  readonly status: number;
  readonly headers?: Record<string, string>;
  readonly body?: Buffer | string;
}

/** What is asked, found out before the body has come. */
export interface Target {
  readonly operation: Operation;
  readonly bucket: string;
  readonly name: string;
}

const ACCOUNT = 'shipmate@acme.iam.gserviceaccount.com';
const PIECE_UNIT = 256 * 1024;
const MAX_PAGE = 1_000;

/** A failure as the JSON API tells it. */
class Refusal extends Error {
  readonly status: number;
  readonly reason: string;
  constructor(status: number, reason: string, message: string) {
    super(message);
    this.status = status;
    this.reason = reason;
  }
}

export function refusalBody(status: number, reason: string, message: string): string {
  const errors = [{ message, domain: 'global', reason }];
  return JSON.stringify({ error: { code: status, message, errors } });
}

interface Metadata {
  readonly name?: string;
  readonly contentType?: string;
  readonly storageClass?: string;
  readonly crc32c?: string;
  readonly md5Hash?: string;
}

interface Session {
  readonly bucket: string;
  readonly metadata: Metadata;
  readonly query: URLSearchParams;
  received: Buffer;
  finished: StoredObject | null;
}

const text = (url: URL, name: string) => url.searchParams.get(name);

/** Throws for what is no call of the JSON API. */
export function targetOf(method: string, url: URL): Target | null {
  const [, upload, bucket = '', rest] =
    /^\/(?:(upload|download)\/)?storage\/v1\/b(?:\/([^/]+))?(?:\/(.+))?$/.exec(url.pathname) ?? [];
  if (upload === undefined && rest === undefined && !url.pathname.startsWith('/storage/v1/b')) return null;
  const object = /^o\/(.+)$/.exec(rest ?? '')?.[1];
  const name = object === undefined ? (text(url, 'name') ?? '') : decodeURIComponent(object);
  const target = (operation: Operation): Target => ({ operation, bucket: decodeURIComponent(bucket), name });
  if (upload === 'upload') {
    if (text(url, 'upload_id') !== null) return target(method === 'DELETE' ? 'cancel' : 'piece');
    return target(text(url, 'uploadType') === 'resumable' ? 'session' : 'upload');
  }
  if (object !== undefined) {
    if (method === 'DELETE') return target('delete');
    return target(text(url, 'alt') === 'media' || upload === 'download' ? 'read' : 'head');
  }
  if (rest === 'o') return target('list');
  return rest === undefined ? target('bucket') : null;
}

export interface ApiOptions {
  readonly buckets: ReadonlyMap<string, Bucket>;
  readonly pageSize: number | undefined;
  /** What the buckets are set to, for those who may see it: nobody, unless it is given. */
  readonly settings: object | undefined;
  /** Whether a caller who may not overwrite hears of that (403) before the precondition is looked at (412). */
  readonly rightsBeforePreconditions: boolean;
}

/** The calls of the JSON API that a store of objects makes, on buckets that were made before. */
export class Api {
  readonly #options: ApiOptions;
  readonly #sessions = new Map<string, Session>();
  /** What the caller may not do now. */
  denied: ReadonlySet<string> = new Set();

  constructor(options: ApiOptions) {
    this.#options = options;
  }

  async carryOut(target: Target, call: Call): Promise<Answer> {
    try {
      return await this.#carryOut(target, call);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      // Of what was asked for as a download, the error comes as plain text.
      if (target.operation === 'read') return { status: error.status, body: error.message };
      return json(error.status, refusalBody(error.status, error.reason, error.message));
    }
  }

  #carryOut({ operation, bucket: bucketName, name }: Target, call: Call): Promise<Answer> | Answer {
    const bucket = this.#options.buckets.get(bucketName);
    if (!bucket) throw new Refusal(404, 'notFound', 'The specified bucket does not exist.');
    const { url } = call;
    switch (operation) {
      case 'upload':
        this.#demand('storage.objects.create');
        return this.#upload(bucketName, call);
      case 'session':
        this.#demand('storage.objects.create');
        return this.#openSession(bucketName, call);
      case 'piece':
      case 'query':
        return this.#piece(call);
      case 'cancel':
        return { status: this.#sessions.delete(text(url, 'upload_id') ?? '') ? 499 : 404 };
      case 'read':
        return this.#read(this.#find(bucketName, bucket, name, url), call);
      case 'head':
        return this.#resource(bucketName, this.#find(bucketName, bucket, name, url), url);
      case 'list':
        this.#demand('storage.objects.list', 'bucket');
        return this.#list(bucketName, bucket, url);
      case 'delete':
        this.#demand('storage.objects.delete');
        demandGeneration(url.searchParams, bucket.get(name));
        if (!bucket.delete(name)) throw noSuchObject(bucketName, name);
        return { status: 204 };
      default:
        if (!this.#options.settings) throw forbidden('storage.buckets.get', 'bucket');
        return json(200, JSON.stringify({ kind: 'storage#bucket', name: bucketName, ...this.#options.settings }));
    }
  }

  #demand(permission: string, on = 'object'): void {
    if (this.denied.has(permission)) throw forbidden(permission, on);
  }

  #find(bucketName: string, bucket: Bucket, name: string, url: URL): StoredObject {
    this.#demand('storage.objects.get');
    const found = bucket.get(name);
    if (!found) {
      this.#demand('storage.objects.list', 'bucket'); // who may not list is not told what is not there
      throw noSuchObject(bucketName, name);
    }
    demandGeneration(url.searchParams, found);
    return found;
  }

  async #upload(bucketName: string, call: Call): Promise<Answer> {
    const { metadata, media } =
      text(call.url, 'uploadType') === 'multipart'
        ? splitMultipart(call)
        : { metadata: { contentType: call.header('content-type') ?? '' }, media: call.body };
    const object = await this.#create(bucketName, { metadata, media, call, query: call.url.searchParams });
    return this.#resource(bucketName, object, call.url);
  }

  #openSession(bucketName: string, call: Call): Answer {
    const metadata = call.body.length > 0 ? metadataIn(call.body) : {};
    const query = call.url.searchParams;
    const name = query.get('name') ?? metadata.name ?? '';
    this.#demandFree(query, this.#options.buckets.get(bucketName)!.get(name));
    const id = randomBytes(24).toString('base64url');
    this.#sessions.set(id, { bucket: bucketName, metadata, query, received: Buffer.alloc(0), finished: null });
    const location = new URL(`http://${call.header('host')}${call.url.pathname}`);
    for (const [key, value] of query) location.searchParams.set(key, value);
    location.searchParams.set('upload_id', id);
    return { status: 200, headers: { location: location.href, 'x-guploader-uploadid': id } };
  }

  /** Keeps the whole units of a piece that broke off, as Google's servers do. */
  keepPartOf(call: Call): void {
    const session = this.#sessions.get(text(call.url, 'upload_id') ?? '');
    const [, start] = /^bytes (\d+)-/.exec(call.header('content-range') ?? '') ?? [];
    if (!session || Number(start ?? 0) !== session.received.length) return;
    const whole = Math.floor(call.body.length / PIECE_UNIT) * PIECE_UNIT;
    session.received = Buffer.concat([session.received, call.body.subarray(0, whole)]);
  }

  async #piece(call: Call): Promise<Answer> {
    const id = text(call.url, 'upload_id') ?? '';
    const session = this.#sessions.get(id);
    if (!session) throw new Refusal(404, 'notFound', 'No such upload session.');
    if (session.finished) return this.#resource(session.bucket, session.finished, call.url);
    const range = /^bytes (?:\*|(\d+)-(\d+|\*))\/(\d+|\*)$/.exec(call.header('content-range') ?? 'bytes */*');
    if (!range) throw new Refusal(400, 'badRequest', 'Failed to parse Content-Range header.');
    const [, first, end, given] = range;
    // An open end: all that is left comes with this request.
    const last = end === '*' ? Number(first) + call.body.length - 1 : Number(end);
    const total = end === '*' && given === '*' ? String(last + 1) : given!;
    if (first !== undefined) this.#take(session, call, { first: Number(first), last, total });
    const isWhole = total !== '*' && session.received.length === Number(total);
    if (!isWhole) {
      const { length } = session.received;
      return { status: 308, headers: length > 0 ? { range: `bytes=0-${length - 1}` } : {} };
    }
    const { bucket, metadata, query, received: media } = session;
    try {
      session.finished = await this.#create(bucket, { metadata, media, call, query });
    } catch (error) {
      this.#sessions.delete(id);
      throw error;
    }
    session.received = Buffer.alloc(0);
    return this.#resource(bucket, session.finished, call.url);
  }

  #take(
    session: Session,
    { body }: Call,
    { first, last, total }: { first: number; last: number; total: string },
  ): void {
    const { length } = session.received;
    if (first > length) throw new Refusal(400, 'badRequest', `The upload offset is ${first}, which exceeds ${length}.`);
    if (body.length !== last + 1 - first) throw new Refusal(400, 'badRequest', 'Content-Range does not fit the body.');
    const isLast = total !== '*' && last + 1 === Number(total);
    if (!isLast && body.length % PIECE_UNIT !== 0) {
      throw new Refusal(400, 'badRequest', 'All but the last piece must be a multiple of 262144 bytes.');
    }
    session.received = Buffer.concat([session.received, body.subarray(length - first)]);
  }

  #create(
    bucketName: string,
    { metadata, media, call, query }: { metadata: Metadata; media: Buffer; call: Call; query: URLSearchParams },
  ): Promise<StoredObject> {
    const bucket = this.#options.buckets.get(bucketName)!;
    const name = query.get('name') ?? metadata.name;
    if (!name) throw new Refusal(400, 'required', 'Required parameter: name');
    demandSums(media, metadata, call.header('x-goog-hash') ?? '');
    this.#demandFree(query, bucket.get(name));
    return bucket.put(name, media, metadata);
  }

  #demandFree(query: URLSearchParams, found: StoredObject | undefined): void {
    if (found && this.#options.rightsBeforePreconditions) this.#demand('storage.objects.delete');
    demandGeneration(query, found);
    if (found) this.#demand('storage.objects.delete');
  }

  async #read(object: StoredObject, { header }: Call): Promise<Answer> {
    const whole = await object.bytes();
    const headers = {
      'content-type': object.contentType,
      'x-goog-hash': `crc32c=${object.crc32c}`,
      'x-goog-generation': String(object.generation),
      'x-goog-stored-content-length': String(object.size),
    };
    const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(header('range') ?? '') ?? [];
    if (first === undefined) return { status: 200, headers, body: whole };
    if (Number(first) >= object.size)
      throw new Refusal(416, 'requestedRangeNotSatisfiable', 'Request range not satisfiable');
    const end = last ? Math.min(Number(last) + 1, object.size) : object.size;
    const body = whole.subarray(Number(first), end);
    return { status: 206, headers: { ...headers, 'content-range': `bytes ${first}-${end - 1}/${object.size}` }, body };
  }

  async #list(bucketName: string, bucket: Bucket, url: URL): Promise<Answer> {
    const asked = Number(text(url, 'maxResults') ?? MAX_PAGE);
    const { items, prefixes, nextPageToken } = bucket.list({
      prefix: text(url, 'prefix') ?? '',
      delimiter: text(url, 'delimiter'),
      startOffset: text(url, 'startOffset'),
      pageToken: text(url, 'pageToken'),
      maxResults: Math.min(asked, this.#options.pageSize ?? MAX_PAGE, MAX_PAGE),
    });
    const fields = /items(?:\(([^)]*)\)|\/(\w+))/.exec(text(url, 'fields') ?? '');
    const wanted = fields ? (fields[1] ?? fields[2] ?? '') : null;
    const body = {
      kind: 'storage#objects',
      ...(nextPageToken !== undefined && { nextPageToken }),
      ...(prefixes.length > 0 && { prefixes }),
      ...(items.length > 0 && {
        items: await Promise.all(items.map((item) => resourceOf(bucketName, item, wanted))),
      }),
    };
    return json(200, JSON.stringify(body));
  }

  async #resource(bucketName: string, object: StoredObject, url: URL): Promise<Answer> {
    return json(200, JSON.stringify(await resourceOf(bucketName, object, text(url, 'fields'))));
  }
}

/** All of it, or the `fields` asked for: names with commas between them. */
async function resourceOf(bucket: string, object: StoredObject, fields: string | null): Promise<object> {
  const wanted = fields?.split(',') ?? null;
  const { name, generation, contentType, storageClass, created, size, crc32c } = object;
  const resource = {
    kind: 'storage#object',
    id: `${bucket}/${name}/${generation}`,
    name,
    bucket,
    generation: String(generation),
    metageneration: '1',
    contentType,
    storageClass,
    size: String(size),
    crc32c,
    timeCreated: created,
    updated: created,
    ...((wanted === null || wanted.includes('md5Hash')) && { md5Hash: await object.md5() }),
  };
  return wanted === null
    ? resource
    : Object.fromEntries(Object.entries(resource).filter(([key]) => wanted.includes(key)));
}

/** The JSON part and the media of a multipart/related body. */
function splitMultipart({ header, body }: Call): { metadata: Metadata; media: Buffer } {
  const [, quoted, plain] = /boundary=(?:"([^"]+)"|([^;\s]+))/.exec(header('content-type') ?? '') ?? [];
  const boundary = Buffer.from(`--${quoted ?? plain}`);
  const jsonStart = body.indexOf('\r\n\r\n', body.indexOf(boundary)) + 4;
  const jsonEnd = body.indexOf(Buffer.concat([Buffer.from('\r\n'), boundary]), jsonStart);
  const mediaStart = body.indexOf('\r\n\r\n', jsonEnd + 2 + boundary.length) + 4;
  const mediaEnd = body.lastIndexOf(Buffer.concat([Buffer.from('\r\n'), boundary, Buffer.from('--')]));
  if (Math.min(jsonStart - 4, jsonEnd, mediaStart - 4, mediaEnd) < 0 || mediaEnd < mediaStart) {
    throw new Refusal(400, 'badContent', 'Malformed multipart body.');
  }
  // Copied: the media alone is kept.
  return {
    metadata: metadataIn(body.subarray(jsonStart, jsonEnd)),
    media: Buffer.from(body.subarray(mediaStart, mediaEnd)),
  };
}

function metadataIn(body: Buffer): Metadata {
  try {
    return JSON.parse(body.toString());
  } catch {
    throw new Refusal(400, 'parseError', 'Parse Error');
  }
}

/** Refuses bytes that are not those the caller had. */
function demandSums(media: Buffer, { crc32c: inMetadata }: Metadata, googHash: string): void {
  const given = inMetadata ?? /crc32c=([^,\s]+)/.exec(googHash)?.[1];
  const found = crc32cOf(media);
  if (given === undefined || given === found) return;
  throw new Refusal(400, 'invalid', `Provided CRC32C "${given}" doesn't match calculated CRC32C "${found}".`);
}

/** `ifGenerationMatch`, 0 for an object that is not there. */
function demandGeneration(query: URLSearchParams, found: StoredObject | undefined): void {
  const wanted = query.get('ifGenerationMatch');
  if (wanted === null || Number(wanted) === (found?.generation ?? 0)) return;
  const message = 'At least one of the pre-conditions you specified did not hold.';
  throw new Refusal(412, 'conditionNotMet', message);
}

const noSuchObject = (bucket: string, name: string) =>
  new Refusal(404, 'notFound', `No such object: ${bucket}/${name}`);

const forbidden = (permission: string, on: string) =>
  new Refusal(
    403,
    'forbidden',
    `${ACCOUNT} does not have ${permission} access to the Google Cloud Storage ${on}. Permission '${permission}' denied on resource (or it may not exist).`,
  );

const json = (status: number, body: string): Answer => ({
  status,
  headers: { 'content-type': 'application/json; charset=UTF-8' },
  body,
});
