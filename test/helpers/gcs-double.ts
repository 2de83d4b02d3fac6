import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { type Answer, Api, type Call, refusalBody, type Target, targetOf } from './gcs-double-api.ts';
import { Counters, Faults, type GcsCounters, type GcsFault, type GcsFaultPlan } from './gcs-double-faults.ts';
import { Bucket } from './gcs-double-objects.ts';

export interface GcsDoubleOptions {
  /** Default: any free one. */
  readonly port?: number;
  /** Default: one, named `archive`. */
  readonly buckets?: readonly string[];
  /** Passes before every answer, half of it before the request is carried out: a round trip. */
  readonly latencyMs?: number;
  /** Keeps objects in files below `<dir>/<bucket>/`, under their own names; by default they are in memory. */
  readonly dir?: string;
  /** The most that one page of a listing holds; Google's is 1,000. */
  readonly pageSize?: number;
  /** Refuses whoever shows none of these. */
  readonly tokens?: readonly string[];
  /** Whether a caller who may not overwrite hears of that (403) before the precondition is looked at (412). */
  readonly rightsBeforePreconditions?: boolean;
  /** Grants storage.buckets.get, and is what that gives: `{lifecycle: {…}}`. */
  readonly settings?: object;
}

/** How a test rules a double, in its own process or in another. */
export interface GcsDouble {
  /** For `apiEndpoint`. */
  readonly url: string;
  /** Replaces the faults that are on; no rules: none. */
  setFaults(plan: GcsFaultPlan): Promise<void>;
  /** Takes rights away, and gives all others back: `storage.objects.create` and the like. */
  deny(permissions: readonly string[]): Promise<void>;
  setLatency(ms: number): Promise<void>;
  /** Since the start, or since they were last reset. */
  counters(options?: { reset?: boolean }): Promise<GcsCounters>;
  /** Breaks every connection. */
  stop(): Promise<void>;
}

const DEFAULT_BUCKET = 'archive';
const CONTROL = '/double/';

/**
 * A double of Google Cloud Storage: the calls of its JSON API that a store makes, answered as Google's reference says, over
 * plain HTTP on loopback. Objects live as long as it does.
 *
 * What a test of daemons needs: `spawnGcsDouble` (gcs-double-process.ts), which is this file in a process of its own, ruled
 * by the same interface, so that a busy test does not hold its daemons' store up; and in their config
 * `stores: {main: {type: gcs, bucket: archive, apiEndpoint: <url>}}`. With `dir`, the archive can be read there as in a file
 * store: `new ChainReader({root: join(dir, 'archive')})`.
 */
export async function startGcsDouble(options: GcsDoubleOptions = {}): Promise<GcsDouble> {
  const double = new Double(options);
  await double.listen(options.port ?? 0);
  return double;
}

class Double implements GcsDouble {
  url = '';
  readonly #server: Server;
  readonly #api: Api;
  readonly #faults = new Faults();
  readonly #tokens: readonly string[] | null;
  #latencyMs: number;
  #counters = new Counters();

  constructor(options: GcsDoubleOptions) {
    const { buckets = [DEFAULT_BUCKET], latencyMs = 0, dir, pageSize, tokens } = options;
    this.#latencyMs = latencyMs;
    this.#tokens = tokens ?? null;
    this.#api = new Api({
      buckets: new Map(buckets.map((name) => [name, new Bucket(dir === undefined ? null : join(dir, name))])),
      pageSize,
      settings: options.settings,
      rightsBeforePreconditions: options.rightsBeforePreconditions ?? false,
    });
    this.#server = createServer({ noDelay: true, keepAliveTimeout: 60_000 }, (request, response) => {
      this.#serve(request, response).catch((error) => {
        process.stderr.write(`gcs double: ${error.stack}\n`);
        response.destroy();
      });
    });
    this.#server.on('connection', () => this.#counters.connected());
  }

  async listen(port: number): Promise<void> {
    this.#server.listen(port, '127.0.0.1');
    await once(this.#server, 'listening');
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('the double has no port');
    this.url = `http://127.0.0.1:${address.port}`;
  }

  async setFaults(plan: GcsFaultPlan): Promise<void> {
    this.#faults.set(plan);
  }

  async deny(permissions: readonly string[]): Promise<void> {
    this.#api.denied = new Set(permissions);
  }

  async setLatency(ms: number): Promise<void> {
    this.#latencyMs = ms;
  }

  async counters({ reset = false } = {}): Promise<GcsCounters> {
    const counters = this.#counters.get();
    if (reset) this.#counters = new Counters();
    return counters;
  }

  async stop(): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.url);
    if (url.pathname.startsWith(CONTROL)) return this.#control(url.pathname.slice(CONTROL.length), request, response);
    const target = targetOf(request.method ?? 'GET', url);
    if (!target) return send(response, { status: 404, body: 'Not Found' });
    const isQuery = target.operation === 'piece' && request.headers['content-length'] === '0';
    const counters = this.#counters; // a reset meanwhile takes nothing back from the new ones
    const operation = isQuery ? 'query' : target.operation;
    counters.began(operation);
    response.once('close', () => counters.ended(operation));
    const fault = this.#faults.of(operation, target.name);
    const { body, isWhole } = await bodyOf(request, fault);
    const header = (name: string) => request.headers[name]?.toString();
    const call: Call = { method: request.method ?? 'GET', url, header, body };
    if (!isWhole) {
      if (operation === 'piece') this.#api.keepPartOf(call);
      return;
    }
    await pass(this.#latencyMs / 2 + (fault?.kind === 'slow' ? (fault.delayMs ?? 0) : 0));
    const answer = await this.#answer({ ...target, operation }, call, fault);
    await pass(this.#latencyMs / 2);
    if (answer === null) return;
    if (answer === 'drop') {
      request.socket.resetAndDestroy();
      return;
    }
    counters.answered(answer.status);
    await send(response, answer, fault);
  }

  /** Null: there shall be none. */
  async #answer(target: Target, call: Call, fault: GcsFault | null): Promise<Answer | 'drop' | null> {
    if (!this.#knows(call)) {
      return { status: 401, headers: JSON_TYPE, body: refusalBody(401, 'authError', 'Invalid Credentials') };
    }
    switch (fault?.kind) {
      case 'refuse':
        return refusalOf(fault);
      case 'drop-before':
        return 'drop';
      case 'hang':
        return null;
    }
    const answer = await this.#api.carryOut(target, call);
    if (fault?.kind === 'drop-after') return 'drop';
    return fault?.kind === 'hang-after' ? null : answer;
  }

  #knows({ header }: Call): boolean {
    const [, token] = /^Bearer (.+)$/.exec(header('authorization') ?? '') ?? [];
    return this.#tokens === null || this.#tokens.includes(token ?? '');
  }

  async #control(what: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { body } = await bodyOf(request, null);
    const given = body.length > 0 ? JSON.parse(body.toString()) : undefined;
    const done = await (() => {
      switch (what) {
        case 'faults':
          return this.setFaults(given);
        case 'deny':
          return this.deny(given);
        case 'latency':
          return this.setLatency(given);
        case 'counters':
          return this.counters(given);
        default:
          throw new Error(`no such control: ${what}`);
      }
    })();
    await send(response, { status: 200, headers: JSON_TYPE, body: JSON.stringify(done ?? {}) });
  }
}

/** A timer of 0 would take a millisecond. */
const pass = async (ms: number) => ms > 0 && delay(ms);

const JSON_TYPE = { 'content-type': 'application/json; charset=UTF-8' };

const REASONS: Readonly<Record<number, readonly [string, string]>> = {
  401: ['authError', 'Invalid Credentials'],
  408: ['requestTimeout', 'Request timed out.'],
  429: [
    'rateLimitExceeded',
    'The object exceeded the rate limit for object mutation operations. Please reduce your request rate.',
  ],
  500: ['backendError', 'We encountered an internal error. Please try again.'],
  503: ['backendError', 'Service Unavailable. Please try again.'],
};

function refusalOf({ status = 503, retryAfterSeconds }: GcsFault): Answer {
  const [reason, message] = REASONS[status] ?? ['backendError', `status ${status}`];
  const headers = {
    ...JSON_TYPE,
    ...(retryAfterSeconds !== undefined && { 'retry-after': String(retryAfterSeconds) }),
  };
  return { status, headers, body: refusalBody(status, reason, message) };
}

const TRICKLE_EVERY_MS = 50;

/** What came of the request's body before it ended or its connection broke. */
async function bodyOf(request: IncomingMessage, fault: GcsFault | null): Promise<{ body: Buffer; isWhole: boolean }> {
  const pieces: Buffer[] = [];
  try {
    for await (const piece of request) {
      pieces.push(piece);
      if (fault?.kind === 'trickle') await delay((piece.length * 1_000) / (fault.bytesPerSecond ?? 1_000));
    }
  } catch {
    return { body: Buffer.concat(pieces), isWhole: false };
  }
  const body = pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
  const isUpload = request.method === 'POST' || request.method === 'PUT';
  return { body: fault?.kind === 'damage' && isUpload ? damaged(body) : body, isWhole: request.complete };
}

async function send(response: ServerResponse, answer: Answer, fault: GcsFault | null = null): Promise<void> {
  const { status, headers = {} } = answer;
  const whole = Buffer.from(answer.body ?? '');
  const body = fault?.kind === 'damage' && response.req.method === 'GET' ? damaged(whole) : whole;
  response.writeHead(status, { ...headers, ...(status !== 204 && { 'content-length': String(body.length) }) });
  if (fault?.kind !== 'trickle') {
    response.end(body);
    return;
  }
  const step = Math.max(1, Math.round(((fault.bytesPerSecond ?? 1_000) * TRICKLE_EVERY_MS) / 1_000));
  for (let at = 0; at < body.length && !response.destroyed; at += step) {
    response.write(body.subarray(at, at + step));
    await delay(TRICKLE_EVERY_MS);
  }
  response.end();
}

/** The same but for one bit, in the middle. */
function damaged(bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  const at = copy.length >> 1;
  if (copy.length > 0) copy[at] = copy[at]! ^ 1;
  return copy;
}

if (process.argv[1] === import.meta.filename) {
  const { values } = parseArgs({
    options: {
      port: { type: 'string', default: '0' },
      bucket: { type: 'string', multiple: true, default: [DEFAULT_BUCKET] },
      'latency-ms': { type: 'string', default: '0' },
      'page-size': { type: 'string' },
      dir: { type: 'string' },
    },
  });
  const { url } = await startGcsDouble({
    port: Number(values.port),
    buckets: values.bucket,
    latencyMs: Number(values['latency-ms']),
    ...(values.dir !== undefined && { dir: values.dir }),
    ...(values['page-size'] !== undefined && { pageSize: Number(values['page-size']) }),
  });
  process.stdout.write(`${JSON.stringify({ url, buckets: values.bucket })}\n`);
}
