import { randomBytes } from 'node:crypto';
import { addAbortSignal, type Readable } from 'node:stream';
import { piecesOf } from '../pieces.ts';
import type { BucketPaths } from './bucket.ts';
import { crc32cOf, RunningCrc32c } from './checksum.ts';
import { type Answer, type Connection, jsonOf, refusalOf } from './connection.ts';
import { damaged, isTaken, unexpected } from './errors.ts';

export interface UploadsOptions {
  readonly connection: Connection;
  readonly paths: BucketPaths;
  readonly storageClass: string | undefined;
  /** What is larger goes in pieces of this size, a multiple of 256 KiB. */
  readonly pieceBytes: number;
}

export type Outcome = 'created' | 'exists';

/** An upload in pieces that Google waits for, up to a week. */
interface Session {
  /** Path and query below the endpoint. */
  readonly path: string;
  readonly size: number;
  readonly crc32c: string;
}

interface Piece {
  readonly path: string;
  readonly piece?: Uint8Array;
  /** Where it begins in the object. */
  readonly at?: number;
  /** Where it is known: the object's size and checksum. */
  readonly total?: number;
  readonly crc32c?: string;
}

const CONTENT_TYPE = 'application/octet-stream';
/** Uploads that broke off and may be tried again. */
const MAX_SESSIONS = 16;

/**
 * Creates objects, each only if its name is free, whose bytes Google compares with a checksum made here before it accepts
 * them.
 */
export class Uploads {
  readonly #options: UploadsOptions;
  readonly #boundary = randomBytes(24).toString('hex');
  /** By key; a next attempt at the same bytes goes on from what has arrived. */
  readonly #sessions = new Map<string, Session>();

  constructor(options: UploadsOptions) {
    this.#options = options;
  }

  async create(key: string, body: Uint8Array, signal: AbortSignal): Promise<Outcome> {
    return body.length <= this.#options.pieceBytes ? this.#atOnce(key, body, signal) : this.#resumed(key, body, signal);
  }

  /** `body` is destroyed when this ends or the signal aborts. */
  async createFrom(key: string, body: Readable, signal: AbortSignal): Promise<Outcome> {
    const pieces = piecesOf(addAbortSignal(signal, body), this.#options.pieceBytes);
    try {
      const { value: first = Buffer.alloc(0) } = await pieces.next();
      const { value: second } = await pieces.next();
      if (second === undefined) return await this.#atOnce(key, first, signal);
      const path = await this.#open(key, {}, signal);
      return path === null ? 'exists' : await this.#streamed(key, { path, first, second, pieces }, signal);
    } finally {
      await pieces.return(undefined);
    }
  }

  /** One request: the object's properties and its bytes. */
  async #atOnce(key: string, body: Uint8Array, signal: AbortSignal): Promise<Outcome> {
    const { connection, paths } = this.#options;
    const crc32c = crc32cOf(body);
    const boundary = this.#boundary;
    const head =
      `--${boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n${this.#metadata({ crc32c })}\r\n` +
      `--${boundary}\r\nContent-Type: ${CONTENT_TYPE}\r\n\r\n`;
    const answer = await connection.ask({
      action: `create ${key}`,
      method: 'POST',
      path: paths.upload(key, 'multipart'),
      headers: { 'content-type': `multipart/related; boundary=${boundary}` },
      body: [Buffer.from(head), body, Buffer.from(`\r\n--${boundary}--\r\n`)],
      signal,
    });
    return this.#outcome(key, crc32c, answer);
  }

  #metadata(given: { crc32c?: string }): string {
    const { storageClass } = this.#options;
    return JSON.stringify({ contentType: CONTENT_TYPE, ...(storageClass && { storageClass }), ...given });
  }

  #outcome(key: string, crc32c: string, answer: Answer): Outcome {
    const { connection } = this.#options;
    if (answer.status !== 200 && answer.status !== 201) {
      if (isTaken(refusalOf(answer))) return 'exists';
      throw connection.fail(`create ${key}`, answer);
    }
    // The sum proves that it was Google who said so, and of these bytes.
    if (jsonOf(connection.name, `create ${key}`, answer).crc32c !== crc32c) throw damaged(connection.name, key);
    return 'created';
  }

  /** In pieces, from where an earlier attempt at the same bytes broke off. */
  async #resumed(key: string, body: Uint8Array, signal: AbortSignal): Promise<Outcome> {
    const crc32c = crc32cOf(body);
    const known = this.#sessions.get(key);
    const isSame = known?.size === body.length && known.crc32c === crc32c;
    const path = isSame ? known.path : await this.#open(key, { crc32c, size: body.length }, signal);
    if (path === null) return 'exists';
    this.#remember(key, { path, size: body.length, crc32c });
    let at = 0;
    const rest = () => ({ path, piece: body.subarray(at, at + this.#options.pieceBytes), at, total: body.length });
    let answer = await this.#put(key, isSame ? { path, total: body.length } : rest(), signal);
    while (answer.status === 308) {
      at = this.#arrived(key, answer, { from: at, to: body.length - 1 });
      answer = await this.#put(key, rest(), signal);
    }
    const mayGoOn = answer.status >= 500 || answer.status === 408 || answer.status === 429;
    if (!mayGoOn) this.#sessions.delete(key);
    return this.#outcome(key, crc32c, answer);
  }

  #remember(key: string, session: Session): void {
    this.#sessions.delete(key);
    this.#sessions.set(key, session);
    const [oldest] = this.#sessions.keys();
    if (this.#sessions.size > MAX_SESSIONS && oldest !== undefined) this.#sessions.delete(oldest);
  }

  /** In pieces that come one by one: only the last request can say how many they were, and their checksum. */
  async #streamed(
    key: string,
    from: { path: string; first: Buffer; second: Buffer; pieces: AsyncIterator<Buffer> },
    signal: AbortSignal,
  ): Promise<Outcome> {
    const { path, pieces } = from;
    const sum = new RunningCrc32c();
    let at = 0;
    let piece = from.first;
    let next: Buffer | undefined = from.second;
    for (;;) {
      sum.add(piece);
      const end = at + piece.length;
      const last = next === undefined ? { total: end, crc32c: sum.encoded } : {};
      while (at < end) {
        const rest = piece.subarray(piece.length - (end - at));
        const answer = await this.#put(key, { path, piece: rest, at, ...last }, signal);
        if (answer.status !== 308) return this.#outcome(key, sum.encoded, answer);
        at = this.#arrived(key, answer, { from: at, to: end });
      }
      if (next === undefined)
        throw unexpected(this.#options.connection.name, `create ${key}`, 'the upload did not end');
      piece = next;
      next = (await pieces.next()).value;
    }
  }

  /** Begins an upload in pieces; null where the name is taken. */
  async #open(
    key: string,
    { crc32c, size }: { crc32c?: string; size?: number },
    signal: AbortSignal,
  ): Promise<string | null> {
    const { connection, paths } = this.#options;
    const answer = await connection.ask({
      action: `create ${key}`,
      method: 'POST',
      path: paths.upload(key, 'resumable'),
      headers: {
        'content-type': 'application/json; charset=UTF-8',
        'x-upload-content-type': CONTENT_TYPE,
        ...(size !== undefined && { 'x-upload-content-length': String(size) }),
      },
      body: [Buffer.from(this.#metadata(crc32c === undefined ? {} : { crc32c }))],
      signal,
    });
    const { location } = answer.headers;
    if (answer.status !== 200 || location === undefined) {
      if (isTaken(refusalOf(answer))) return null;
      throw connection.fail(`create ${key}`, answer);
    }
    // Only its path: requests with credentials go to the endpoint of the config, wherever it says it is.
    const { pathname, search } = new URL(location, 'http://endpoint');
    return pathname + search;
  }

  /** Sends a piece, or without one asks what has arrived. */
  #put(key: string, { path, piece, at = 0, total, crc32c }: Piece, signal: AbortSignal): Promise<Answer> {
    const range = piece === undefined ? '*' : `${at}-${at + piece.length - 1}`;
    return this.#options.connection.ask({
      action: `create ${key}`,
      method: 'PUT',
      path,
      headers: {
        'content-range': `bytes ${range}/${total ?? '*'}`,
        ...(crc32c !== undefined && { 'x-goog-hash': `crc32c=${crc32c}` }),
      },
      body: piece === undefined ? [] : [piece],
      signal,
    });
  }

  /** Up to where bytes have arrived, of what was sent. */
  #arrived(key: string, { headers }: Answer, { from, to }: { from: number; to: number }): number {
    const last = /^bytes=0-(\d+)$/.exec(headers.range ?? '')?.[1];
    const arrived = last === undefined ? 0 : Number(last) + 1;
    if (arrived >= from && arrived <= to) return arrived;
    throw unexpected(this.#options.connection.name, `create ${key}`, `${arrived} bytes are said to have arrived`);
  }
}
