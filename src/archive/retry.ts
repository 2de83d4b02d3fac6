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
  /** `onFailure` is told as well, again and again, when an attempt gives no answer for so long. */
  readonly slowMs?: number;
}

/** A link may need a while for a large chunk; what takes longer hangs. */
const SLOW_MS = 30_000;

const unlessDeposed = (error: unknown) => !(error instanceof ShipmateError && error.verdict === 'deposed');

/** Repeats `attempt` with growing waits until it succeeds, fails for good, or the signal aborts (its reason is thrown). */
export async function retry<T>(attempt: () => Promise<T>, options: RetryOptions): Promise<T> {
  const { signal, onFailure, maxMs = 5_000, again = unlessDeposed, slowMs = SLOW_MS } = options;
  for (let failures = 0; ; failures++) {
    if (signal.aborted) throw abortReason(signal);
    try {
      return await answerOf(attempt(), { signal, slowMs, onSlow: (error) => onFailure?.(error, failures) });
    } catch (error) {
      if (signal.aborted) throw abortReason(signal);
      if (!again(error)) throw error;
      onFailure?.(error, failures);
    }
    await pause(backoffMs(failures, { maxMs }), signal);
  }
}

/**
 * The promise's outcome, or the signal's reason as soon as it aborts: what hangs, on a dead mount for one, can't be ended,
 * only left behind. `onSlow` is told while there is no answer, since nothing else would tell.
 */
export async function answerOf<T>(
  promise: Promise<T>,
  { signal, onSlow, slowMs = SLOW_MS }: { signal: AbortSignal; onSlow: (error: Error) => void; slowMs?: number },
): Promise<T> {
  const { promise: left, reject } = Promise.withResolvers<never>();
  const leave = () => reject(abortReason(signal));
  const slow = setInterval(() => onSlow(noAnswer(slowMs)), slowMs);
  if (signal.aborted) leave();
  signal.addEventListener('abort', leave, { once: true });
  try {
    return await Promise.race([promise, left]);
  } finally {
    clearInterval(slow);
    signal.removeEventListener('abort', leave);
  }
}

function noAnswer(slowMs: number): ShipmateError {
  return new ShipmateError(`no answer for ${slowMs / 1_000} s or longer`, {
    code: 'NO_ANSWER',
    verdict: 'retry',
    hint: 'a mount, a disk or a link hangs: look at it; what is stuck in it goes on when it does',
  });
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
  const timer = setTimeout(() => reject(new Error(`no answer within ${ms / 1000} s`)), ms);
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
