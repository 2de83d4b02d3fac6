import { randomBytes } from 'node:crypto';
import { type FileHandle, link, open, readdir, stat, statfs, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { abortReason, codeOf } from '../errors.ts';
import { DurableDirectories, giveToOwner, syncDirectory, unlessCode } from './file-directories.ts';
import { fileStoreError, isSystemError, noHardLinks } from './file-errors.ts';
import { infoOf, isAbsent, listFiles } from './file-listing.ts';
import { FileRoot } from './file-root.ts';
import { checkKey, checkPrefix, clip, notFound, RESERVED } from './keys.ts';
import type { ByteRange, Capacity, ObjectInfo, ObjectStore } from './store.ts';

export interface FileStoreOptions {
  /** In the config. */
  readonly name: string;
  /** The root: a directory that exists. It is never created; while it is missing, every operation fails with STORE_DOWN. */
  readonly path: string;
  /** Directories below the root that all keys are under; made with the first object. */
  readonly prefix?: string;
}

/** A directory on a local or network file system that has POSIX semantics: docs/stores.md says what is assumed of it. */
export function openFileStore(options: FileStoreOptions): ObjectStore {
  return new FileStore(options);
}

const TEMPORARY = `${RESERVED}tmp`;
/** A writer takes seconds. One that was stopped for longer than this finds its file gone, fails, and tries again. */
const ABANDONED_AFTER_MS = 3_600_000;
const READ_PIECE_BYTES = 256 * 1024;
const DELETE_BATCH = 64;
/** What `link` says where there are no hard links. */
const NO_LINKS = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK']);

class FileStore implements ObjectStore {
  readonly name: string;
  readonly #path: string;
  readonly #base: string;
  readonly #temporary: string;
  readonly #root: FileRoot;
  readonly #directories: DurableDirectories;
  #swept: Promise<void> | null = null;

  constructor({ name, path, prefix = '' }: FileStoreOptions) {
    if (prefix !== '') checkKey(prefix);
    this.name = name;
    this.#path = path;
    this.#base = join(path, prefix);
    this.#temporary = join(this.#base, TEMPORARY);
    this.#root = new FileRoot(name, path);
    this.#directories = new DurableDirectories(path);
  }

  /**
   * The object's bytes are durable before it gets its name, and its name is before this returns: whoever hears `created`
   * or `exists` can rely on the whole object, whatever loses power.
   */
  async create(key: string, body: Uint8Array | (() => Readable), signal: AbortSignal): Promise<'created' | 'exists'> {
    const path = this.#pathOf(key);
    const work = async () => {
      await this.#root.check();
      signal.throwIfAborted();
      await this.#directories.ensure(dirname(path));
      const found = await infoOf(this.#base, key);
      const outcome = found ? 'exists' : await this.#place(path, body, signal);
      // Also for one that exists: its writer may have died before it came to this.
      await syncDirectory(dirname(path));
      await this.#root.check();
      this.#root.saw(path);
      return outcome;
    };
    return this.#attempt(`create ${key}`, work, signal);
  }

  async read(key: string, range: ByteRange = { start: 0 }): Promise<Readable> {
    return this.#attempt(`read ${key}`, async () => {
      const handle = await this.#open(key);
      try {
        const { start, end } = clip(range, (await handle.stat()).size);
        return streamOf(handle, start, end, (error) => fileStoreError(this.name, `read ${key}`, error));
      } catch (error) {
        await handle.close();
        throw error;
      }
    });
  }

  async readStart(key: string, maxBytes: number): Promise<Buffer> {
    return this.#attempt(`read ${key}`, async () => {
      const handle = await this.#open(key);
      try {
        return await readFully(handle, maxBytes);
      } finally {
        await handle.close();
      }
    });
  }

  async head(key: string): Promise<ObjectInfo | null> {
    const path = this.#pathOf(key);
    return this.#attempt(`look for ${key}`, async () => {
      await this.#root.check();
      const info = await infoOf(this.#base, key);
      if (info) this.#root.saw(path);
      else await this.#root.check(); // absent, and not because a mount was lost meanwhile
      return info;
    });
  }

  async *list(prefix: string, from: { after?: string; delimiter?: '/' } = {}): AsyncIterable<ObjectInfo> {
    checkPrefix(prefix);
    await this.#root.check();
    try {
      yield* listFiles(this.#base, { prefix, ...from });
    } catch (error) {
      throw isSystemError(error) ? fileStoreError(this.name, `list ${prefix}`, error) : error;
    }
    await this.#root.check();
  }

  async delete(keys: readonly string[]): Promise<void> {
    const paths = keys.map((key) => this.#pathOf(key));
    return this.#attempt(`delete ${keys[0]} and ${keys.length - 1} more`, async () => {
      await this.#root.check();
      for (let at = 0; at < paths.length; at += DELETE_BATCH) {
        await Promise.all(paths.slice(at, at + DELETE_BATCH).map((path) => this.#remove(path)));
      }
      await this.#root.check();
    });
  }

  async capacity(): Promise<Capacity | null> {
    return this.#attempt('ask for free space', async () => {
      await this.#root.check();
      const { bavail, blocks, bsize } = await statfs(this.#path);
      return { freeBytes: bavail * bsize, totalBytes: blocks * bsize };
    });
  }

  /** Makes the object appear under its name, whole; not yet durable there. */
  async #place(path: string, body: Uint8Array | (() => Readable), signal: AbortSignal): Promise<'created' | 'exists'> {
    await this.#directories.ensure(this.#temporary);
    const temporary = join(this.#temporary, `${process.pid}-${randomBytes(8).toString('hex')}`);
    try {
      await this.#write(temporary, body, signal);
      this.#swept ??= this.#sweep(temporary);
      await this.#swept;
      signal.throwIfAborted();
      return await this.#link(temporary, path);
    } finally {
      await unlink(temporary).catch(() => {}); // swept by a later process
    }
  }

  async #write(temporary: string, body: Uint8Array | (() => Readable), signal: AbortSignal): Promise<void> {
    const handle = await open(temporary, 'wx', 0o644);
    try {
      await giveToOwner(this.#path, (uid, gid) => handle.chown(uid, gid));
      await handle.writeFile(typeof body === 'function' ? body() : body, { signal });
      await handle.sync();
    } finally {
      await handle.close();
    }
  }

  async #link(temporary: string, path: string): Promise<'created' | 'exists'> {
    try {
      await link(temporary, path);
      return 'created';
    } catch (error) {
      const code = codeOf(error) ?? '';
      if (NO_LINKS.has(code)) throw noHardLinks(this.name, this.#path, error);
      if (code !== 'EEXIST') throw error;
      // NFS: a first try, whose answer was lost, may have made the very name that the second one finds.
      return (await stat(temporary)).nlink > 1 ? 'created' : 'exists';
    }
  }

  /** Removes what crashed writers left, by the age that the store's own clock gives it. Once in a process's life. */
  async #sweep(justWritten: string): Promise<void> {
    try {
      const { mtimeMs: nowMs } = await stat(justWritten);
      for (const name of await readdir(this.#temporary)) {
        const path = join(this.#temporary, name);
        const { mtimeMs } = await stat(path);
        if (nowMs - mtimeMs > ABANDONED_AFTER_MS) await unlink(path);
      }
    } catch {
      // Another process sweeps too, or may not: nothing depends on it.
    }
  }

  async #open(key: string): Promise<FileHandle> {
    const path = this.#pathOf(key);
    await this.#root.check();
    try {
      const handle = await open(path, 'r');
      this.#root.saw(path);
      return handle;
    } catch (error) {
      if (!isAbsent(error)) throw error;
      await this.#root.check();
      throw notFound(this.name, key);
    }
  }

  async #remove(path: string): Promise<void> {
    this.#root.forget(path);
    await unlink(path).catch(unlessCode('ENOENT'));
  }

  #pathOf(key: string): string {
    checkKey(key);
    return join(this.#base, key);
  }

  async #attempt<T>(action: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (signal?.aborted) throw abortReason(signal);
      if (isAbsent(error)) {
        // A directory went from under it: somebody's cleaning, or the whole root.
        this.#directories.forget();
        await this.#root.check();
      }
      throw isSystemError(error) ? fileStoreError(this.name, action, error) : error;
    }
  }
}

async function readFully(handle: FileHandle, maxBytes: number): Promise<Buffer> {
  const start = Buffer.allocUnsafe(maxBytes);
  let length = 0;
  while (length < maxBytes) {
    const { bytesRead } = await handle.read(start, length, maxBytes - length, length);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  return start.subarray(0, length);
}

/** The bytes from `start` up to `end`; closes the handle when it ends or is destroyed, even unread. */
function streamOf(handle: FileHandle, start: number, end: number, toError: (cause: unknown) => Error): Readable {
  let at = start;
  return new Readable({
    highWaterMark: READ_PIECE_BYTES,
    read() {
      const piece = Buffer.allocUnsafe(Math.min(READ_PIECE_BYTES, end - at));
      handle.read(piece, 0, piece.length, at).then(
        ({ bytesRead }) => {
          at += bytesRead;
          this.push(bytesRead === 0 ? null : piece.subarray(0, bytesRead));
        },
        (cause) => this.destroy(toError(cause)),
      );
    },
    destroy(error, done) {
      handle.close().then(
        () => done(error),
        () => done(error),
      );
    },
  });
}
