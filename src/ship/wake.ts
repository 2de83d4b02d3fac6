import { abortReason } from '../errors.ts';

/** Something that a loop waits for, at most so long. A nudge that comes while nobody waits is kept. */
export class Wake {
  #nudged = false;
  #resolve: (() => void) | null = null;

  nudge(): void {
    this.#nudged = true;
    this.#resolve?.();
  }

  /** Resolves at the next nudge, or after `maxMs`; throws the signal's reason. One waiter at a time. */
  async wait(signal: AbortSignal, maxMs = Number.POSITIVE_INFINITY): Promise<void> {
    if (!this.#nudged && !signal.aborted) {
      const { promise, resolve: resume } = Promise.withResolvers<void>();
      const resolve = () => resume();
      this.#resolve = resolve;
      const timer = Number.isFinite(maxMs) ? setTimeout(resolve, maxMs) : undefined;
      signal.addEventListener('abort', resolve, { once: true });
      await promise;
      signal.removeEventListener('abort', resolve);
      clearTimeout(timer);
      this.#resolve = null;
    }
    this.#nudged = false;
    if (signal.aborted) throw abortReason(signal);
  }
}
