import { once } from 'node:events';
import { Agent as HttpAgent, type IncomingHttpHeaders, type IncomingMessage, request as requestHttp } from 'node:http';
import { Agent as HttpsAgent, request as requestHttps } from 'node:https';
import { abortReason, ShipmateError } from '../../errors.ts';
import type { Credentials } from './credentials.ts';
import { type Refusal, refused, tooSlow, unexpected, unreachable } from './errors.ts';

export interface Timings {
  /** A connection on which nothing moves for so long is given up. */
  readonly stallMs: number;
  /** A call that takes longer is given up, but for `SLOWEST_BYTES_PER_MS`. */
  readonly deadlineMs: number;
}

/** The slowest link that large bodies get through: 64 KiB/s each. */
const SLOWEST_BYTES_PER_MS = 64;
/** As many as a reader asks for at once. */
const MAX_SOCKETS = 256;
const MAX_IDLE_SOCKETS = 16;
/** Shorter than the endpoint waits, so that a connection is not closed from there just when it is used again. */
const IDLE_MS = 55_000;

export interface ConnectionOptions {
  /** The store's, for messages. */
  readonly name: string;
  /** `https://storage.googleapis.com`, or an emulator's. */
  readonly endpoint: string;
  readonly credentials: Credentials;
  readonly timings: Timings;
}

export interface Call {
  /** For messages: `create orders/stream.json`. */
  readonly action: string;
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  /** Below the endpoint, with its query. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: readonly Uint8Array[];
  readonly signal?: AbortSignal | undefined;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/**
 * Calls to one endpoint over connections that are kept. Each call is made once, within its deadline and its signal, and
 * fails with a ShipmateError, or the signal's reason.
 */
export class Connection {
  readonly name: string;
  readonly timings: Timings;
  readonly #base: URL;
  readonly #agent: HttpAgent;
  readonly #credentials: Credentials;

  constructor({ name, endpoint, credentials, timings }: ConnectionOptions) {
    this.name = name;
    this.timings = timings;
    this.#base = new URL(endpoint);
    this.#credentials = credentials;
    const options = {
      keepAlive: true,
      maxSockets: MAX_SOCKETS,
      maxFreeSockets: MAX_IDLE_SOCKETS,
      timeout: IDLE_MS,
      scheduling: 'lifo' as const,
    };
    this.#agent = this.#base.protocol === 'http:' ? new HttpAgent(options) : new HttpsAgent(options);
  }

  /** The whole answer, whatever its status. */
  async ask(call: Call): Promise<Answer> {
    return this.#limited(call, async (limit) => {
      const response = await this.#send(call, limit);
      const body = await collect(response);
      return { status: response.statusCode ?? 0, headers: response.headers, body };
    });
  }

  /** The answer with its body still to come: at the reader's pace, and past the deadline. */
  async open(call: Call): Promise<IncomingMessage> {
    return this.#limited(call, (limit) => this.#send(call, limit));
  }

  /** What an answer says that is not what was hoped for. */
  fail(action: string, answer: Pick<Answer, 'status' | 'body'>): ShipmateError {
    return refused(this.name, action, refusalOf(answer));
  }

  async #limited<T>(call: Call, work: (limit: AbortSignal) => Promise<T>): Promise<T> {
    const { action, signal, body = [] } = call;
    if (signal?.aborted) throw abortReason(signal);
    const ended = new AbortController();
    const deadlineMs = this.timings.deadlineMs + bytesIn(body) / SLOWEST_BYTES_PER_MS;
    const leave = () => ended.abort(signal && abortReason(signal));
    const timer = setTimeout(() => {
      ended.abort(tooSlow(this.name, action, `not done within ${Math.round(deadlineMs / 1_000)} s`));
    }, deadlineMs);
    signal?.addEventListener('abort', leave, { once: true });
    try {
      return await work(ended.signal);
    } catch (error) {
      const reason = ended.signal.aborted ? abortReason(ended.signal) : error;
      if (reason instanceof ShipmateError) throw reason;
      throw signal?.aborted ? reason : unreachable(this.name, action, error);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', leave);
    }
  }

  async #send(call: Call, limit: AbortSignal): Promise<IncomingMessage> {
    const { action, method, path, body = [] } = call;
    const authorization = await orAborted(this.#credentials.headers(), limit);
    const make = this.#base.protocol === 'http:' ? requestHttp : requestHttps;
    const request = make(this.#base, {
      method,
      path: this.#base.pathname.replace(/\/$/, '') + path,
      agent: this.#agent,
      signal: limit,
      timeout: this.timings.stallMs,
      headers: {
        ...call.headers,
        ...authorization,
        'user-agent': 'shipmate',
        ...(method !== 'GET' && { 'content-length': String(bytesIn(body)) }),
      },
    });
    request.on('timeout', () => {
      this.#dropIdle();
      request.destroy(tooSlow(this.name, action, `no byte moved for ${this.timings.stallMs / 1_000} s`));
    });
    request.on('error', () => {}); // one may come after the answer, which tells more
    for (const piece of body) request.write(piece);
    request.end();
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    if (response.statusCode === 401) this.#credentials.forget();
    return response;
  }

  /** The connections that wait beside one that is dead are most likely dead as well. */
  #dropIdle(): void {
    for (const socket of Object.values(this.#agent.freeSockets).flat()) socket?.destroy();
  }
}

function bytesIn(pieces: readonly Uint8Array[]): number {
  let bytes = 0;
  for (const { length } of pieces) bytes += length;
  return bytes;
}

export async function collect(response: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of response) pieces.push(piece);
  return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
}

/** The promise's outcome, or the signal's reason when that comes first. */
async function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: left, reject } = Promise.withResolvers<never>();
  const leave = () => reject(abortReason(signal));
  signal.addEventListener('abort', leave, { once: true });
  try {
    return await Promise.race([promise, left]);
  } finally {
    signal.removeEventListener('abort', leave);
  }
}

/** Google's errors are JSON, but for downloads, whose are plain text. */
export function refusalOf({ status, body }: Pick<Answer, 'status' | 'body'>): Refusal {
  const text = body.toString('utf8', 0, 65_536);
  const { message = text, errors } = errorIn(text);
  return { status, reason: errors?.[0]?.reason ?? '', message: oneLine(message) };
}

/** The JSON of an answer that is as hoped for; what an intermediary answers instead is a failure. */
export function jsonOf(store: string, action: string, { body }: Pick<Answer, 'body'>): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(body.toString());
    if (typeof value === 'object' && value !== null) return { ...value };
  } catch {
    // told below
  }
  throw unexpected(store, action, 'what answers there is not Google Cloud Storage');
}

interface JsonError {
  readonly message?: string;
  readonly errors?: readonly { readonly reason?: string }[];
}

function errorIn(text: string): JsonError {
  try {
    return JSON.parse(text).error ?? {};
  } catch {
    return {};
  }
}

/** An intermediary's page of HTML is cut short. */
const oneLine = (text: string) => text.replace(/\s+/g, ' ').trim().slice(0, 300);
