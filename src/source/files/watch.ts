import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from '../../core/log.ts';
import { messageOf } from '../../errors.ts';
import { openTailer, type Tailer } from '../tailer.ts';
import type { Directory } from './directory.ts';

/** However much is written, names are looked at no more often. */
const LEAST_PAUSE_MS = 20;

export interface WatchOptions {
  readonly busyPollMs: number;
  readonly log: Log;
}

/**
 * Looks at a directory as soon as something happens in it, whether anybody reads or not: a twin that waits holds files
 * before they are removed, which Redis does right after a rewrite.
 */
export class Watch {
  /** Wakes readers too. */
  readonly tailer: Tailer;
  readonly #stop = new AbortController();
  readonly #looking: Promise<void>;

  constructor(directory: Directory, { busyPollMs, log }: WatchOptions) {
    // The directory's own events tell of all of its files.
    this.tailer = openTailer({ busyPollMs, match: () => false, log });
    this.tailer.follow([directory.dir]);
    this.#looking = this.#keepLooking(directory, log);
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.all([this.#looking, this.tailer.close()]);
  }

  async #keepLooking(directory: Directory, log: Log): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const mark = this.tailer.mark();
      // Whoever asks for something meets the same error, and tells.
      await directory.look().catch((error) => log.debug(`can't look at ${directory.dir}: ${messageOf(error)}`));
      await this.tailer.changed(mark, signal);
      await delay(LEAST_PAUSE_MS, undefined, { signal }).catch(() => {});
    }
  }
}
