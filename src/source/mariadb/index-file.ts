import { open, readdir, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { codeOf } from '../../errors.ts';
import { ambiguousIndex, badIndex, noIndex, unreadable } from './errors.ts';
import { FLAGS_AT, MAGIC } from './events.ts';

/** The index lists a server's binlogs, oldest first, one path a line. */
const INDEX_NAME = /\.index$/;
const BINLOG_NAME = /\.(\d{6,})$/;
const RELAY_LOG_FLAG = 0x40;
const STABLE_ATTEMPTS = 20;
const STABLE_PAUSE_MS = 5;

/** The number in a binlog's name; NaN for any other name. */
export const binlogNumber = (name: string) => Number(BINLOG_NAME.exec(name)?.[1] ?? Number.NaN);

/** A binlog's name without its number: what the server's log_bin is set to. */
export const binlogBase = (name: string) => name.slice(0, name.lastIndexOf('.'));

/**
 * The path of the index of the server's own binlogs: the one named, or the only one in `dir` that is not a relay log's.
 * Null in a directory that holds nothing at all: a log that is yet to begin.
 */
export async function findIndex(dir: string, named?: string): Promise<string | null> {
  if (named !== undefined) return resolve(dir, named);
  const names = await readdir(dir).catch((error) => {
    throw unreadable(dir, error);
  });
  if (names.length === 0) return null;
  const candidates = names.filter((name) => INDEX_NAME.test(name)).sort();
  const kinds = await Promise.all(candidates.map((name) => kindOf(join(dir, name), dir)));
  const ofKind = (kind: Kind) => candidates.filter((_, i) => kinds[i] === kind);
  // Without a log to look into, only a single index can be told.
  const possible = ofKind('binlog').length > 0 ? ofKind('binlog') : ofKind('empty');
  if (possible.length > 1) throw ambiguousIndex(dir, possible);
  if (possible.length === 1) return join(dir, possible[0]!);
  const relay = ofKind('relay');
  throw noIndex(dir, relay.length > 0 ? `${relay.join(', ')} lists relay logs` : 'there is no file *.index');
}

type Kind = 'binlog' | 'relay' | 'empty' | 'other';

async function kindOf(index: string, dir: string): Promise<Kind> {
  const paths = await readIndex(index, dir).catch(() => null);
  if (paths === null) return 'other';
  // The newest is the last to be purged while we look.
  for (const path of paths.toReversed()) {
    const start = await readStart(path);
    if (start?.subarray(0, MAGIC.length).equals(MAGIC)) {
      return start[MAGIC.length + FLAGS_AT]! & RELAY_LOG_FLAG ? 'relay' : 'binlog';
    }
  }
  return paths.length === 0 ? 'empty' : 'other';
}

async function readStart(path: string): Promise<Buffer | null> {
  const file = await open(path).catch(() => null);
  if (!file) return null;
  try {
    const start = Buffer.alloc(64);
    await file.read(start, 0, start.length, 0);
    return start;
  } finally {
    await file.close();
  }
}

/**
 * The binlogs' paths, oldest first. A purge rewrites the index in place, so it is read until it makes sense and did not
 * change meanwhile; a last line without its line end is still being written.
 */
export async function readIndex(index: string, dir: string): Promise<string[]> {
  for (let attempt = 1; ; attempt++) {
    const text = await readStable(index);
    const lines = text
      .slice(0, text.lastIndexOf('\n') + 1)
      .split('\n')
      .slice(0, -1);
    const odd = lines.findIndex((line, i) => !(binlogNumber(line) > (i === 0 ? 0 : binlogNumber(lines[i - 1]!))));
    if (odd < 0) return Promise.all(lines.map((line) => pathOf(line, index, dir)));
    if (attempt === STABLE_ATTEMPTS) throw badIndex(index, lines[odd]!);
    await delay(STABLE_PAUSE_MS);
  }
}

async function readStable(index: string): Promise<string> {
  const file = await open(index).catch((error) => {
    throw unreadable(index, error);
  });
  try {
    for (;;) {
      const before = await file.stat({ bigint: true });
      const bytes = Buffer.alloc(Number(before.size));
      const { bytesRead } = await file.read(bytes, 0, bytes.length, 0);
      const after = await file.stat({ bigint: true });
      if (bytesRead === bytes.length && after.size === before.size && after.mtimeNs === before.mtimeNs) {
        return bytes.toString('utf8');
      }
    }
  } finally {
    await file.close();
  }
}

/**
 * Entries are absolute or relative to the data directory. What the server knows by another path is in `dir` all the same,
 * or beside the index; on the host of a container that path may lead to another server's file of the same name.
 */
async function pathOf(entry: string, index: string, dir: string): Promise<string> {
  const path = resolve(dir, entry);
  const candidates = [...new Set([join(dir, basename(entry)), path, join(dirname(index), basename(entry))])];
  if (candidates.length === 1) return path;
  for (const candidate of candidates) if (await exists(candidate)) return candidate;
  return path;
}

const exists = (path: string) =>
  stat(path).then(
    () => true,
    (error) => codeOf(error) !== 'ENOENT',
  );
