import { type Log, type LogFields, redact } from '../core/log.ts';
import { messageOf, ShipmateError } from '../errors.ts';
import type { Alarm, StreamMetrics } from '../metrics.ts';

export type Part = Extract<Alarm, 'store' | 'source' | 'coordination' | 'acknowledge' | 'archive' | 'readiness'>;

interface Standing {
  /** What tells it from another trouble of this part: an error's code, if it has one. */
  readonly kind: string;
  readonly message: string;
  readonly sinceMs: number;
  /** When it was reported last, and logged last. */
  readonly lastMs: number;
  readonly loggedAtMs: number;
}

/**
 * What does not work right now, part by part: logged when it begins, every half minute while it lasts, and when it is
 * over; on the metrics as long as it stands. So a failure that is retried for an hour is neither silent nor a flood.
 */
export class Trouble {
  readonly #log: Log;
  readonly #metrics: StreamMetrics;
  readonly #standing = new Map<Part, Standing>();

  constructor({ log, metrics }: { log: Log; metrics: StreamMetrics }) {
    this.#log = log;
    this.#metrics = metrics;
  }

  report(part: Part, error: unknown): void {
    const nowMs = performance.now();
    const message = redact(messageOf(error)); // it is shown to all who may look
    const known = this.#standing.get(part);
    // Messages may name an object or a temporary file, each attempt's another.
    const kind = error instanceof ShipmateError ? error.code : message;
    const isNews = known?.kind !== kind || nowMs - known.loggedAtMs >= REPEAT_MS;
    if (isNews) this.#log.warn(`${part}: ${message}`, factsOf(error));
    this.#standing.set(part, {
      kind,
      message,
      sinceMs: known?.sinceMs ?? nowMs,
      lastMs: nowMs,
      loggedAtMs: isNews ? nowMs : known.loggedAtMs,
    });
    this.#metrics.alarm(part, true);
  }

  /** `report` for one part, in the shape that `retry` takes. */
  reporter(part: Part): (error: unknown) => void {
    return (error) => this.report(part, error);
  }

  /** `quietMs`: only if it was not reported again for so long. */
  clear(part: Part, { quietMs = 0 } = {}): void {
    const known = this.#standing.get(part);
    if (!known || performance.now() - known.lastMs < quietMs) return;
    this.#standing.delete(part);
    this.#metrics.alarm(part, false);
    const seconds = Math.round((performance.now() - known.sinceMs) / 1000);
    this.#log.info(`${part}: works again after ${seconds} s`);
  }

  /** One line for each part that does not work, for /readyz. */
  standing(): string[] {
    return [...this.#standing].map(([part, { message }]) => `${part}: ${message}`);
  }
}

/** What the message does not say already, as fields of a log line. */
export function factsOf(error: unknown): LogFields {
  if (!(error instanceof ShipmateError)) return { error };
  const { code, hint, cause } = error;
  return { code, ...(hint && { hint }), ...(cause !== undefined && { cause: messageOf(cause) }) };
}

const REPEAT_MS = 30_000;
