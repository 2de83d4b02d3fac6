import { pause } from '../archive/retry.ts';
import type { Log } from '../core/log.ts';
import type { Standing } from '../ship/stream.ts';
import type { Notification, Notifier } from './notifier.ts';
import { statusText } from './status-text.ts';

/** The daemon, as its service manager sees it. */
export interface Attended {
  standing(): readonly Standing[];
  isTried(): boolean;
  stuck(): readonly string[];
}

export interface ServiceOptions {
  readonly daemon: Attended;
  readonly notifier: Notifier;
  readonly log: Log;
  /** Monotonic, milliseconds. */
  readonly nowMs?: () => number;
}

/** The daemon counts as started after so long, whatever its streams still wait for. */
const READY_MS = 10_000;
const LOOK_MS = 1_000;

/**
 * What systemd is told: that the daemon is ready once every stream has a role or knows why not, how its streams stand, and
 * that it is alive: this loop runs, and no stream is stuck.
 */
export class Service {
  readonly #daemon: Attended;
  readonly #notifier: Notifier;
  readonly #log: Log;
  readonly #nowMs: () => number;
  #refused: string | null = null;
  #status = '';
  #aliveAtMs = Number.NEGATIVE_INFINITY;
  #toldStuck = '';

  constructor({ daemon, notifier, log, nowMs = () => performance.now() }: ServiceOptions) {
    this.#daemon = daemon;
    this.#notifier = notifier;
    this.#log = log;
    this.#nowMs = nowMs;
  }

  /** Until the signal aborts (throws its reason). */
  async attend(signal: AbortSignal): Promise<never> {
    const { watchdogMs } = this.#notifier;
    const lookMs = Math.min(LOOK_MS, (watchdogMs ?? LOOK_MS) / 6);
    const lateMs = this.#nowMs() + READY_MS;
    while (!this.#daemon.isTried() && this.#nowMs() < lateMs) await pause(lookMs, signal);
    await this.#tell({ READY: '1', ...this.#news() });
    for (;;) {
      await pause(lookMs, signal);
      await this.#tell(this.#news());
    }
  }

  async reloading(): Promise<void> {
    const microseconds = process.hrtime.bigint() / 1_000n; // of CLOCK_MONOTONIC, which systemd compares
    await this.#tell({ RELOADING: '1', MONOTONIC_USEC: String(microseconds) });
  }

  /** `refused`: why the old config is in force still. */
  async reloaded(refused: string | null): Promise<void> {
    this.#refused = refused;
    await this.#tell({ READY: '1', ...this.#news() });
  }

  async stopping(): Promise<void> {
    await this.#tell({ STOPPING: '1', STATUS: 'leaving' });
  }

  async #tell(notification: Notification): Promise<void> {
    if (Object.keys(notification).length > 0) await this.#notifier.tell(notification);
  }

  /** What has changed in a line of text, and the sign of life where it is due. */
  #news(): Notification {
    const status = statusText(this.#daemon.standing(), this.#refused);
    const hasChanged = status !== this.#status;
    this.#status = status;
    return { ...(hasChanged && { STATUS: status }), ...(this.#isLifeDue() && { WATCHDOG: '1' }) };
  }

  /** Three times within what systemd waits for: a busy machine may be late twice. */
  #isLifeDue(): boolean {
    const { watchdogMs } = this.#notifier;
    const stuck = this.#daemon.stuck();
    const nowMs = this.#nowMs();
    this.#tellStuck(stuck.join(', '));
    if (watchdogMs === null || stuck.length > 0 || nowMs - this.#aliveAtMs < watchdogMs / 3) return false;
    this.#aliveAtMs = nowMs;
    return true;
  }

  #tellStuck(stuck: string): void {
    if (stuck !== '' && stuck !== this.#toldStuck) {
      this.#log.error(`stuck, for minutes and for no reason that is known: ${stuck}`, {
        hint: 'a fault of shipmate itself: systemd is told no more that it is alive, and starts it anew',
      });
    }
    this.#toldStuck = stuck;
  }
}
