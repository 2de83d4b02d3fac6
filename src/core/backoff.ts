/** How long to wait before attempt `attempt` (from 0): doubling up to a bound, with half of it left to chance. */
export function backoffMs(attempt: number, { baseMs = 50, maxMs = 5_000, random = Math.random } = {}): number {
  const full = Math.min(maxMs, baseMs * 2 ** Math.min(attempt, 20));
  return full / 2 + (random() * full) / 2;
}
