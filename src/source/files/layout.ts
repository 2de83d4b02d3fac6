import { readdir, readFile } from 'node:fs/promises';
import { join, matchesGlob } from 'node:path';
import { AofScanner, byAofOrder, isManifest, parseAofName, parseManifest, rdbTimeMs } from './aof.ts';
import { badManifest, severalManifests, unreadable } from './errors.ts';
import { byName, byNumber, byRotation, type Compare, isCompressed } from './names.ts';
import { ByteScanner, LineScanner, type Scanner, WholeScanner } from './scan.ts';

/** How a directory of files is laid out, as the config says. */
export interface LayoutOptions {
  readonly layout: 'plain' | 'redis-aof';
  /** A glob over the names. */
  readonly match: string;
  readonly order: 'number' | 'name';
  /** The name of the file that is written, where rotation renames it. */
  readonly live?: string | undefined;
  readonly cut: 'byte' | 'line';
  /** How long a file must not have grown, once another follows it, to count as ended. */
  readonly settleMs: number;
}

/** What the files of a directory are to each other. */
export interface Layout {
  readonly live: string | null;
  readonly settleMs: number;
  /** The log's files in the directory, oldest first. */
  list(dir: string): Promise<string[]>;
  /** Orders segments. */
  readonly compare: Compare;
  /** Whether the log goes on with a file that comes later in the list, if it has bytes: a later base file repeats what was shipped. */
  isPart(name: string): boolean;
  /** Whether a file has all of its bytes when its name is there. */
  isComplete(name: string): boolean;
  /** Whether nothing can be missing between a file and the next one. */
  goesOn(from: string, to: string): boolean;
  scanner(segment: string): Scanner;
}

export function layoutOf(options: LayoutOptions): Layout {
  return options.layout === 'redis-aof' ? redisAof : plain(options);
}

function plain({ match, order, live, cut, settleMs }: LayoutOptions): Layout {
  const inDirectory = live === undefined ? orders[order] : byRotation(live);
  return {
    live: live ?? null,
    settleMs,
    async list(dir) {
      const names = await namesIn(dir);
      return names.filter((name) => matchesGlob(name, match) && !isCompressed(name)).sort(inDirectory);
    },
    // In the archive a renamed file has a number in its name.
    compare: live === undefined ? orders[order] : byNumber,
    isPart: () => true,
    isComplete: () => false,
    goesOn: () => true,
    scanner: () => (cut === 'line' ? new LineScanner() : new ByteScanner()),
  };
}

const orders = { number: byNumber, name: byName };

/** Redis 7's directory: a manifest names the base file and the increments since. Redis never writes to an increment again after it has named the next. */
const redisAof: Layout = {
  live: null,
  settleMs: 0,
  async list(dir) {
    const manifests = (await namesIn(dir)).filter(isManifest);
    const [name] = manifests;
    if (name === undefined) return [];
    if (manifests.length > 1) throw severalManifests(dir, manifests);
    const path = join(dir, name);
    const text = await readFile(path, 'utf8').catch((error) => {
      throw unreadable(path, error);
    });
    const names = parseManifest(text);
    if (names === null) throw badManifest(path);
    return names;
  },
  compare: byAofOrder,
  isPart: (name) => parseAofName(name)?.kind === 'incr',
  isComplete: (name) => parseAofName(name)?.kind === 'base',
  goesOn(from, to) {
    const [a, b] = [parseAofName(from), parseAofName(to)];
    return a?.kind === 'base' || b?.seq === (a?.seq ?? 0) + 1;
  },
  scanner: (segment) => (parseAofName(segment)?.kind === 'base' ? new WholeScanner(rdbTimeMs) : new AofScanner()),
};

async function namesIn(dir: string): Promise<string[]> {
  try {
    const entries = await readdir(dir, { withFileTypes: true });
    return entries.filter((entry) => entry.isFile()).map(({ name }) => name);
  } catch (error) {
    throw unreadable(dir, error);
  }
}
