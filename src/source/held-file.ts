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
    const { dev, ino } = await handle.stat();
    if (dev !== identity.dev || ino !== identity.ino) {
      await handle.close();
      return false;
    }
    this.#handle = handle;
    return true;
  }
}

/** What can be kept open: a `release` for each `retain` that was true. */
interface Holdable {
  retain(): Promise<boolean>;
  release(): Promise<void>;
}

/** Opens what is wanted and lets go of the rest: `held` is what is open by earlier calls, and is kept up to date. */
export async function holdOnly<T extends Holdable>(held: Set<T>, wanted: ReadonlySet<T>): Promise<void> {
  for (const file of held) {
    if (wanted.has(file)) continue;
    held.delete(file);
    await file.release();
  }
  for (const file of wanted) {
    if (held.has(file)) continue;
    held.add(file);
    let isThere = false;
    try {
      isThere = await file.retain();
    } finally {
      // What can't be opened now is tried again at the next call.
      if (!isThere) held.delete(file);
    }
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
