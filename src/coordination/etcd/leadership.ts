import { Deposed, ShipmateError } from '../../errors.ts';
import type { Leadership } from '../coordination.ts';
import type { Lease } from './session.ts';

export interface LeadershipOptions {
  readonly stream: string;
  readonly lease: Lease;
  /** The leader key, and the revision at which it was created. */
  readonly key: string;
  readonly revision: bigint;
  readonly onEtcdLoss: 'continue' | 'stop';
  /** Takes the leader key away; called once, when the leadership is over for whatever reason. Never throws. */
  readonly withdraw: () => Promise<void>;
}

export class EtcdLeadership implements Leadership {
  readonly key: string;
  readonly revision: bigint;
  readonly #options: LeadershipOptions;
  readonly #over = new AbortController();
  #withdrawn: Promise<void> | null = null;
  #clock: NodeJS.Timeout | undefined;

  constructor(options: LeadershipOptions) {
    this.#options = options;
    this.key = options.key;
    this.revision = options.revision;
    const { lease } = options;
    lease.signal.addEventListener('abort', () => this.end(lease.signal.reason), { signal: this.signal });
    if (options.onEtcdLoss === 'stop') this.#stopWhenRunOut();
    if (lease.signal.aborted) this.end(lease.signal.reason);
  }

  get signal(): AbortSignal {
    return this.#over.signal;
  }

  confirmed(): boolean {
    return !this.signal.aborted && this.remainingMs() > 0;
  }

  remainingMs(): number {
    return this.#options.lease.remainingMs();
  }

  resign(): Promise<void> {
    return this.end(new Deposed(`the leadership of stream "${this.#options.stream}" was given up`));
  }

  /** Aborts the signal with `reason`; resolves when the leader key is gone, or etcd could not be told in time. */
  end(reason: ShipmateError): Promise<void> {
    if (this.#withdrawn === null) {
      clearTimeout(this.#clock);
      this.#withdrawn = this.#options.withdraw();
      this.#over.abort(reason);
    }
    return this.#withdrawn;
  }

  #stopWhenRunOut(): void {
    const { stream } = this.#options;
    const remainingMs = this.remainingMs();
    if (remainingMs > 0) {
      this.#clock = setTimeout(() => this.#stopWhenRunOut(), Math.ceil(remainingMs)).unref();
      return;
    }
    void this.end(
      new ShipmateError(`the lease of stream "${stream}" ran out: etcd was not reached in time`, {
        code: 'LEASE_RAN_OUT',
        hint: 'the term ends, as "onEtcdLoss: stop" asks; it goes on when etcd is reached again',
        verdict: 'retry',
      }),
    );
  }
}
