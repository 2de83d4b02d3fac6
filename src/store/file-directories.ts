import { lchown, mkdir, open, stat } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { codeOf } from '../errors.ts';

/** Directories below a root, made where they are missing, whose own names are durable. */
export class DurableDirectories {
  readonly #root: string;
  readonly #known = new Set<string>();

  constructor(root: string) {
    this.#root = root;
  }

  /** Makes the directory and those above it; the root never. Their names are durable afterwards. */
  async ensure(directory: string): Promise<void> {
    if (this.#known.has(directory)) return;
    const parents: string[] = [];
    let path = this.#root;
    for (const part of relative(this.#root, directory)
      .split(sep)
      .filter((name) => name !== '')) {
      parents.push(path);
      path = join(path, part);
      const made = await mkdir(path, 0o755).then(() => true, unlessCode('EEXIST'));
      if (made === true) await giveToOwner(this.#root, (uid, gid) => lchown(path, uid, gid));
    }
    // Those that were there too: another process may have made them and not come to this yet.
    await Promise.all(parents.map(syncDirectory));
    this.#known.add(directory);
  }

  /** Forgets what is known of directories, since one that was has gone. */
  forget(): void {
    this.#known.clear();
  }
}

/**
 * What root makes belongs to the owner of the store's root: else the daemon could not go on where a command of root's was
 * before it. A file server that lets nobody give files away has made it somebody's by rules of its own; one that knows no such
 * owner, or a container that doesn't, says EINVAL.
 */
export async function giveToOwner(root: string, give: (uid: number, gid: number) => Promise<void>): Promise<void> {
  if (process.getuid?.() !== 0) return;
  const { uid, gid } = await stat(root);
  await give(uid, gid).catch(unlessCode('EPERM', 'EINVAL', 'ENOTSUP'));
}

/**
 * Makes every name that is in the directory now durable. Callers at the same time are not gathered: kernels put their
 * journal writes together by themselves, and doing it here gained nothing that could be measured.
 */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    // EINVAL: the file system has no such thing; the network ones without it write names through.
    await handle.sync().catch(unlessCode('EINVAL'));
  } finally {
    await handle.close();
  }
}

/** For `catch`: lets some errors pass as success. */
export function unlessCode(...codes: readonly string[]): (error: unknown) => void {
  return (error) => {
    if (!codes.includes(codeOf(error) ?? '')) throw error;
  };
}
