import { isIPv6 } from 'node:net';
import { getCACertificates } from 'node:tls';
import { type CallOptions, InterceptingCall, type Interceptor, status } from '@grpc/grpc-js';
import { noop } from 'cockatiel';
import { Etcd3, type IOptions } from 'etcd3';
import { isLate, isLoginLost, isLoginNeedless, LOGIN_LOST } from './errors.ts';

/** Contents of PEM files. */
export interface TlsFiles {
  readonly ca?: Buffer;
  readonly cert?: Buffer;
  readonly key?: Buffer;
}

export interface Login {
  readonly username: string;
  readonly password: string;
}

/** One call's means: the member's clients, and options that bound the call. */
export interface Link {
  readonly etcd: Etcd3;
  readonly options: CallOptions;
}

const CLIENT_PORT = 2379;

/** Where `http://host:port/` leads; etcd's client port where none is written. */
export function addressOf(url: string): { host: string; port: number; secure: boolean } {
  const { hostname, protocol } = new URL(url);
  const port = /^[^/]*\/\/[^/]*:(\d+)(?:\/|$)/.exec(url)?.[1]; // URL drops 80 and 443
  return {
    host: hostname.replace(/^\[|\]$/g, ''),
    port: port === undefined ? CLIENT_PORT : Number(port),
    secure: protocol === 'https:',
  };
}

/** Whose certificates are believed: the given authority's, or those that Node and the system know. */
export function authorities(tls: TlsFiles | null): Buffer {
  if (tls?.ca) return tls.ca;
  return Buffer.from([...getCACertificates('default'), ...getCACertificates('system')].join('\n'));
}

/** etcd works hard on a password: longer than some calls may last, and their successors use what comes of it. */
const LOGIN_MS = 3_000;

const GRPC_OPTIONS = {
  // Finds a watch's connection that died in silence; calls have deadlines. etcd throws off clients that ping more often
  // than every five seconds, or at all while nothing is under way.
  'grpc.keepalive_time_ms': 6_000,
  'grpc.keepalive_timeout_ms': 1_500,
  'grpc.keepalive_permit_without_calls': 0,
  // A channel made anew then has a connection made anew, not the dead one's pooled remains with its back-off.
  'grpc.use_local_subchannel_pool': 1,
  'grpc.initial_reconnect_backoff_ms': 250,
  'grpc.max_reconnect_backoff_ms': 1_000,
  'grpc.enable_http_proxy': 0,
};

/**
 * One member of etcd. Each has an etcd3 client of its own, because that library picks among several at random and
 * would send every third call to a frozen one; its retries, circuit breakers and logins are all off.
 */
export class Endpoint {
  readonly url: string;
  readonly #login: Login | null;
  #etcd: Etcd3;
  /** Null: not logged in. Empty: etcd wants none. */
  #token: string | null;
  #loggingIn: Promise<void> | null = null;

  constructor({ url, tls, login }: { url: string; tls: TlsFiles | null; login: Login | null }) {
    this.url = url;
    this.#login = login;
    this.#token = login ? null : '';
    this.#etcd = this.#connect(tls);
  }

  /** Runs one operation against this member, with a new login and a second try where the token had run out. */
  async run<T>(operation: (link: Link) => Promise<T>, timeoutMs: number): Promise<T> {
    const attempt = async () => {
      await this.#logIn();
      return operation({ etcd: this.#etcd, options: { deadline: Date.now() + timeoutMs } });
    };
    const token = this.#token;
    try {
      return await attempt();
    } catch (error) {
      // etcd holds a call whose token is from a later state than its own: it was wiped, or put back.
      if (isLate(error)) this.#forget(token);
      if (!this.#login || !isLoginLost(error)) throw error;
      this.#forget(token);
      return attempt();
    }
  }

  /** To be told of a stream's failure, which `run` can't see. */
  streamFailed(error: unknown): void {
    if (this.#login && isLoginLost(error)) this.#token = null;
  }

  /** Takes other certificates for the connections to come. */
  renew(tls: TlsFiles | null): void {
    this.#etcd.close();
    this.#etcd = this.#connect(tls);
  }

  close(): void {
    this.#etcd.close();
  }

  #connect(tls: TlsFiles | null): Etcd3 {
    const { host, port, secure } = addressOf(this.url);
    const options: IOptions = {
      hosts: `${isIPv6(host) ? `[${host}]` : host}:${port}`,
      grpcOptions: GRPC_OPTIONS,
      faultHandling: { host: () => noop, global: noop },
      defaultCallOptions: { interceptors: [this.#showToken] },
    };
    if (!secure) return new Etcd3(options);
    const rootCertificate = authorities(tls);
    const own = tls?.cert && tls.key ? { certChain: tls.cert, privateKey: tls.key } : {};
    return new Etcd3({ ...options, credentials: { rootCertificate, ...own } });
  }

  // etcd3 logs in over a channel that it never closes and on which no option acts, and sees no lost token on streams.
  // A call whose token etcd refuses by name it sends again at once, with the same token and without end: so it gets to
  // see another name.
  readonly #showToken: Interceptor = (options, nextCall) =>
    new InterceptingCall(nextCall(options), {
      start: (metadata, _listener, next) => {
        if (this.#token) metadata.set('token', this.#token);
        next(metadata, {
          onReceiveStatus: (answer, pass) => {
            const lost = answer.code === status.UNAUTHENTICATED;
            pass(lost ? { ...answer, details: LOGIN_LOST } : answer);
          },
        });
      },
    });

  #logIn(): Promise<void> {
    if (this.#token !== null) return Promise.resolve();
    this.#loggingIn ??= this.#authenticate().finally(() => {
      this.#loggingIn = null;
    });
    return this.#loggingIn;
  }

  async #authenticate(): Promise<void> {
    if (!this.#login) return;
    const { username: name, password } = this.#login;
    try {
      const { token } = await this.#etcd.auth.authenticate({ name, password }, { deadline: Date.now() + LOGIN_MS });
      this.#token = token;
    } catch (error) {
      if (!isLoginNeedless(error)) throw error;
      this.#token = '';
    }
  }

  /** Unless another call got a newer one meanwhile. */
  #forget(token: string | null): void {
    if (this.#login && this.#token === token) this.#token = null;
  }
}
