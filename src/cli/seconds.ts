import { InvalidArgumentError } from 'commander';

/** An option's seconds, at most a day. */
export function parseSeconds(text: string): number {
  const seconds = Number(text);
  if (seconds >= 0 && seconds <= 86_400) return seconds;
  throw new InvalidArgumentError('seconds, such as 60');
}
