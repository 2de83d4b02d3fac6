import { abortReason } from '../../errors.ts';
import { NoAnswer } from './errors.ts';

export interface RaceOptions {
  /** How long an attempt may stay silent before the next begins beside it, milliseconds. */
  readonly patienceMs: number;
  /** Bound on the whole, milliseconds. */
  readonly timeoutMs: number;
  /** Whether a failure leaves it to the other attempts; any other ends the race. */
  readonly givesWay: (error: unknown) => boolean;
  readonly signal: AbortSignal;
}

/** Every attempt failed, or time ran out: what each said, in order; absent where it was never begun. */
export class AllFailed extends Error {
  readonly failures: readonly unknown[];
  constructor(failures: readonly unknown[]) {
    super('every attempt failed');
    this.failures = failures;
  }
}

/**
 * Begins the attempts one after the other, the next as soon as one gives way or stays silent too long, and returns the
 * first success. A hung attempt holds up nothing.
 */
export function race<T>(attempts: readonly (() => Promise<T>)[], options: RaceOptions): Promise<T> {
  const { patienceMs, timeoutMs, givesWay, signal } = options;
  return new Promise((resolve, reject) => {
    const failures: unknown[] = [];
    let begun = 0;
    let failed = 0;
    let patience: NodeJS.Timeout | undefined;

    const end = (settle: () => void) => {
      clearTimeout(patience);
      clearTimeout(bound);
      signal.removeEventListener('abort', aborted);
      begun = attempts.length;
      settle();
    };
    const aborted = () => end(() => reject(abortReason(signal)));
    const bound = setTimeout(() => {
      for (let n = 0; n < begun; n++) failures[n] ??= new NoAnswer(`no answer within ${timeoutMs} ms`);
      end(() => reject(new AllFailed(failures)));
    }, timeoutMs);

    const begin = () => {
      clearTimeout(patience);
      const attempt = attempts[begun];
      if (!attempt) return;
      const place = begun++;
      if (begun < attempts.length) patience = setTimeout(begin, patienceMs);
      attempt().then(
        (value) => end(() => resolve(value)),
        (error: unknown) => {
          if (!givesWay(error)) return end(() => reject(error));
          failures[place] = error;
          failed++;
          if (failed === attempts.length) return end(() => reject(new AllFailed(failures)));
          return begin();
        },
      );
    };
    if (signal.aborted) return aborted();
    signal.addEventListener('abort', aborted, { once: true });
    begin();
  });
}
