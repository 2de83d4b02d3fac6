import { setMaxListeners } from 'node:events';
import { readFile } from 'node:fs/promises';
import type { Log } from '../../core/log.ts';
import { messageOf, ShipmateError } from '../../errors.ts';
import { diagnose } from './diagnose.ts';
import { Endpoint, type Link, type Login, type TlsFiles } from './endpoint.ts';
import { isUndecided, isUnreachable, refusal, unreachable } from './errors.ts';
import { AllFailed, race } from './race.ts';

/** Paths of PEM files; read again when a connection fails, so that renewed certificates are taken up. */
export interface TlsPaths {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
}

export interface ClientOptions {
  readonly endpoints: readonly string[];
  readonly tls: TlsPaths | null;
  readonly login: Login | null;
  /** Prefix of the keys used, for messages. */
  readonly root: string;
  readonly log: Log;
}

/** Bound on a call, milliseconds. */
const CALL_MS = 2_000;
/** How long a member may stay silent before another is asked as well, milliseconds. */
const PATIENCE_MS = 400;

/**
 * etcd as one daemon reaches it. Every call has a bound, goes first to the member that answered last, and to the others
 * as soon as that one fails or stays silent: so an operation may reach etcd twice, and each must bear that.
 * Failures are ShipmateErrors with verdict `retry`.
 */
export class Client {
  readonly #options: ClientOptions;
  readonly #endpoints: Endpoint[];
  readonly #closing = new AbortController();
  #tls: TlsFiles | null;
  #preferred = 0;
  #failure: ShipmateError | null = null;
  #called = false;

  private constructor(options: ClientOptions, tls: TlsFiles | null) {
    this.#options = options;
    this.#tls = tls;
    setMaxListeners(0, this.#closing.signal); // every call under way listens
    try {
      this.#endpoints = options.endpoints.map((url) => new Endpoint({ url, tls, login: options.login }));
    } catch (cause) {
      throw badTls(messageOf(cause), cause);
    }
  }

  /** Throws where a certificate can't be read; whether etcd answers is not looked at. */
  static async open(options: ClientOptions): Promise<Client> {
    return new Client(options, await readTls(options.tls));
  }

  /** Whether the last call that ended had reached etcd. */
  get reachable(): boolean {
    return this.#called && this.#failure === null;
  }

  /** Why etcd is not reached; null while it is, or before the first call. */
  get failure(): ShipmateError | null {
    return this.#failure;
  }

  /** Aborts when the client is closed. */
  get closed(): AbortSignal {
    return this.#closing.signal;
  }

  async call<T>(operation: (link: Link) => Promise<T>, timeoutMs = CALL_MS): Promise<T> {
    const order = this.#endpoints.map((_, n) => (this.#preferred + n) % this.#endpoints.length);
    const attempts = order.map((place) => async () => {
      const result = await this.#endpoints[place]!.run(operation, timeoutMs);
      this.#preferred = place;
      return result;
    });
    try {
      const result = await race(attempts, {
        patienceMs: Math.min(PATIENCE_MS, timeoutMs / (attempts.length + 1)),
        timeoutMs,
        givesWay: isUndecided,
        signal: this.#closing.signal,
      });
      this.#note(null);
      return result;
    } catch (cause) {
      if (this.#closing.signal.aborted) throw this.#closing.signal.reason;
      const error = await this.#explain(cause, order);
      this.#note(error);
      throw error;
    }
  }

  /** The member that answers at present, for a stream; what goes wrong on that is told to `streamFailed`. */
  async open<T>(stream: (link: Link) => Promise<T>): Promise<{ stream: T; endpoint: Endpoint }> {
    const endpoint = this.#endpoints[this.#preferred]!;
    const opened = await endpoint.run(({ etcd }) => stream({ etcd, options: {} }), CALL_MS);
    return { stream: opened, endpoint };
  }

  /** Ends every call under way. */
  close(): void {
    this.#closing.abort(new ShipmateError('the connection to etcd was closed', { code: 'CLOSED', verdict: 'retry' }));
    for (const endpoint of this.#endpoints) endpoint.close();
  }

  async #explain(cause: unknown, order: readonly number[]): Promise<ShipmateError> {
    const { login, root } = this.#options;
    if (!(cause instanceof AllFailed)) return refusal(cause, { user: login?.username, root });
    await this.#renewCertificates();
    const attempts = order.map(async (place, n) => {
      const error = cause.failures[n] ?? new Error('not asked');
      const endpoint = this.#endpoints[place]!.url;
      const silent = !/^(?:\w+Error: )?\d+ UNAVAILABLE: (?!etcdserver)/.test(messageOf(error));
      const seen = silent ? null : await diagnose(endpoint, this.#tls);
      return { endpoint, error: seen ? new Error(seen.message, { cause: error }) : error, hint: seen?.hint ?? null };
    });
    return unreachable(await Promise.all(attempts));
  }

  async #renewCertificates(): Promise<void> {
    if (!this.#options.tls) return;
    const tls = await readTls(this.#options.tls).catch(() => null);
    if (tls === null || sameTls(tls, this.#tls) || this.#closing.signal.aborted) return;
    try {
      for (const endpoint of this.#endpoints) endpoint.renew(tls);
      this.#tls = tls;
      this.#options.log.info("etcd's certificates were renewed");
    } catch (error) {
      this.#options.log.warn("etcd's certificates changed, but can't be used", { error });
    }
  }

  /** Says once when etcd goes out of reach, and once when it is back. */
  #note(error: ShipmateError | null): void {
    const { log } = this.#options;
    const failure = error !== null && isUnreachable(error) ? error : null;
    if (failure && !this.#failure) log.warn(failure.message, { code: failure.code, hint: failure.hint });
    if (!failure && this.#failure) log.info('etcd is reached again');
    this.#failure = failure;
    this.#called = true;
  }
}

/** Throws a ShipmateError for a file that can't be read. */
export async function readTls(paths: TlsPaths | null): Promise<TlsFiles | null> {
  if (paths === null) return null;
  const entries = Object.entries(paths).map(async ([name, path]) => {
    try {
      return [name, await readFile(path)] as const;
    } catch (cause) {
      throw badTls(`tls.${name}: ${messageOf(cause)}`, cause);
    }
  });
  return Object.fromEntries(await Promise.all(entries));
}

function sameTls(a: TlsFiles, b: TlsFiles | null): boolean {
  const same = (one: Buffer | undefined, other: Buffer | undefined) =>
    one && other ? one.equals(other) : one === other;
  return b !== null && same(a.ca, b.ca) && same(a.cert, b.cert) && same(a.key, b.key);
}

function badTls(why: string, cause: unknown): ShipmateError {
  return new ShipmateError(`the certificates for etcd can't be used: ${why}`, {
    code: 'ETCD_TLS_FILES',
    hint: 'each is a file in PEM format that this user can read; "tls.cert" and "tls.key" go together',
    cause,
  });
}
