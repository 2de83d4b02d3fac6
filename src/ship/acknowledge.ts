import type { ChainEnd } from '../core/chain.ts';
import { comparePlaces } from '../core/keys.ts';
import { Wake } from './wake.ts';

/**
 * Up to where as many stores hold the log as the plan asks for before the source may let go of it: the primary, and so
 * many copies less one. Copies count in the open term only: an earlier term's end may be a tail that an opening took back.
 */
export class Acknowledgement {
  /** How many stores must hold a chunk. */
  readonly stores: number;
  #settled: ChainEnd | null = null;
  readonly #copies = new Map<string, ChainEnd>();
  #given: ChainEnd | null = null;
  readonly #wake = new Wake();

  constructor(stores: number) {
    this.stores = stores;
  }

  /** The primary holds the chain up to there. */
  settled(end: ChainEnd): void {
    this.#settled = end;
    this.#wake.nudge();
  }

  /** A copy does; null: nobody knows any more. */
  held(copy: string, end: ChainEnd | null): void {
    if (end) this.#copies.set(copy, end);
    else this.#copies.delete(copy);
    this.#wake.nudge();
  }

  /** Null while too few stores have reached the open term. */
  get end(): ChainEnd | null {
    const settled = this.#settled;
    if (settled === null || this.stores === 1) return settled;
    const reached = [...this.#copies.values()]
      .filter(({ term, slot }) => term === settled.term && slot > 0)
      .sort(comparePlaces)
      .at(1 - this.stores);
    if (!reached) return null;
    return comparePlaces(reached, settled) < 0 ? reached : settled;
  }

  /** Waits for an end that is further than what was given before; throws the signal's reason. One waiter at a time. */
  async next(signal: AbortSignal): Promise<ChainEnd> {
    for (;;) {
      signal.throwIfAborted();
      const { end } = this;
      if (end && (this.#given === null || comparePlaces(end, this.#given) > 0)) {
        this.#given = end;
        return end;
      }
      await this.#wake.wait(signal);
    }
  }
}
