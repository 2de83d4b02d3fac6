import { abortReason } from '../errors.ts';

/** A value of which only the newest matters: `next` waits until one is set that was not taken yet. */
export class Latest<T> {
  #value: T | null;
  #set = Promise.withResolvers<void>();

  constructor(value: T | null) {
    this.#value = value;
  }

  set(value: T): void {
    this.#value = value;
    this.#set.resolve();
  }

  /** Throws the signal's reason when it aborts first. */
  async next(signal: AbortSignal): Promise<T> {
    for (;;) {
      if (signal.aborted) throw abortReason(signal);
      const value = this.#value;
      if (value !== null) {
        this.#value = null;
        return value;
      }
      this.#set = Promise.withResolvers();
      const wake = () => this.#set.resolve();
      signal.addEventListener('abort', wake, { once: true });
      await this.#set.promise;
      signal.removeEventListener('abort', wake);
    }
  }
}
