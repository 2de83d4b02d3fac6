import { availableParallelism, loadavg } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../../src/errors.ts';

export interface WaitOptions {
  /** Generous by default: a deadline is there to end a broken test, not to measure. */
  readonly withinMs?: number;
  readonly everyMs?: number;
  /** Told, when the deadline passes, what stood in the way. */
  readonly describe?: () => string;
}

/**
 * Asks again and again until the answer is neither null, undefined nor false, and returns it. A failure counts as 'not
 * yet'; the last one is told when the deadline passes.
 */
export async function until<T>(
  what: string,
  ask: () => T | Promise<T>,
  { withinMs = 60_000, everyMs = 25, describe = () => '' }: WaitOptions = {},
): Promise<NonNullable<Exclude<Awaited<T>, false>>> {
  const deadlineMs = performance.now() + withinMs;
  let failure: unknown = null;
  for (;;) {
    try {
      const answer = await ask();
      if (answer !== null && answer !== undefined && answer !== false) {
        return answer as NonNullable<Exclude<Awaited<T>, false>>;
      }
      failure = null;
    } catch (error) {
      failure = error;
    }
    if (performance.now() > deadlineMs) {
      const why = [failure === null ? '' : messageOf(failure), describe()].filter((text) => text !== '').join('\n');
      throw new Error(`waited ${withinMs} ms in vain: ${what}${why && `\n${why}`}`, { cause: failure });
    }
    await delay(everyMs);
  }
}

/**
 * Prints a measured time beside its limit, and throws when it is beyond. A test file that calls this runs alone (`npm run
 * test:timed` finds it by that), and the limit is for a machine that does nothing else: where others use its processors
 * too, as the load average tells, it is stretched by as much, threefold at most.
 */
export function measured(what: string, tookMs: number, limitMs: number): void {
  withinLimit(what, tookMs, limitMs);
}

/** The same where the limit is so far from what is usual that the file may run beside others. */
export function withinLimit(what: string, tookMs: number, limitMs: number): void {
  const crowded = crowdedness();
  const figures = `${seconds(tookMs)} (at most ${seconds(limitMs)})`;
  process.stderr.write(`      measured: ${what}: ${figures}${remark(crowded)}\n`);
  if (tookMs > limitMs * crowded) throw new Error(`${what} took ${figures}${remark(crowded)}`);
}

/** The same for one speed as a share of another, measured one after the other. */
export function measuredShare(what: string, share: number, atLeast: number): void {
  const crowded = crowdedness();
  const figures = `${share.toFixed(2)} (at least ${atLeast})`;
  process.stderr.write(`      measured: ${what}: ${figures}${remark(crowded)}\n`);
  if (share < atLeast / crowded) throw new Error(`${what} was ${figures}${remark(crowded)}`);
}

const crowdedness = () => Math.min(3, Math.max(1, loadavg()[0]! / availableParallelism()));

const remark = (crowded: number) => (crowded > 1 ? `, stretched ${crowded.toFixed(1)} times on this busy machine` : '');

const seconds = (ms: number) => `${(ms / 1000).toFixed(3)} s`;
