import { basename } from 'node:path';
import { type FSWatcher, watch } from 'chokidar';
import type { Log } from '../core/log.ts';
import { messageOf } from '../errors.ts';

const IDLE_POLL_MS = 1000;

export interface TailerOptions {
  /** How often to look while the log is busy, however quiet the watcher is. */
  readonly busyPollMs: number;
  /** How often when nothing has happened for this long. */
  readonly idlePollMs?: number;
  /** Within watched directories, only files with such names count. */
  readonly match?: (name: string) => boolean;
  readonly log: Log;
}

/**
 * Wakes whoever follows files. A wake-up is a hint and may come for nothing, and the kernel drops some: look at the files
 * again after each; some come by the clock alone.
 */
export interface Tailer {
  /** Watches these files and directories (not what is below those), and no others. */
  follow(paths: readonly string[]): void;
  /** A mark to take before looking at the files, so that no change falls between the look and the wait. */
  mark(): number;
  /** Resolves at the first hint after the mark, at the next poll, or when the signal aborts. */
  changed(mark: number, signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

export function openTailer({ busyPollMs, idlePollMs = IDLE_POLL_MS, match, log }: TailerOptions): Tailer {
  const waiting = new Set<() => void>();
  let hints = 0;
  let lastHintMs = Number.NEGATIVE_INFINITY;

  const wake = () => {
    hints++;
    lastHintMs = performance.now();
    for (const done of [...waiting]) done();
  };

  // One for each path: a watcher remembers for ever what it no longer watches, and looks through all of that again and again.
  const watchers = new Map<string, FSWatcher>();
  const startWatching = (path: string) => {
    const watcher = watch(path, {
      ignoreInitial: true,
      depth: 0,
      ignored: (name, stats) => match !== undefined && stats?.isFile() === true && !match(basename(name)),
    });
    watcher.on('all', wake);
    // Of several changes within 50 ms chokidar reports the first alone; the kernel's own events come each, and at once.
    watcher.on('raw', wake);
    watcher.on('error', (error) => log.debug('file watcher: relying on polls', { error: messageOf(error) }));
    watchers.set(path, watcher);
  };
  const stopWatching = async (path: string) => {
    const watcher = watchers.get(path);
    watchers.delete(path);
    await watcher?.close();
  };

  return {
    follow(paths) {
      const wanted = new Set(paths);
      for (const path of wanted) if (!watchers.has(path)) startWatching(path);
      for (const path of watchers.keys()) if (!wanted.has(path)) void stopWatching(path);
      // Until the watcher has begun, polls alone see changes.
      lastHintMs = performance.now();
    },

    mark: () => hints,

    changed: (mark, signal) =>
      new Promise((resolve) => {
        const isBusy = performance.now() - lastHintMs < idlePollMs;
        const poll = setTimeout(done, isBusy ? Math.min(busyPollMs, idlePollMs) : idlePollMs);
        function done(): void {
          clearTimeout(poll);
          waiting.delete(done);
          signal.removeEventListener('abort', done);
          resolve();
        }
        waiting.add(done);
        signal.addEventListener('abort', done);
        if (hints !== mark || signal.aborted) done();
      }),

    async close() {
      wake();
      await Promise.all([...watchers.keys()].map(stopWatching));
    },
  };
}
