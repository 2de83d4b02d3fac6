import { within } from '../archive/retry.ts';
import { type StreamChanges, streamChanges } from '../config/reload.ts';
import { type Config, streamOf } from '../config.ts';
import { messageOf } from '../errors.ts';
import { RunningStreams } from '../ship/streams.ts';
import { factsOf } from '../ship/trouble.ts';
import { type Common, demandUsable, type WiredStream, wireStream } from './stream.ts';

/** What hangs in a dead mount is left behind. */
const LEAVE_MS = 30_000;
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
   * Goes over to another config: streams that differ leave in order, and come back alone; so do those that have stopped; the
   * others do not notice. Throws, with nothing changed, where one of them can't work. One that fails for good later stops
   * alone.
   */
  async change(next: Config): Promise<StreamChanges> {
    const { added, removed, changed: differing } = streamChanges(this.#config, next);
    const stopped = this.running.stopped();
    const gone = new Set([...removed, ...stopped.filter((name) => !Object.hasOwn(next.streams, name))]);
    const come = stopped.filter((name) => Object.hasOwn(next.streams, name) && !added.includes(name));
    const changed = [...new Set([...differing, ...come])];
    await Promise.all([...added, ...changed].map((name) => demandUsable(next, streamOf(next, name))));
    this.#config = next;
    await Promise.all([
      ...[...gone].map((name) => this.#leave(name)),
      // One that is added may have been removed before, and still hang.
      ...[...added, ...changed].map(async (name) => (await this.#leave(name)) && this.#startAlone(name)),
    ]);
    return { added, removed, changed };
  }

  /** Lets go of their logs; once all have left. */
  async close(): Promise<void> {
    await Promise.all([...this.#wired.values()].map((wired) => wired.close()));
  }

  #wire(name: string, common = this.#common): WiredStream {
    const wired = wireStream(this.#config, name, common, () => this.#config);
    this.#wired.set(name, wired);
    return wired;
  }

  #startAlone(name: string): void {
    const log = this.#common.log.child({ stream: name });
    // What an operator forced at the start was meant for what was there then; and twins may be told to reload one by one.
    const { shipper } = this.#wire(name, { ...this.#common, force: false, agreeWithinMs: Number.POSITIVE_INFINITY });
    this.running.start(shipper, {
      onFailure(error) {
        log.error(`the stream has stopped, the others go on: ${messageOf(error)}`, factsOf(error));
      },
    });
  }

  /** False where it does not leave. */
  async #leave(name: string): Promise<boolean> {
    const { metrics, log } = this.#common;
    try {
      await this.running.leave(name, { withinMs: LEAVE_MS });
    } catch {
      log.error(`stream ${name} was told to leave, and hangs`, {
        hint: 'reload the config once more when what it hangs in answers again, or restart the daemon',
      });
      return false;
    }
    const wired = this.#wired.get(name);
    this.#wired.delete(name);
    await within(CLOSE_MS, wired?.close() ?? Promise.resolve()).catch((error) => {
      log.warn(`the log of stream ${name} can't be let go of: ${messageOf(error)}`);
    });
    await metrics.forget(name);
    return true;
  }
}
