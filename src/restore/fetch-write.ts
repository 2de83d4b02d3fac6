import { access, type FileHandle, open, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { codeOf, messageOf, ShipmateError } from '../errors.ts';
import type { ChunkReader } from './chunks.ts';
import type { FoundFile } from './fetch-find.ts';
import { beginAlike } from './file-witness.ts';
import { isRunning } from './running.ts';

/** For the server's group too, as far as the server's own umask allows: a daemon may read pg_wal by that. */
const READABLE = 0o640;

/**
 * Writes the whole file, every digest checked, and gives it its name only then. The rename makes nothing durable: the
 * database does that when it takes the file over.
 */
export async function writeFound(chunks: ChunkReader, file: FoundFile, path: string, partial: string): Promise<void> {
  let handle: FileHandle | null = null;
  try {
    handle = await open(partial, 'w', READABLE);
    for await (const { ref, bytes } of chunks.readInOrder(file.pieces)) {
      await writeOn(handle, bytes.subarray(0, ref.length));
    }
    await handle.truncate(file.fileBytes);
    await handle.close();
    await rename(partial, path);
  } catch (error) {
    await handle?.close().catch(() => {});
    await rm(partial, { force: true });
    throw error instanceof ShipmateError || codeOf(error) === undefined ? error : cannotWrite(path, error);
  }
}

/**
 * Takes a segment back that the archive has in part, where the server's own has all of that part: it would put what it gets
 * in the place of its own. A standby whose connection broke would lose what it received beyond the archive's end, of which
 * its primary was told that it is safe.
 */
export async function dropIfOwn({ name, length, fileBytes }: FoundFile, path: string): Promise<boolean> {
  const own = join(dirname(path), name);
  if (length === fileBytes || own === path || !(await beginAlike(own, path, length))) return false;
  await rm(path);
  return true;
}

/** At its end, in as few calls as the system allows: `writeFile` makes 16 of a chunk, each by way of the thread pool. */
async function writeOn(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) done += (await handle.write(bytes, done)).bytesWritten;
}

/** Whether the server has a file of that name, beside what it asks for: it looks there for what it does not get. */
export const hasOwn = (name: string, path: string): Promise<boolean> =>
  access(join(dirname(path), name)).then(
    () => true,
    () => false,
  );

/**
 * In place of a history file that was never shipped: without one the server would not look for the timelines above it.
 * Whoever recovers along this very timeline is told by the server that it has no ancestors.
 */
export async function writeStandIn(stream: string, path: string, partial: string): Promise<void> {
  try {
    await writeFile(
      partial,
      `# Nothing of this timeline is in the archive of stream ${stream}, which has a later one.\n`,
    );
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true });
    throw cannotWrite(path, error);
  }
}

const PARTIAL = '.shipmate-';

/** Beside the file, so that a rename puts it there. */
export const partialPath = (path: string) => path + PARTIAL + process.pid;

/** What was killed in the middle left its file: nobody else would remove that from a server's pg_wal. */
export async function sweepPartials(path: string): Promise<void> {
  const beginning = basename(path) + PARTIAL;
  const names = await readdir(dirname(path)).catch(() => []);
  const ours = names.filter((name) => name.startsWith(beginning) && /^[1-9]\d*$/.test(name.slice(beginning.length)));
  const left = ours.filter((name) => !isRunning(Number(name.slice(beginning.length))));
  await Promise.all(left.map((name) => rm(join(dirname(path), name), { force: true }).catch(() => {})));
}

function cannotWrite(path: string, cause: unknown): ShipmateError {
  return new ShipmateError(`${path} can't be written: ${messageOf(cause)}`, {
    code: 'FETCH_FAILED',
    hint: 'the directory must be there, with room, and writable for the user who recovers',
    cause,
  });
}
