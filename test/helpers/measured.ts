import { availableParallelism, loadavg } from 'node:os';
import { expect } from '@jest/globals';

/** In the name of each test that measures: `npm run test:timed` and `test:untimed` tell by it which run alone. */
const TIMED = '(timed)';

/**
 * Prints a measured time beside its limit, and throws when it is beyond. The limit is for a machine that does nothing else:
 * where others use its processors too, as the load average tells, it is stretched by as much, threefold at most.
 */
export function measured(what: string, tookMs: number, limitMs: number): void {
  demandAlone();
  withinLimit(what, tookMs, limitMs);
}

/** The same where the limit is so far from what is usual that the test may run beside others. */
export function withinLimit(what: string, tookMs: number, limitMs: number): void {
  const crowded = crowdedness();
  const figures = `${seconds(tookMs)} (at most ${seconds(limitMs)})`;
  process.stderr.write(`      measured: ${what}: ${figures}${remark(crowded)}\n`);
  if (tookMs > limitMs * crowded) throw new Error(`${what} took ${figures}${remark(crowded)}`);
}

/** The same as `measured` for one speed as a share of another, measured one after the other. */
export function measuredShare(what: string, share: number, atLeast: number): void {
  demandAlone();
  const crowded = crowdedness();
  const figures = `${share.toFixed(2)} (at least ${atLeast})`;
  process.stderr.write(`      measured: ${what}: ${figures}${remark(crowded)}\n`);
  if (share < atLeast / crowded) throw new Error(`${what} was ${figures}${remark(crowded)}`);
}

function demandAlone(): void {
  const { currentTestName } = expect.getState();
  if (currentTestName?.includes(TIMED)) return;
  throw new Error(`a test that measures needs ${TIMED} in its name, or it would run beside others: ${currentTestName}`);
}

const crowdedness = () => Math.min(3, Math.max(1, loadavg()[0]! / availableParallelism()));

const remark = (crowded: number) => (crowded > 1 ? `, stretched ${crowded.toFixed(1)} times on this busy machine` : '');

const seconds = (ms: number) => `${(ms / 1000).toFixed(3)} s`;
