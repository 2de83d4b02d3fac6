import { once } from 'node:events';
import { within } from '../archive/retry.ts';
import type { StreamShipper } from './stream.ts';

interface Running {
  readonly shipper: StreamShipper;
  readonly leaving: AbortController;
  readonly ended: Promise<void>;
}

export interface StartOptions {
  /** Told when the stream has failed for good; without it that ends all of them. */
  readonly onFailure?: (error: unknown) => void;
}

/** The streams of one daemon: each comes and goes by itself while the others go on. */
export class RunningStreams {
  readonly #running = new Map<string, Running>();
  readonly #failed = new AbortController();
  #ended = false;

  /** Of those that run, and those that are leaving. */
  get shippers(): StreamShipper[] {
    return [...this.#running.values()].map(({ shipper }) => shipper);
  }

  /** Names of those that only a new start of the daemon helps; to be asked a few times a minute. */
  stuck(): string[] {
    return this.shippers.filter((shipper) => shipper.isStuck()).map(({ name }) => name);
  }

  /** Names of those that have failed for good, or did not leave in time. */
  stopped(): string[] {
    return [...this.#running.values()]
      .filter(({ leaving }) => leaving.signal.aborted)
      .map(({ shipper }) => shipper.name);
  }

  /** Runs the stream from now on; where all of them have been told to leave, that is too late, and nothing happens. */
  start(shipper: StreamShipper, { onFailure = (error) => this.#failed.abort(error) }: StartOptions = {}): void {
    if (this.#ended) return;
    const leaving = new AbortController();
    const ended = shipper.run(leaving.signal).catch((error) => {
      leaving.abort(error); // ends what goes on beside its role
      onFailure(error);
    });
    this.#running.set(shipper.name, { shipper, leaving, ended });
  }

  /**
   * Lets one stream leave in order: what it led is a twin's. Throws where that takes longer; then it stays, as one that has
   * stopped, and can be told again.
   */
  async leave(name: string, { withinMs }: { readonly withinMs: number }): Promise<void> {
    await within(withinMs, this.#end(name));
    this.#running.get(name)?.shipper.retire();
    this.#running.delete(name);
  }

  /** Resolves once all have left in order, which begins when the signal aborts or one has failed for good (thrown). */
  async untilEnded(signal: AbortSignal): Promise<void> {
    const ending = AbortSignal.any([signal, this.#failed.signal]);
    if (!ending.aborted) await once(ending, 'abort');
    this.#ended = true;
    await Promise.all([...this.#running.keys()].map((name) => this.#end(name)));
    if (this.#failed.signal.aborted) throw this.#failed.signal.reason;
  }

  async #end(name: string): Promise<void> {
    const running = this.#running.get(name);
    running?.leaving.abort(new Error('the stream was told to leave'));
    await running?.ended;
  }
}
