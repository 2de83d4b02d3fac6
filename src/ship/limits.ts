import { pause } from '../archive/retry.ts';
import type { LimitsBoard, TwinBandwidth } from '../coordination/coordination.ts';
import type { Rates } from '../core/bandwidth.ts';
import { type InForce, inForce, type Limits, type Override, ratesOf, rateText } from '../core/limits.ts';
import type { Log } from '../core/log.ts';
import type { BandwidthMetrics } from '../metrics.ts';
import type { Governor } from './governor.ts';

export interface LimitsOptions {
  /** The config's. */
  readonly limits: Limits | null;
  readonly node: string;
  /** Time zone of the host; undefined: as its clock has it. */
  readonly zone: string | undefined;
  readonly board: LimitsBoard;
  readonly governor: Governor;
  readonly metrics: BandwidthMetrics;
  readonly log: Log;
  /** Wall clock, milliseconds since 1970. */
  readonly nowMs: () => number;
}

/** A schedule's minute is not missed by more. */
const LOOK_MS = 1_000;

/**
 * What a daemon may send, as it changes: with the time of day, and when operators change it. While etcd is away what was
 * heard last counts, each to its end.
 */
export class BandwidthLimits {
  readonly #options: LimitsOptions;
  #limits: Limits | null;
  #overrides: readonly Override[] = [];
  #now: InForce = { reservation: null, refused: [] };

  constructor(options: LimitsOptions) {
    this.#options = options;
    this.#limits = options.limits;
    this.#look();
  }

  /** From now on, instead of the config's so far. */
  change(limits: Limits | null): void {
    this.#limits = limits;
    this.#look();
  }

  async keep(signal: AbortSignal): Promise<void> {
    await Promise.all([this.#hear(signal), this.#tick(signal)]);
  }

  /** For the twins and `shipmate limits`. */
  state(): TwinBandwidth {
    const { reservation, refused } = this.#now;
    const guaranteed = reservation && ratesOf(reservation).guaranteed;
    const measured = this.#options.governor.measured();
    const names = new Set<string>([...Object.keys(guaranteed ?? {}), ...measured.map(({ name }) => name)]);
    const classes = [...names].map((name) => ({
      name,
      guaranteed: guaranteed?.[name] ?? null,
      measured: measured.find((one) => one.name === name)?.bytesPerSecond ?? 0,
    }));
    return { link: reservation?.link ?? null, classes, refused };
  }

  async #hear(signal: AbortSignal): Promise<void> {
    const { board, log } = this.#options;
    while (!signal.aborted) {
      try {
        for await (const overrides of board.watch(signal)) {
          this.#overrides = overrides;
          this.#look();
        }
      } catch (error) {
        log.debug('changes of the bandwidth limits could not be read', { error });
      }
      await pause(LOOK_MS, signal).catch(() => {});
    }
  }

  async #tick(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await pause(LOOK_MS, signal).catch(() => {});
      this.#look();
    }
  }

  #look(): void {
    const { node, zone, governor, metrics, log, nowMs } = this.#options;
    const before = this.#now;
    const now = inForce({ limits: this.#limits, overrides: this.#overrides, node, zone }, nowMs());
    this.#now = now;
    if (!same(now.reservation, before.reservation)) {
      const rates = now.reservation && ratesOf(now.reservation);
      governor.set(rates);
      metrics.limits(rates);
      if (rates === null) log.info('bandwidth is not limited any more');
      else log.info('bandwidth limits in force', textOf(rates));
    }
    if (same(now.refused, before.refused)) return;
    metrics.refused(now.refused.length);
    for (const { id, reason } of now.refused)
      log.warn(`bandwidth limits that can't be honoured now: ${reason}`, { id });
  }
}

/** `{link: '100 MiB/s', shipping: '50 MiB/s', …}` */
function textOf({ link, guaranteed }: Rates): Record<string, string> {
  return Object.fromEntries(Object.entries({ link, ...guaranteed }).map(([name, rate]) => [name, rateText(rate)]));
}

const same = (one: unknown, other: unknown) => JSON.stringify(one) === JSON.stringify(other);
