import type { Log } from '../core/log.ts';
import type { Position } from '../core/position.ts';
import { abortReason } from '../errors.ts';
import { Directory } from './files/directory.ts';
import type { LogFile } from './files/file.ts';
import { inspectFiles } from './files/inspect.ts';
import { type LayoutOptions, layoutOf } from './files/layout.ts';
import { locate } from './files/locate.ts';
import { idText } from './files/names.ts';
import { startOf } from './files/place.ts';
import { FilesReader } from './files/reader.ts';
import { Watch } from './files/watch.ts';
import type { Backlog, LogSource } from './source.ts';

export interface FilesSourceOptions extends LayoutOptions {
  /** The stream's name, for messages. */
  readonly stream: string;
  readonly dir: string;
  /** Whether the twins see the same directory. */
  readonly shared: boolean;
  /** Whose files they are, where they are not shared. */
  readonly node: string;
  /** How often to look for new bytes while the log is busy. */
  readonly busyPollMs: number;
  /** The longest slice; 1 MiB by default. */
  readonly maxSliceBytes?: number;
  readonly log: Log;
}

/** A source with what files alone have to tell. */
export interface FilesSource extends LogSource {
  /** Disk space of removed files that only our descriptors keep, until their bytes are acknowledged. */
  heldBytes(): number;
}

const DEFAULT_SLICE_BYTES = 1 << 20;

/** Append-only files of one directory, one after the other. Opens nothing before it is asked. */
export function openFilesSource(options: FilesSourceOptions): FilesSource {
  const { stream, dir, match, shared, node, busyPollMs, log } = options;
  const maxSliceBytes = options.maxSliceBytes ?? DEFAULT_SLICE_BYTES;
  const directory = new Directory(dir, layoutOf(options));
  const origin = shared ? 'files' : `files-${node}`;

  let watch: Watch | null = null;
  const watched = () => {
    watch ??= new Watch(directory, { busyPollMs, log });
    return watch;
  };

  /** The position's file, or the oldest. */
  const fileOf = async (position: Position | null): Promise<LogFile | undefined> => {
    if (position && position.origin !== origin) return undefined;
    return (position && (await directory.candidates(position))[0]) ?? directory.oldest;
  };

  return {
    identity: async () => ({ type: 'files', name: origin }),

    async locate(head) {
      await directory.look();
      return locate({ directory, origin }, head);
    },

    async *read(from, signal) {
      if (signal.aborted) throw abortReason(signal);
      const { tailer } = watched();
      yield* new FilesReader({ stream, origin, directory, tailer, maxSliceBytes }, signal).read(from);
    },

    async end() {
      await directory.look();
      const newest = directory.files.findLast(({ size }) => size > 0);
      if (!newest) return null;
      const start = await startOf(directory, origin, newest);
      return { ...start, offset: newest.size, id: idText(start.segment, newest.size) };
    },

    async backlog(from) {
      await directory.look();
      const file = await fileOf(from);
      if (!file) return NOTHING;
      await directory.holdToo(file);
      const isHere = from !== null && file.size >= from.offset && (await file.begins(from.incarnation));
      return backlogOf(directory.from(file), isHere ? from.offset : 0);
    },

    async acknowledge(upTo) {
      watched();
      const file = await fileOf(upTo);
      if (file) await directory.holdFrom(file);
    },

    inspect: () => inspectFiles({ directory, match, isRedis: options.layout === 'redis-aof', shared, node }),
    heldBytes: () => directory.heldBytes,
    async close() {
      await watch?.close();
      await directory.close();
    },
  };
}

const NOTHING: Backlog = { bytes: 0, oldestMs: null };

function backlogOf(files: readonly LogFile[], offset: number): Backlog {
  const bytes = files.reduce((sum, { size }) => sum + size, 0) - offset;
  if (bytes <= 0) return NOTHING;
  const [first, ...later] = files;
  if (offset < first!.size) return { bytes, oldestMs: first!.writtenMs(offset) };
  return { bytes, oldestMs: later.find(({ size }) => size > 0)!.writtenMs(0) };
}
