import { randomUUID } from 'node:crypto';
import { type FileHandle, lchown, link, mkdir, open, readdir, readFile, rename, stat, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { codeOf, messageOf, ShipmateError } from '../../errors.ts';

const SUFFIX = '.json';

/**
 * JSON files in a folder of their own, each written whole or not at all. They belong to the folder's owner even when
 * root writes them, so that the daemon can read what an operator's `sudo shipmate …` left.
 */
export class Folder {
  readonly #stateDir: string;
  readonly #root: string;
  /** The last write of each name that is under way. */
  readonly #writing = new Map<string, Promise<void>>();

  /** The folder `name` in `stateDir`; both are made when something is first written, for their owner alone. */
  constructor(stateDir: string, name: string) {
    this.#stateDir = stateDir;
    this.#root = join(stateDir, name);
  }

  /** Null where there is none. */
  async read(name: string): Promise<string | null> {
    try {
      return await readFile(this.#path(name), 'utf8');
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return null;
      throw badStateDir(this.#path(name), error);
    }
  }

  /** One name's writes follow each other in the order of the calls. `durable`: it outlives a loss of power. */
  write(name: string, value: unknown, { durable = false } = {}): Promise<void> {
    const before = this.#writing.get(name) ?? Promise.resolve();
    const write = before.catch(() => {}).then(() => this.#place(name, value, { durable, place: rename }));
    this.#writing.set(name, write);
    const settled = () => {
      if (this.#writing.get(name) === write) this.#writing.delete(name);
    };
    write.then(settled, settled);
    return write;
  }

  /** As `write`, unless the name is taken: then false. */
  async create(name: string, value: unknown, { durable = false } = {}): Promise<boolean> {
    try {
      await this.#place(name, value, { durable, place: link });
      return true;
    } catch (error) {
      if (error instanceof ShipmateError && codeOf(error.cause) === 'EEXIST') return false;
      throw error;
    }
  }

  /** Absent is success. */
  async remove(name: string): Promise<void> {
    const path = this.#path(name);
    await unlink(path).catch((error: unknown) => ignoreAbsent(path, error));
  }

  /** Renames; false where it was absent. */
  async move(name: string, to: string): Promise<boolean> {
    const path = this.#path(name);
    return rename(path, this.#path(to)).then(
      () => true,
      (error: unknown) => ignoreAbsent(path, error) ?? false,
    );
  }

  /** Names of the files directly below `dir`, with it, in order. */
  async list(dir: string): Promise<string[]> {
    const path = join(this.#root, dir);
    const names = await readdir(path).catch((error: unknown) => ignoreAbsent(path, error) ?? []);
    const files = names.filter((name) => name.endsWith(SUFFIX) && !name.startsWith('.'));
    return files.map((name) => `${dir}/${name.slice(0, -SUFFIX.length)}`).sort();
  }

  #path(name: string): string {
    return join(this.#root, `${name}${SUFFIX}`);
  }

  async #place(
    name: string,
    value: unknown,
    { durable, place }: { durable: boolean; place: (from: string, to: string) => Promise<void> },
  ): Promise<void> {
    const path = this.#path(name);
    const dir = dirname(path);
    const temporary = join(dir, `.${randomUUID()}.tmp`);
    try {
      await this.#makeDir(dir);
      await withFile(temporary, 'wx', async (file) => {
        const owner = await this.#owner();
        if (owner) await file.chown(owner.uid, owner.gid);
        await file.writeFile(JSON.stringify(value));
        if (durable) await file.sync();
      });
      await place(temporary, path);
      if (durable) await withFile(dir, 'r', (file) => file.sync());
    } catch (cause) {
      throw badStateDir(path, cause);
    } finally {
      await unlink(temporary).catch(() => {}); // renamed, or never made
    }
  }

  async #makeDir(dir: string): Promise<void> {
    await mkdir(this.#stateDir, { recursive: true, mode: 0o700 });
    const topmost = await mkdir(dir, { recursive: true, mode: 0o700 });
    const owner = topmost === undefined ? null : await this.#owner();
    if (topmost === undefined || !owner) return;
    for (let made = dir; made.length >= topmost.length; made = dirname(made)) await lchown(made, owner.uid, owner.gid);
  }

  /** Whom root writes for; null for any other user. */
  async #owner(): Promise<{ uid: number; gid: number } | null> {
    return process.getuid?.() === 0 ? stat(this.#stateDir) : null;
  }
}

async function withFile<T>(path: string, flags: string, use: (file: FileHandle) => Promise<T>): Promise<T> {
  const file = await open(path, flags, 0o600);
  try {
    return await use(file);
  } finally {
    await file.close();
  }
}

function ignoreAbsent(path: string, error: unknown): undefined {
  if (codeOf(error) !== 'ENOENT') throw badStateDir(path, error);
}

function badStateDir(path: string, cause: unknown): ShipmateError {
  return new ShipmateError(`the state directory can't be used: ${path}: ${messageOf(cause)}`, {
    code: 'BAD_STATE_DIR',
    hint: 'the daemon needs "stateDir" on a local disk with room left, owned by its user, mode 0700',
    verdict: 'retry',
    cause,
  });
}
