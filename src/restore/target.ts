import { mkdir, open, readdir, readFile, rename, rm, rmdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { codeOf, messageOf, ShipmateError, UsageError } from '../errors.ts';

/** Stands in the target directory while a restore is not complete. */
export const NOTE = '.shipmate-restore.json';
const FOLDER_MODE = 0o750;
const NEW_NOTE = `${NOTE}.new`;

const note = z.object({
  v: z.literal(1),
  /** What is restored: a later restore of the same goes on in the directory, any other is refused. */
  archive: z.string(),
  stream: z.string(),
  until: z.string(),
  from: z.string().nullable().default(null),
  afterGap: z.boolean(),
  throughTerm: z.int().nullable().default(null),
  /** What it may have written, below the directory. */
  files: z.array(z.string()),
  /** Links among them, at the top. */
  links: z.array(z.string()).default([]),
});

export type Note = z.infer<typeof note>;

/**
 * Makes the directory, and those above it, where they are missing. Their names are durable then. Throws UsageError where
 * something else is there.
 */
export async function makeTarget(directory: string): Promise<void> {
  await attempt(directory, () => makeFolder(directory));
}

/** Unlike mkdir's own `recursive`, which tries for ever where a parent is there and takes no directory, as /proc. */
async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path, FOLDER_MODE);
  } catch (error) {
    const there = await stat(path).catch(() => null);
    if (there?.isDirectory()) return;
    if (there || codeOf(error) === 'ENOTDIR') throw new UsageError(`${path} is not a directory`, 'name another one');
    if (codeOf(error) !== 'ENOENT' || path === dirname(path)) throw error;
    await makeFolder(dirname(path));
    await mkdir(path, FOLDER_MODE);
  }
  await syncFolder(dirname(path));
}

/**
 * Makes an existing directory ready for the note's files: empty, or left by an unfinished restore of the same. Files that
 * such a restore wrote and that are not wanted any more are removed, and all links. Throws UsageError for any other directory.
 */
export async function prepareTarget(directory: string, wanted: Note): Promise<void> {
  await attempt(directory, async () => {
    const left = await unfinishedNote(directory);
    if (left) {
      demandSame(directory, left, wanted);
      await removeStale(directory, left, wanted);
    }
    for (const folder of foldersOf(directory, wanted)) await makeFolder(folder);
    await writeDurably(join(directory, NEW_NOTE), `${JSON.stringify(wanted)}\n`);
    await rename(join(directory, NEW_NOTE), join(directory, NOTE));
    await syncFolder(directory);
  });
}

/** Everything is written: takes the note away, after whatever it spoke of is durable. */
export async function finishTarget(directory: string, written: Note): Promise<void> {
  await attempt(directory, async () => {
    for (const folder of foldersOf(directory, written)) await syncFolder(folder);
    await rm(join(directory, NOTE));
    await syncFolder(directory);
  });
}

/** A file as a whole, durable but for its name. */
export async function writeDurably(path: string, content: string): Promise<void> {
  const handle = await open(path, 'w', 0o640);
  try {
    await handle.writeFile(content);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** The directory itself, and those below it that hold the note's files. */
function foldersOf(directory: string, { files }: Note): string[] {
  return [...new Set([directory, ...files.map((file) => dirname(join(directory, file)))])];
}

async function unfinishedNote(directory: string): Promise<Note | null> {
  const names = await readdir(directory);
  if (names.includes(NOTE)) return readNote(join(directory, NOTE), directory);
  if (names.every((name) => name === NEW_NOTE)) return null;
  throw new UsageError(
    `${directory} is not empty`,
    'restore writes into a new or empty directory, or goes on with an unfinished restore of the same range',
  );
}

async function readNote(path: string, directory: string): Promise<Note> {
  const text = await readFile(path, 'utf8');
  try {
    return note.parse(JSON.parse(text));
  } catch {
    throw new UsageError(
      `${path} can't be read as the note of an unfinished restore`,
      `remove ${directory}, and restore anew`,
    );
  }
}

function demandSame(directory: string, left: Note, wanted: Note): void {
  const isSame =
    left.archive === wanted.archive &&
    left.stream === wanted.stream &&
    left.until === wanted.until &&
    left.from === wanted.from &&
    left.afterGap === wanted.afterGap &&
    left.throughTerm === wanted.throughTerm;
  if (isSame) return;
  throw new UsageError(
    `${directory} holds an unfinished restore of stream ${left.stream} until ${left.until} (archive ${left.archive})`,
    'finish that one with its own options, or restore into another directory',
  );
}

async function removeStale(directory: string, left: Note, wanted: Note): Promise<void> {
  const kept = new Set(wanted.files);
  const stale = [...left.files.filter((file) => !kept.has(file)), ...left.links];
  const inside = stale.filter((file) => !file.split('/').includes('..'));
  for (const file of inside) await rm(join(directory, file), { force: true });
  const folders = new Set(foldersOf(directory, wanted));
  for (const folder of foldersOf(directory, { ...left, files: inside })) {
    // One that holds something else stays: it is not ours.
    if (!folders.has(folder)) await rmdir(folder).catch(() => {});
  }
}

/** A file's name is durable once its directory is. */
async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } catch (error) {
    if (codeOf(error) !== 'EINVAL') throw error; // some network file systems have no such thing, and write names through
  } finally {
    await handle.close();
  }
}

/** The file's length; null where it is absent. */
export async function lengthOf(path: string): Promise<number | null> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null;
    throw error;
  }
}

const HINTS: Record<string, string> = {
  ENOSPC: 'make room, or restore to another file system: the same command goes on where it stopped',
  EDQUOT: 'the quota is used up: raise it, or restore to another file system',
  EACCES: 'the user who restores needs the right to write there',
  EPERM: 'the user who restores needs the right to write there',
  EROFS: 'the file system is mounted read-only: restore to another one',
};

/** Failures of the file system as errors that say what to do. */
export async function attempt<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (cause instanceof ShipmateError) throw cause;
    throw new ShipmateError(`the restore to ${path} failed: ${messageOf(cause)}`, {
      code: 'RESTORE_FAILED',
      hint: HINTS[codeOf(cause) ?? ''] ?? 'put right what the message names: the same command goes on where it stopped',
      cause,
    });
  }
}
