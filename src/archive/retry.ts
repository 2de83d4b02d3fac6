import { setTimeout as delay } from 'node:timers/promises';
import { backoffMs } from '../core/backoff.ts';
import { abortReason, ShipmateError } from '../errors.ts';

export interface RetryOptions {
  readonly signal: AbortSignal;
  /** Told of each failure before the wait. */
  readonly onFailure?: (error: unknown, attempt: number) => void;
  readonly maxMs?: number;
  /** Which failures to try again after; all but Deposed unless told. */
  readonly again?: (error: unknown) => boolean;
}

const unlessDeposed = (error: unknown) => !(error instanceof ShipmateError && error.verdict === 'deposed');

/** Repeats `attempt` with growing waits until it succeeds, fails for good, or the signal aborts (its reason is thrown). */
export async function retry<T>(attempt: () => Promise<T>, options: RetryOptions): Promise<T> {
  const { signal, onFailure, maxMs = 5_000, again = unlessDeposed } = options;
  for (let failures = 0; ; failures++) {
    if (signal.aborted) throw abortReason(signal);
    try {
      return await attempt();
    } catch (error) {
      if (signal.aborted) throw abortReason(signal);
      if (!again(error)) throw error;
      onFailure?.(error, failures);
    }
    await pause(backoffMs(failures, { maxMs }), signal);
  }
}

/** Waits; throws the signal's reason when it aborts first. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  try {
    await delay(ms, undefined, { signal });
  } catch {
    throw abortReason(signal);
  }
}

/** The promise's outcome, or a failure when it takes longer than `ms`. */
export async function within<T>(ms: number, promise: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`took longer than ${ms} ms`)), ms);
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
