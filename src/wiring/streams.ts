import type { Config } from '../config.ts';
import { RunningStreams } from '../ship/streams.ts';
import { type Common, type WiredStream, wireStream } from './stream.ts';

/** The streams of a daemon, as its config has them. */
export class ConfiguredStreams {
  readonly running = new RunningStreams();
  readonly #config: Config;
  readonly #common: Common;
  readonly #wired = new Map<string, WiredStream>();

  constructor(config: Config, common: Common) {
    this.#config = config;
    this.#common = common;
  }

  get names(): string[] {
    return [...this.#wired.keys()];
  }

  find(name: string): WiredStream | undefined {
    return this.#wired.get(name);
  }

  /** Puts all of them together, so that a config that can't work is told at once; `start` lets them run. */
  async wire(): Promise<void> {
    const streams = Object.values(this.#config.streams);
    for (const wired of await Promise.all(streams.map((stream) => wireStream(this.#config, stream, this.#common)))) {
      this.#wired.set(wired.stream.name, wired);
    }
  }

  start(): void {
    for (const { shipper } of this.#wired.values()) this.running.start(shipper);
  }

  /** Lets go of their logs; once all have left. */
  async close(): Promise<void> {
    await Promise.all([...this.#wired.values()].map((wired) => wired.close()));
  }
}
