import { stat } from 'node:fs/promises';
import { codeOf } from '../errors.ts';
import { fileStoreError, rootGone } from './file-errors.ts';

interface Identity {
  readonly dev: bigint;
  readonly ino: bigint;
}

/**
 * A file store's root directory: never made, and looked at again before and after every operation. When a mount is lost,
 * the path names the directory beneath it: that one must not be written to, nor taken for a store that forgot its
 * objects. Device and inode tell them apart. A mount that comes back may have another device number, so a changed root
 * is accepted when the object that was seen last is there.
 */
export class FileRoot {
  readonly #store: string;
  readonly #path: string;
  #identity: Identity | null = null;
  #lastSeen: string | null = null;

  constructor(store: string, path: string) {
    this.#store = store;
    this.#path = path;
  }

  /** Throws STORE_DOWN if the root is missing, no directory, or another than before. */
  async check(): Promise<void> {
    const found = await this.#look();
    const known = this.#identity;
    if (known === null || (found.dev === known.dev && found.ino === known.ino) || (await this.#holdsLastSeen())) {
      this.#identity = found;
      return;
    }
    throw rootGone(
      this.#store,
      this.#path,
      'is another directory than before: a mount was lost, or something was mounted over it',
    );
  }

  /** An object (its path) is known to be in the store. */
  saw(path: string): void {
    this.#lastSeen = path;
  }

  /** Deleted objects prove nothing. */
  forget(path: string): void {
    if (this.#lastSeen === path) this.#lastSeen = null;
  }

  async #look(): Promise<Identity> {
    try {
      // The dot makes the kernel enter the directory: an automount is mounted, and a plain file fails.
      return await stat(`${this.#path}/.`, { bigint: true });
    } catch (cause) {
      const code = codeOf(cause);
      if (code === 'ENOENT') throw rootGone(this.#store, this.#path, 'does not exist', cause);
      if (code === 'ENOTDIR') throw rootGone(this.#store, this.#path, 'is not a directory', cause);
      throw fileStoreError(this.#store, `look at ${this.#path}`, cause);
    }
  }

  async #holdsLastSeen(): Promise<boolean> {
    if (this.#lastSeen === null) return true; // nothing to miss
    return stat(this.#lastSeen).then(
      (found) => found.isFile(),
      () => false,
    );
  }
}
