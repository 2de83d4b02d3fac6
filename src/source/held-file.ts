import { type FileHandle, open } from 'node:fs/promises';
import { WitnessDigest } from '../core/witness.ts';
import { codeOf } from '../errors.ts';

/** Device and inode: whether a path still leads to the same file. */
export interface FileIdentity {
  readonly dev: number;
  readonly ino: number;
}

export interface HeldFileOptions {
  readonly identity: FileIdentity;
  /** Where it is now. */
  readonly path: () => string;
  /** What is thrown where it can't be read. */
  readonly unreadable: (path: string, cause: unknown) => Error;
}

/** One file, by its descriptor once opened: what is read is the same file, whatever happens to its name. */
export class HeldFile {
  readonly #options: HeldFileOptions;
  #handle: FileHandle | null = null;
  #opening: Promise<boolean> | null = null;
  #users = 0;

  constructor(options: HeldFileOptions) {
    this.#options = options;
  }

  /** Whether our descriptor keeps the file, even if it is removed. */
  get isOpen(): boolean {
    return this.#handle !== null;
  }

  /**
   * Opens the file and keeps it open until a `release` for each `retain`. False when its path leads to another file or
   * nowhere by now (then nothing is retained).
   */
  async retain(): Promise<boolean> {
    this.#users++;
    this.#opening ??= this.#open().finally(() => {
      this.#opening = null;
    });
    const isThere = await this.#opening.catch((error) => {
      this.#users--;
      throw error;
    });
    if (!isThere) this.#users--;
    return isThere;
  }

  async release(): Promise<void> {
    this.#users--;
    if (this.#users > 0) return;
    const handle = this.#handle;
    this.#handle = null;
    await handle?.close();
  }

  /** Null where the file is gone. */
  async use<T>(work: (handle: FileHandle) => Promise<T>): Promise<T | null> {
    if (!(await this.retain())) return null;
    try {
      return await work(this.#handle!);
    } catch (error) {
      throw this.#options.unreadable(this.#options.path(), error);
    } finally {
      await this.release();
    }
  }

  async #open(): Promise<boolean> {
    if (this.#handle) return true;
    const { identity, unreadable } = this.#options;
    const path = this.#options.path();
    const handle = await open(path).catch((error) => {
      if (codeOf(error) === 'ENOENT') return null;
      throw unreadable(path, error);
    });
    if (!handle) return false;
    const { dev, ino } = await handle.stat().catch(async (error) => {
      await handle.close();
      throw unreadable(path, error);
    });
    if (dev !== identity.dev || ino !== identity.ino) {
      await handle.close();
      return false;
    }
    this.#handle = handle;
    return true;
  }
}

/** Files whose descriptors are kept, so that nobody's removal takes their bytes. */
export class HeldFiles<File extends Pick<HeldFile, 'retain' | 'release'>> {
  readonly #held = new Set<File>();
  #last: Promise<unknown> = Promise.resolve();

  /** Opens what is wanted, lets go of the rest, one call after the other. Throws when a file can't be opened; the others are. */
  keep(wanted: ReadonlySet<File>): Promise<void> {
    const kept = this.#last.then(() => this.#keep(wanted));
    this.#last = kept.catch(() => {});
    return kept;
  }

  letGo(): Promise<void> {
    return this.keep(new Set());
  }

  async #keep(wanted: ReadonlySet<File>): Promise<void> {
    for (const file of this.#held) {
      if (wanted.has(file)) continue;
      this.#held.delete(file);
      await file.release();
    }
    const failures: unknown[] = [];
    for (const file of wanted) {
      if (this.#held.has(file)) continue;
      try {
        if (await file.retain()) this.#held.add(file);
      } catch (error) {
        failures.push(error); // tried again at the next call
      }
    }
    if (failures.length > 0) throw failures[0];
  }
}

const DIGEST_PIECE_BYTES = 1 << 20;

/** Fills the buffer's first `length` bytes, or as many as there are, from `offset` of the file; returns bytes read. */
export type ReadAt = (buffer: Buffer, length: number, offset: number) => Promise<number>;

/** The witness of a file's range; null when the file does not reach that far. */
export async function digestRange(read: ReadAt, offset: number, length: number): Promise<string | null> {
  const digest = new WitnessDigest();
  const buffer = Buffer.allocUnsafe(Math.min(length, DIGEST_PIECE_BYTES));
  for (let done = 0; done < length; ) {
    const bytesRead = await read(buffer, Math.min(buffer.length, length - done), offset + done);
    if (bytesRead === 0) return null;
    digest.update(buffer.subarray(0, bytesRead));
    done += bytesRead;
  }
  return digest.digest();
}
