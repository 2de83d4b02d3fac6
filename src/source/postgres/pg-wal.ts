import { type FileHandle, open, readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { codeOf } from '../../errors.ts';
import { digestRange } from '../held-file.ts';
import type { Witness } from '../source.ts';
import { noHistory, unreadable } from './errors.ts';
import { type Cluster, Descent } from './timelines.ts';
import { historyName, parseWalName } from './wal-name.ts';

/** The files of a server's pg_wal. */
export class PgWal {
  readonly dir: string;
  #known: { key: string; descent: Descent } | null = null;

  /** `dir`: the data directory. */
  constructor(dir: string) {
    this.dir = join(dir, 'pg_wal');
  }

  /** The history of a timeline, by its file here. Throws SOURCE_NO_HISTORY. */
  async descentOf(cluster: Cluster, timeline: number): Promise<Descent> {
    if (timeline === 1) return new Descent(cluster, timeline, null);
    const path = join(this.dir, historyName(timeline));
    try {
      const { ino, size, mtimeMs, ctimeMs } = await stat(path);
      const key = [cluster.systemId, cluster.segmentBytes, timeline, ino, size, mtimeMs, ctimeMs].join(' ');
      if (this.#known?.key !== key) {
        this.#known = { key, descent: new Descent(cluster, timeline, await readFile(path)) };
      }
      return this.#known.descent;
    } catch (error) {
      throw noHistory(path, error);
    }
  }

  /** The names of the segments that are here; some are of the future: files that were recycled. */
  async segments(): Promise<ReadonlySet<string>> {
    const names = await readdir(this.dir).catch((error) => {
      throw unreadable(this.dir, error);
    });
    return new Set(names.filter((name) => parseWalName(name)?.kind === 'segment'));
  }

  /** Null where no such file is here. Whoever opens it closes it. */
  async open(name: string): Promise<SegmentFile | null> {
    const path = join(this.dir, name);
    try {
      return new SegmentFile(path, await open(path));
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return null;
      throw unreadable(path, error);
    }
  }

  async use<T>(name: string, work: (file: SegmentFile) => Promise<T>): Promise<T | null> {
    const file = await this.open(name);
    if (!file) return null;
    try {
      return await work(file);
    } finally {
      await file.close();
    }
  }

  /** Whether a chunk's bytes are here; null where its file is not, or no longer. */
  async has(chunk: Witness): Promise<boolean | null> {
    return this.use(chunk.from.segment, async (file) => {
      const found = await file.digest(chunk.from.offset, chunk.length);
      return (await file.isInPlace()) ? chunk.matches(found) : null;
    });
  }
}

/** One segment, by its descriptor: it is the same file whatever happens to its name. */
export class SegmentFile {
  readonly path: string;
  readonly #handle: FileHandle;

  constructor(path: string, handle: FileHandle) {
    this.path = path;
    this.#handle = handle;
  }

  /** Reads into the buffer's first `length` bytes, from `offset` of the file; returns bytes read. */
  async read(buffer: Buffer, length: number, offset: number): Promise<number> {
    let done = 0;
    while (done < length) {
      const { bytesRead } = await this.#handle.read(buffer, done, length - done, offset + done).catch((error) => {
        throw unreadable(this.path, error);
      });
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return done;
  }

  /**
   * Whether the file has its name still. If so, what was read before is of that segment; else it may be that of another,
   * for which the server uses the file again.
   */
  async isInPlace(): Promise<boolean> {
    const own = await this.#handle.stat();
    const there = await stat(this.path).catch(() => null);
    return there?.ino === own.ino && there.dev === own.dev;
  }

  async modifiedMs(): Promise<number> {
    return (await this.#handle.stat()).mtimeMs;
  }

  /** The witness of a range; null when the file does not reach that far. */
  digest(offset: number, length: number): Promise<string | null> {
    return digestRange((buffer, count, from) => this.read(buffer, count, from), offset, length);
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}
