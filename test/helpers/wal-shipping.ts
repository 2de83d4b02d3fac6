import { Discontinuity } from '../../src/errors.ts';
import type { Located, LogSource } from '../../src/source/source.ts';
import type { Shipping } from '../contract/source-shipping.ts';

/**
 * One twin's reign as long as it has more to ship: a term after the other, each where `locate` says. Returns the answers
 * by which it went on; the last one is not allowed where it could not.
 */
export async function reign(source: LogSource, shipping: Shipping): Promise<Located[]> {
  const answers: Located[] = [];
  for (;;) {
    const located = await source.locate(shipping.head());
    answers.push(located);
    if (!located.allowed) return answers;
    shipping.open(located);
    try {
      await shipping.ship(source);
      return answers;
    } catch (error) {
      if (!(error instanceof Discontinuity)) throw error;
    }
  }
}
