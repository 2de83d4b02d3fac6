import { Wake } from './wake.ts';

/** A value of which only the newest matters: `next` waits until one is set that was not taken yet. */
export class Latest<T> {
  #value: T | null;
  readonly #wake = new Wake();

  constructor(value: T | null) {
    this.#value = value;
  }

  set(value: T): void {
    this.#value = value;
    this.#wake.nudge();
  }

  /** Throws the signal's reason when it aborts first. */
  async next(signal: AbortSignal): Promise<T> {
    for (;;) {
      signal.throwIfAborted();
      const value = this.#value;
      this.#value = null;
      if (value !== null) return value;
      await this.#wake.wait(signal);
    }
  }
}
