import { setMaxListeners } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { castGrpcError, type ILeaseKeepAliveResponse } from 'etcd3';
import type { Log } from '../../core/log.ts';
import { Deposed, messageOf, ShipmateError } from '../../errors.ts';
import { orAbort } from '../abort.ts';
import type { Client } from './client.ts';
import type { Link } from './endpoint.ts';
import { isUnreachable, NoAnswer } from './errors.ts';

/** Milliseconds of a clock that never jumps. */
export type NowMs = () => number;

export interface SessionOptions {
  readonly client: Client;
  /** What is asked for; etcd may grant more. */
  readonly ttlMs: number;
  readonly log: Log;
  readonly nowMs: NowMs;
}

const RETRY_MS = 250;
const REVOKE_MS = 1_000;

/** One lease that etcd granted. */
export class Lease {
  /** Decimal, as etcd3 wants it. */
  readonly id: string;
  /** The same in hex, as etcdctl shows it. */
  readonly hex: string;
  readonly #nowMs: NowMs;
  readonly #gone = new AbortController();
  #ttlMs: number;
  #deadlineMs: number;

  constructor({ id, ttlMs, sentAtMs, nowMs }: { id: string; ttlMs: number; sentAtMs: number; nowMs: NowMs }) {
    this.id = id;
    this.hex = BigInt(id).toString(16);
    this.#nowMs = nowMs;
    setMaxListeners(0, this.#gone.signal); // every stream's leadership listens
    this.#ttlMs = ttlMs;
    this.#deadlineMs = sentAtMs + ttlMs;
  }

  /** Aborts, with Deposed, once etcd said that the lease is gone and so every key under it. */
  get signal(): AbortSignal {
    return this.#gone.signal;
  }

  get ttlMs(): number {
    return this.#ttlMs;
  }

  /** Until it may run out in etcd; never too long, since time counts from before a keep-alive was sent. */
  remainingMs(): number {
    return this.#deadlineMs - this.#nowMs();
  }

  extend({ sentAtMs, ttlMs }: { sentAtMs: number; ttlMs: number }): void {
    this.#ttlMs = ttlMs;
    this.#deadlineMs = Math.max(this.#deadlineMs, sentAtMs + ttlMs);
  }

  lose(reason: Deposed): void {
    this.#gone.abort(reason);
  }
}

/**
 * The daemon's presence in etcd: one lease, kept alive, and granted anew when etcd has lost it. Begins when it is first
 * asked for, so that a command which only reads leaves no trace.
 */
export class Session {
  readonly #options: SessionOptions;
  readonly #listeners: ((lease: Lease) => void)[] = [];
  #lease: Lease | null = null;
  #granting: Promise<Lease> | null = null;
  #beat: NodeJS.Timeout | undefined;
  #closed = false;
  /** The refusal that was logged last; it is not logged again while it stays the same. */
  #refusal: string | null = null;

  constructor(options: SessionOptions) {
    this.#options = options;
  }

  /** Null before the first grant, and between a loss and the next grant. */
  get current(): Lease | null {
    return this.#lease;
  }

  /** The present lease; waits, through outages too, until there is one. */
  async lease(signal: AbortSignal): Promise<Lease> {
    if (this.#lease) return this.#lease;
    this.#granting ??= this.#grant().finally(() => {
      this.#granting = null;
    });
    return orAbort(this.#granting, signal);
  }

  /** As `lease`, but says after a while why there is none. */
  async leaseWithin(withinMs: number): Promise<Lease> {
    const { client } = this.#options;
    try {
      return await this.lease(AbortSignal.any([client.closed, AbortSignal.timeout(withinMs)]));
    } catch (cause) {
      if (client.closed.aborted) throw cause;
      if (client.failure) throw client.failure;
      throw new ShipmateError('etcd grants this node no lease', { code: 'ETCD_FAILED', verdict: 'retry', cause });
    }
  }

  /** Calls `listener` with each new lease. */
  onGrant(listener: (lease: Lease) => void): void {
    this.#listeners.push(listener);
  }

  /** To be called when etcd answers that it does not know `lease`. */
  lost(lease: Lease): void {
    if (this.#lease !== lease) return;
    clearTimeout(this.#beat);
    this.#lease = null;
    this.#options.log.warn("etcd does not know this node's lease any more; taking another", { lease: lease.hex });
    lease.lose(new Deposed(`etcd does not know the lease ${lease.hex} any more, so its leader keys are gone`));
    this.lease(this.#options.client.closed).catch(() => {});
  }

  /** Revokes the lease, if etcd is there to hear it. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#beat);
    const lease = this.#lease;
    this.#lease = null;
    if (!lease) return;
    lease.lose(new Deposed('this daemon gave up its lease'));
    await this.#revoke(lease);
  }

  async #revoke({ id }: Lease): Promise<void> {
    await this.#options.client
      .call(({ etcd, options }) => etcd.leaseClient.leaseRevoke({ ID: id }, options), REVOKE_MS)
      .catch(() => {}); // then it runs out
  }

  async #grant(): Promise<Lease> {
    const { client, ttlMs, nowMs, log } = this.#options;
    for (;;) {
      if (this.#closed) throw new ShipmateError('this daemon closes', { code: 'CLOSED', verdict: 'retry' });
      try {
        const lease = await client.call(async ({ etcd, options }) => {
          const sentAtMs = nowMs();
          const { ID, TTL } = await etcd.leaseClient.leaseGrant({ TTL: Math.ceil(ttlMs / 1_000) }, options);
          return new Lease({ id: ID, ttlMs: Number(TTL) * 1_000, sentAtMs, nowMs });
        });
        if (this.#closed) {
          await this.#revoke(lease);
          continue;
        }
        this.#refusal = null;
        this.#lease = lease;
        log.debug('etcd granted a lease', { lease: lease.hex, ttlMs: lease.ttlMs });
        this.#keepAliveIn(lease, lease.ttlMs / 4);
        for (const listener of this.#listeners) listener(lease);
        return lease;
      } catch (error) {
        if (client.closed.aborted) throw error;
        this.#noteRefusal('etcd grants no lease', error);
        await delay(RETRY_MS, undefined, { signal: client.closed }).catch(() => {});
      }
    }
  }

  #keepAliveIn(lease: Lease, delayMs: number): void {
    clearTimeout(this.#beat);
    if (this.#lease === lease) this.#beat = setTimeout(() => void this.#keepAlive(lease), delayMs);
  }

  /** The next attempt goes out in time whatever becomes of this one; each counts from its own sending. */
  async #keepAlive(lease: Lease): Promise<void> {
    const { client, nowMs } = this.#options;
    this.#keepAliveIn(lease, lease.ttlMs / 4);
    try {
      const kept = await client.call(async (link) => {
        const sentAtMs = nowMs();
        return { sentAtMs, ttlMs: Number((await keepAliveOnce(link, lease.id)).TTL) * 1_000 };
      }, lease.ttlMs / 3);
      this.#refusal = null;
      if (kept.ttlMs > 0) lease.extend(kept);
      else this.lost(lease);
    } catch (error) {
      this.#noteRefusal('etcd refuses to keep the lease alive', error);
      this.#keepAliveIn(lease, RETRY_MS);
    }
  }

  /** An etcd that is out of reach the client itself reports. */
  #noteRefusal(what: string, error: unknown): void {
    const refusal = `${what}: ${messageOf(error)}`;
    if (isUnreachable(error) || this.#closed || refusal === this.#refusal) return;
    this.#refusal = refusal;
    this.#options.log.warn(what, { error });
  }
}

/** etcd takes keep-alives on a stream only: one is opened for each, so that none can hang behind another. */
async function keepAliveOnce({ etcd, options }: Link, id: string): Promise<ILeaseKeepAliveResponse> {
  const stream = await etcd.leaseClient.leaseKeepAlive(options);
  return new Promise((resolve, reject) => {
    stream.on('error', (error) => reject(castGrpcError(error)));
    stream.on('end', () => reject(new NoAnswer('etcd ended the stream without an answer')));
    stream.on('data', (response) => {
      resolve(response);
      stream.end();
    });
    stream.write({ ID: id });
  });
}
