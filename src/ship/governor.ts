import { Link, type Rates } from '../core/bandwidth.ts';
import type { ClassName } from '../core/limits.ts';
import { abortReason } from '../errors.ts';

/** One user's part in what may be sent to stores. */
export interface Share {
  /** Resolves when so many bytes may be sent; throws the signal's reason, and has then taken nothing. */
  take(bytes: number, signal: AbortSignal): Promise<void>;
}

/** A share of the governor's own. */
export interface GovernedShare extends Share {
  /** Whether something waits now to be sent. */
  readonly waits: boolean;
}

/** Log shipping, or a class of what is sent beside it. */
export type BandwidthClass = 'shipping' | ClassName;

export interface GovernorOptions {
  /** Monotonic, milliseconds. */
  readonly nowMs: () => number;
  /** Told of what may be sent from now on, and how long it waited. */
  readonly onSent?: (sent: {
    readonly name: BandwidthClass;
    readonly bytes: number;
    readonly waitedMs: number;
  }) => void;
}

/** What a class was given lately. */
export interface Measured {
  readonly name: BandwidthClass;
  /** Over the last half minute, or as long as the class has been used. */
  readonly bytesPerSecond: number;
}

const MEASURED_MS = 30_000;

/**
 * Who may send how much, of all streams of a daemon together: by `core/bandwidth.ts`, on a clock. Until rates are set, and
 * while they are null, nothing waits.
 */
export class Governor {
  readonly #options: GovernorOptions;
  readonly #link: Link;
  readonly #sent = new Map<BandwidthClass, Recent>();
  #unlimited = true;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: GovernorOptions) {
    this.#options = options;
    this.#link = new Link(options.nowMs());
  }

  /** Another user of a class, who shares it evenly with its others: a stream of log shipping, a copy of `slow`. */
  of(name: BandwidthClass): GovernedShare {
    const user = this.#link.user(name);
    let waiting = 0;
    return {
      get waits() {
        return waiting > 0;
      },
      take: async (bytes, signal) => {
        if (signal.aborted) throw abortReason(signal);
        const sinceMs = this.#options.nowMs();
        waiting++;
        try {
          if (!this.#unlimited) await this.#wait(user, bytes, signal);
        } finally {
          waiting--;
        }
        this.#tell(name, bytes, this.#options.nowMs() - sinceMs);
      },
    };
  }

  set(rates: Rates | null): void {
    this.#unlimited = rates === null;
    this.#link.set(rates, this.#options.nowMs());
    this.#arm();
  }

  /** Of each class that was ever used. */
  measured(): Measured[] {
    const nowMs = this.#options.nowMs();
    return [...this.#sent].map(([name, recent]) => ({ name, bytesPerSecond: recent.perSecond(nowMs) }));
  }

  #wait(user: ReturnType<Link['user']>, bytes: number, signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiter = {
      bytes,
      pass: () => {
        signal.removeEventListener('abort', leave);
        resolve();
      },
    };
    const leave = () => {
      this.#link.leave(user, waiter);
      this.#arm();
      reject(abortReason(signal));
    };
    signal.addEventListener('abort', leave, { once: true });
    this.#link.ask(user, waiter);
    this.#advance();
    return promise;
  }

  #advance(): void {
    this.#link.advance(this.#options.nowMs());
    this.#arm();
  }

  #arm(): void {
    clearTimeout(this.#timer);
    const inMs = this.#link.nextMs;
    if (inMs < Number.POSITIVE_INFINITY) this.#timer = setTimeout(() => this.#advance(), Math.ceil(inMs));
  }

  #tell(name: BandwidthClass, bytes: number, waitedMs: number): void {
    const recent = this.#sent.get(name) ?? new Recent(this.#options.nowMs());
    this.#sent.set(name, recent);
    recent.add(bytes, this.#options.nowMs());
    this.#options.onSent?.({ name, bytes, waitedMs });
  }
}

/** Bytes of the last half minute, second by second. */
class Recent {
  readonly #sinceMs: number;
  readonly #seconds: { atMs: number; bytes: number }[] = [];

  constructor(nowMs: number) {
    this.#sinceMs = nowMs;
  }

  add(bytes: number, nowMs: number): void {
    const newest = this.#seconds.at(-1);
    if (newest && nowMs - newest.atMs < 1_000) newest.bytes += bytes;
    else this.#seconds.push({ atMs: nowMs, bytes });
    this.#forget(nowMs);
  }

  perSecond(nowMs: number): number {
    this.#forget(nowMs);
    const bytes = this.#seconds.reduce((sum, second) => sum + second.bytes, 0);
    const overMs = Math.min(MEASURED_MS, Math.max(1_000, nowMs - this.#sinceMs));
    return Math.round((bytes * 1_000) / overMs);
  }

  #forget(nowMs: number): void {
    while (this.#seconds[0] && nowMs - this.#seconds[0].atMs >= MEASURED_MS) this.#seconds.shift();
  }
}
