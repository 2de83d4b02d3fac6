import { pause } from '../archive/retry.ts';
import type { Twin, TwinBoard } from '../coordination/coordination.ts';
import type { Log } from '../core/log.ts';
import { messageOf } from '../errors.ts';

const LOOK_MS = 1_000;
/** What a twin told is old when it is read, by a moment or by a hang: the least of so many differences is the clocks'. */
const LOOKS = 5;
const TOLERATED_MS = 2_000;

interface Observed {
  readonly time: string;
  readonly behindMs: readonly number[];
  readonly differs: boolean;
}

/** A twin's clock that no longer agrees with this one, or agrees again; `behindMs` is negative where it is ahead. */
export interface ClockChange {
  readonly node: string;
  readonly behindMs: number;
  readonly differs: boolean;
}

/** Whether the twins' wall clocks agree with this one: times in the archive are those of whoever leads. */
export class Clocks {
  readonly #node: string;
  #observed = new Map<string, Observed>();

  constructor(node: string) {
    this.#node = node;
  }

  /** What has changed since the last look. `nowMs`: the wall clock, milliseconds since 1970. */
  observe(twins: readonly Twin[], nowMs: number): ClockChange[] {
    const changes: ClockChange[] = [];
    const observed = new Map<string, Observed>();
    for (const { node, time } of twins) {
      if (node === this.#node) continue;
      const before = this.#observed.get(node);
      // One that hangs tells nothing of its clock.
      const behindMs =
        before?.time === time ? before.behindMs : [...(before?.behindMs ?? []), nowMs - Date.parse(time)].slice(-LOOKS);
      const leastMs = Math.min(...behindMs);
      const known = before?.differs ?? false;
      const differs = behindMs.length < LOOKS ? known : Math.abs(leastMs) > TOLERATED_MS;
      if (differs !== known) changes.push({ node, behindMs: leastMs, differs });
      observed.set(node, { time, behindMs, differs });
    }
    this.#observed = observed;
    return changes;
  }
}

export interface CompareClocksOptions {
  readonly node: string;
  readonly twins: TwinBoard;
  readonly log: Log;
  readonly lookMs?: number;
}

/** Tells of twins whose clocks differ from this one, until the signal aborts (throws its reason). */
export async function compareClocks(
  { node, twins, log, lookMs = LOOK_MS }: CompareClocksOptions,
  signal: AbortSignal,
): Promise<never> {
  const clocks = new Clocks(node);
  for (;;) {
    await pause(lookMs, signal);
    try {
      for (const change of clocks.observe(await twins.read(), Date.now())) tell(change, log);
    } catch (error) {
      log.debug(`the twins' clocks could not be compared: ${messageOf(error)}`, { error });
    }
  }
}

function tell({ node, behindMs, differs }: ClockChange, log: Log): void {
  if (!differs) {
    log.info(`the clock of node ${node} agrees with this one again`);
    return;
  }
  const seconds = (Math.abs(behindMs) / 1000).toFixed(1);
  log.warn(`the clock of node ${node} is ${seconds} s ${behindMs > 0 ? 'behind' : 'ahead of'} this one`, {
    hint: 'synchronise both with NTP: restore by time, delays, retention and lag in seconds go by them',
  });
}
