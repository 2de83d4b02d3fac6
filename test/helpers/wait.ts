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
