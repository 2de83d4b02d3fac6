/**
 * An answer that is never older than its question: whoever asks while the work is under way shares the next run of it with
 * all others who do. One run at a time.
 */
export class Fresh<T> {
  readonly #work: () => Promise<T>;
  #running: Promise<T> | null = null;
  /** Not begun yet. */
  #next: Promise<T> | null = null;

  constructor(work: () => Promise<T>) {
    this.#work = work;
  }

  ask(): Promise<T> {
    if (this.#next !== null) return this.#next;
    if (this.#running === null) return this.#start();
    const again = () => {
      this.#next = null;
      return this.#start();
    };
    this.#next = this.#running.then(again, again);
    return this.#next;
  }

  /** Resolves when the run that is under way has ended, however it does. */
  async settled(): Promise<void> {
    await this.#running?.catch(() => {});
  }

  #start(): Promise<T> {
    const running = this.#work();
    const over = () => {
      this.#running = null;
    };
    // Before whatever else waits for it.
    running.then(over, over);
    this.#running = running;
    return running;
  }
}
