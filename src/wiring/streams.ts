import { within } from '../archive/retry.ts';
import { type StreamChanges, streamChanges } from '../config/reload.ts';
import { type Config, streamOf } from '../config.ts';
import { messageOf, ShipmateError } from '../errors.ts';
import { RunningStreams } from '../ship/streams.ts';
import { type Common, demandUsable, type WiredStream, wireStream } from './stream.ts';

/** A source that hangs in a dead mount is left behind. */
const CLOSE_MS = 5_000;

/** The streams of a daemon, as its config has them. */
export class ConfiguredStreams {
  readonly running = new RunningStreams();
  #config: Config;
  readonly #common: Common;
  readonly #wired = new Map<string, WiredStream>();

  constructor(config: Config, common: Common) {
    this.#config = config;
    this.#common = common;
  }

  get config(): Config {
    return this.#config;
  }

  find(name: string): WiredStream | undefined {
    return this.#wired.get(name);
  }

  /** Starts all of them; whatever fails for good later ends them all. */
  start(): void {
    for (const name of Object.keys(this.#config.streams)) this.running.start(this.#wire(name).shipper);
  }

  /**
   * Goes over to another config: streams that differ leave in order, and come back alone; the others do not notice. Throws,
   * with nothing changed, where one of them can't work. One that fails for good later stops alone.
   */
  async change(next: Config): Promise<StreamChanges> {
    const changes = streamChanges(this.#config, next);
    const { added, removed, changed } = changes;
    await Promise.all([...added, ...changed].map((name) => demandUsable(next, streamOf(next, name))));
    this.#config = next;
    await Promise.all([
      ...removed.map((name) => this.#leave(name)),
      ...added.map((name) => this.#startAlone(name)),
      ...changed.map((name) => this.#leave(name).then(() => this.#startAlone(name))),
    ]);
    return changes;
  }

  /** Lets go of their logs; once all have left. */
  async close(): Promise<void> {
    await Promise.all([...this.#wired.values()].map((wired) => wired.close()));
  }

  #wire(name: string): WiredStream {
    const wired = wireStream(this.#config, name, this.#common, () => this.#config);
    this.#wired.set(name, wired);
    return wired;
  }

  #startAlone(name: string): void {
    const log = this.#common.log.child({ stream: name });
    this.running.start(this.#wire(name).shipper, {
      onFailure(error) {
        const hint = error instanceof ShipmateError ? error.hint : undefined;
        log.error(`the stream has stopped, the others go on: ${messageOf(error)}`, { hint, error });
      },
    });
  }

  async #leave(name: string): Promise<void> {
    await this.running.leave(name);
    const wired = this.#wired.get(name);
    this.#wired.delete(name);
    await within(CLOSE_MS, wired?.close() ?? Promise.resolve()).catch((error) => {
      this.#common.log.warn(`the log of stream ${name} can't be let go of: ${messageOf(error)}`);
    });
    await this.#common.metrics.forget(name);
  }
}
