import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from '../../core/log.ts';
import { abortReason, Deposed } from '../../errors.ts';
import { orAbort } from '../abort.ts';
import type { Elector, Leadership } from '../coordination.ts';
import type { Client } from './client.ts';
import { isLeaseGone, isUnreachable } from './errors.ts';
import { follow } from './follow.ts';
import type { Keys } from './keys.ts';
import { type Entry, isAbsent, list, transact, wasCreatedAt } from './kv.ts';
import { EtcdLeadership } from './leadership.ts';
import type { Lease, Session } from './session.ts';

export interface ElectionOptions {
  readonly client: Client;
  readonly session: Session;
  readonly keys: Keys;
  readonly node: string;
  readonly onEtcdLoss: 'continue' | 'stop';
  readonly log: Log;
}

const RETRY_MS = 250;
const WITHDRAW_MS = 1_000;

/** The candidate that leads: the key that was created first. */
export function first(candidates: readonly Entry[]): Entry | null {
  return candidates.reduce<Entry | null>(
    (lowest, entry) => (lowest === null || entry.createRevision < lowest.createRevision ? entry : lowest),
    null,
  );
}

/**
 * One stream's election, as this daemon takes part in it. A candidate is a key under the daemon's lease, and the one
 * created first leads; so etcd orders the queue, and whoever dies leaves it. At most one candidacy at a time stands in
 * a daemon: it ends with the campaign's abort or the leadership's end, when its key was withdrawn.
 */
export class EtcdElector implements Elector {
  readonly #stream: string;
  readonly #options: ElectionOptions;
  /** Resolves when the candidacy under way ends; null: none is. */
  #candidacy: Promise<void> | null = null;
  /** The creation of the candidacy's key, settled or not. */
  #entering: Promise<bigint> | null = null;
  /** Revision of the last leadership that ended: its key, should it still be there, may not serve another. */
  #ended: bigint | null = null;

  constructor(stream: string, options: ElectionOptions) {
    this.#stream = stream;
    this.#options = options;
  }

  async campaign(signal: AbortSignal): Promise<Leadership> {
    const leave = await this.#begin(signal);
    for (;;) {
      let lease: Lease | null = null;
      try {
        lease = await this.#options.session.lease(signal);
        const revision = await this.#stand(lease, signal);
        if (revision !== null) return this.#lead({ lease, revision, leave });
      } catch (error) {
        if (lease && isLeaseGone(error)) this.#options.session.lost(lease);
        else if (!isUnreachable(error) || signal.aborted) {
          void this.#withdraw(lease, null).finally(leave);
          throw signal.aborted ? abortReason(signal) : error;
        }
        await delay(RETRY_MS, undefined, { signal }).catch(() => {});
      }
    }
  }

  /** Removes a key that no candidacy stands behind: one whose withdrawal, or creation, was lost on its way. */
  async sweep(): Promise<void> {
    const lease = this.#options.session.current;
    if (this.#candidacy !== null || lease === null) return;
    const leave = await this.#begin(new AbortController().signal);
    await this.#withdraw(lease, null);
    leave();
  }

  async #begin(signal: AbortSignal): Promise<() => void> {
    while (this.#candidacy !== null) await orAbort(this.#candidacy, signal);
    if (signal.aborted) throw abortReason(signal);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#candidacy = promise;
    return () => {
      this.#candidacy = null;
      resolve();
    };
  }

  /** Enters the queue and waits in it. The key's create revision once it leads; null when the place was lost. */
  async #stand(lease: Lease, signal: AbortSignal): Promise<bigint | null> {
    const { client, keys, log } = this.#options;
    const key = this.#key(lease);
    const standing = AbortSignal.any([signal, lease.signal]);
    this.#entering = this.#enter(lease);
    const revision = await orAbort(this.#entering, signal);
    const range = { prefix: keys.leaders(this.#stream) };
    for await (const queue of follow({ client, range, signal: standing, log })) {
      const own = queue.find((entry) => entry.key === key && entry.createRevision === revision);
      if (!own) return null;
      if (first(queue) !== own) continue;
      // The first keep-alive after an outage may be still under way.
      while (lease.remainingMs() <= 0 && !standing.aborted) await delay(50);
      return standing.aborted ? null : revision;
    }
    if (signal.aborted) throw abortReason(signal);
    return null;
  }

  /** Creates the candidate's key unless it is there; returns its create revision. */
  async #enter(lease: Lease): Promise<bigint> {
    const { client, node } = this.#options;
    const name = this.#key(lease);
    const key = Buffer.from(name);
    for (;;) {
      const { succeeded, header, responses } = await transact(client, {
        compare: [isAbsent(name)],
        success: [{ request_put: { key, value: Buffer.from(node), lease: lease.id } }],
        failure: [{ request_range: { key } }],
      });
      if (succeeded) return BigInt(header.revision);
      const found = BigInt(responses[0]!.response_range.kvs[0]!.create_revision);
      if (found !== this.#ended) return found; // ours: the answer to its creation was lost
      await this.#remove(name, found);
    }
  }

  #lead({ lease, revision, leave }: { lease: Lease; revision: bigint; leave: () => void }): Leadership {
    const leadership = new EtcdLeadership({
      stream: this.#stream,
      lease,
      key: this.#key(lease),
      revision,
      onEtcdLoss: this.#options.onEtcdLoss,
      withdraw: () => {
        this.#ended = revision;
        return this.#withdraw(lease, revision).finally(leave);
      },
    });
    void this.#guard(leadership);
    return leadership;
  }

  /** Ends the leadership when its key is not first any more: etcd was wiped or restored, or somebody deleted it. */
  async #guard(leadership: EtcdLeadership): Promise<void> {
    const { client, keys, log } = this.#options;
    const range = { prefix: keys.leaders(this.#stream) };
    for await (const queue of follow({ client, range, signal: leadership.signal, log })) {
      const leader = first(queue);
      if (leader?.key === leadership.key && leader.createRevision === leadership.revision) continue;
      void leadership.end(
        new Deposed(
          leader
            ? `node "${leader.value}" leads stream "${this.#stream}" now`
            : `the leader key of stream "${this.#stream}" is gone from etcd`,
        ),
      );
    }
  }

  /** Never throws; where etcd can't be told now, `sweep` does it later. */
  async #withdraw(lease: Lease | null, revision: bigint | null): Promise<void> {
    if (lease === null || lease.signal.aborted) return;
    const key = this.#key(lease);
    try {
      await this.#entering?.catch(() => {});
      const there = revision ?? (await list(this.#options.client, { key }, WITHDRAW_MS))[0]?.createRevision;
      if (there !== undefined) await this.#remove(key, there);
    } catch (error) {
      this.#options.log.debug('a leader key could not be withdrawn', { stream: this.#stream, error });
    }
  }

  async #remove(key: string, revision: bigint): Promise<void> {
    const request = {
      compare: [wasCreatedAt(key, revision)],
      success: [{ request_delete_range: { key: Buffer.from(key) } }],
    };
    await transact(this.#options.client, request, WITHDRAW_MS);
  }

  #key(lease: Lease): string {
    return this.#options.keys.leader(this.#stream, lease.hex);
  }
}

/** Every stream's elector of one daemon. */
export class Elections {
  readonly #options: ElectionOptions;
  readonly #electors = new Map<string, EtcdElector>();
  readonly #sweeping: NodeJS.Timeout;

  constructor(options: ElectionOptions & { readonly sweepMs: number }) {
    this.#options = options;
    this.#sweeping = setInterval(() => {
      for (const elector of this.#electors.values()) void elector.sweep();
    }, options.sweepMs).unref();
  }

  elector(stream: string): EtcdElector {
    let elector = this.#electors.get(stream);
    if (!elector) {
      elector = new EtcdElector(stream, this.#options);
      this.#electors.set(stream, elector);
    }
    return elector;
  }

  close(): void {
    clearInterval(this.#sweeping);
  }
}
