import { spawn } from 'node:child_process';
import { access, copyFile, lstat, mkdir, readdir, readlink, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { codeOf, ShipmateError } from '../errors.ts';
import { partialPath } from './fetch-write.ts';

/**
 * Where segments lie that were read ahead: a directory for each process that reads, `<recovery>,<pid>`, which works in it
 * and removes it when it ends. That such a process lives and works there is what makes its files count; `bin/shipmate`
 * goes by the same, without starting Node. A recovery is a session of processes, a stream and a store's name.
 */
export const FILES = {
  /** A symbolic link to the config that was read. */
  config: 'config',
  /** Is newer than that config. */
  since: 'since',
  /** Names the last segment that had to be fetched without having been read ahead. */
  asked: 'asked',
  /** What is being written. */
  part: '.part',
} as const;

/** One recovery by one config. */
export interface Recovery {
  /** Its directories begin so. */
  readonly path: string;
  /** The process that leads it; 0 where it is not seen. */
  readonly session: number;
  /** Absolute. */
  readonly configFile: string;
}

/** By what `bin/shipmate` says; null where it says nothing. */
export function recoveryAt(path: string | undefined, configFile: string): Recovery | null {
  const [, session] = /^(\d+),[^,/]+,[^,/]*$/.exec(basename(path ?? '')) ?? [];
  return path === undefined || session === undefined ? null : { path, session: Number(session), configFile };
}

/** The directories of living processes that read ahead for a recovery. */
export async function liveDirectories({ path, configFile }: Recovery): Promise<string[]> {
  const root = dirname(path);
  const names = await readdir(root).catch(() => []);
  const ours = names.filter((name) => name.startsWith(`${basename(path)},`)).map((name) => join(root, name));
  const live = await Promise.all(ours.map(async (each) => (await isLive(each)) && (await isOf(each, configFile))));
  return ours.filter((_, index) => live[index]);
}

async function isOf(directory: string, configFile: string): Promise<boolean> {
  try {
    const [read, since, config] = await Promise.all([
      readlink(join(directory, FILES.config)),
      stat(join(directory, FILES.since)),
      stat(configFile),
    ]);
    return read === configFile && since.mtimeMs > config.mtimeMs;
  } catch {
    return false;
  }
}

export const pidOf = (directory: string) => Number(/\d+$/.exec(directory)?.[0]);

/** Whether the process of that directory lives, and is no other under its number. */
export async function isLive(directory: string): Promise<boolean> {
  try {
    const [there, works] = await Promise.all([stat(directory), stat(`/proc/${pidOf(directory)}/cwd`)]);
    return there.ino === works.ino && there.dev === works.dev;
  } catch {
    return false;
  }
}

/** How long to wait for a segment that is being written: the process may be stopped, or its store. */
const PART_MS = 5_000;
const LOOK_MS = 5;

/** Takes a segment that was read ahead, or is about to be. */
export async function takeAhead(recovery: Recovery, segment: string, path: string): Promise<boolean> {
  for (const directory of await liveDirectories(recovery)) {
    const untilMs = performance.now() + PART_MS;
    do {
      if (await take(join(directory, segment), path)) return true;
      await delay(LOOK_MS);
    } while ((await exists(join(directory, segment + FILES.part))) && performance.now() < untilMs);
    if (await take(join(directory, segment), path)) return true;
  }
  return false;
}

async function take(from: string, path: string): Promise<boolean> {
  const partial = partialPath(path);
  try {
    await rename(from, partial).catch(async (error) => {
      if (codeOf(error) !== 'EXDEV') throw error;
      await copyFile(from, partial);
      await rm(from);
    });
    await rename(partial, path);
    return true;
  } catch {
    await rm(partial, { force: true });
    return false;
  }
}

const exists = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  );

export interface AheadStart {
  readonly recovery: Recovery;
  /** The segment that was just handed over. */
  readonly after: string;
  /** Starts the process that reads ahead: a program and its arguments. */
  readonly command: readonly [string, ...string[]];
}

/** Lets segments be read ahead from there on: by the process that does so already, or else by a new one. */
export async function readOnAfter({ recovery, after, command }: AheadStart): Promise<void> {
  const [directory] = await liveDirectories(recovery);
  if (directory !== undefined) {
    await writeFile(join(directory, FILES.asked), after).catch(() => {}); // it has just ended
    return;
  }
  await demandOwn(dirname(recovery.path));
  const [program, ...args] = command;
  // A session of its own and none of the server's files: nobody waits for it.
  spawn(program, args, { detached: true, stdio: 'ignore', cwd: '/', env: { ...KEEP_MEMORY, ...process.env } }).unref();
}

/** For glibc: to give chunks' memory back to the system and take it anew for each took a sixth of what reads ahead. */
const KEEP_MEMORY = { MALLOC_MMAP_THRESHOLD_: String(32 << 20), MALLOC_TRIM_THRESHOLD_: String(256 << 20) };

/** Nobody else may write to it: what lies there is handed to a database. */
async function demandOwn(root: string): Promise<void> {
  await mkdir(root, { recursive: true, mode: 0o700 });
  for (const directory of [dirname(root), root]) {
    const found = await lstat(directory);
    const isOurs = found.isDirectory() && found.uid === process.getuid?.();
    if (isOurs && (found.mode & (directory === root ? 0o077 : 0o022)) === 0) continue;
    throw new ShipmateError(`${directory} is not a directory of this user alone: segments are not read ahead`, {
      code: 'READ_AHEAD_DIRECTORY',
      hint: 'remove it, or name another directory in $XDG_CACHE_HOME',
    });
  }
}
