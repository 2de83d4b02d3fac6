import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Fresh } from '../../core/fresh.ts';
import type { Position } from '../../core/position.ts';
import { codeOf, ShipmateError } from '../../errors.ts';
import { type FileIdentity, HeldFiles } from '../held-file.ts';
import { badName, unreadable, unsteady } from './errors.ts';
import { type Found, LogFile } from './file.ts';
import type { Layout } from './layout.ts';
import { sequenceName, sequenceNumber } from './names.ts';

/** Descriptors held on the backlog at most: a purge beyond that many files takes them. */
const MAX_HELD = 256;
/** Clocks of file systems tick in steps: a directory changed more recently than this may change again unseen. */
const MTIME_STEP_MS = 100;
/** However quiet the directory is, its files are looked at so often. */
const EVERY_MS = 1_000;
const STEADY_ATTEMPTS = 20;
/** What stands in a name for bytes that are no UTF-8. */
const UNDECODED = '\ufffd';
/** Writers may use a file for a while after it was rotated; what is older than its predecessor by more than this is no successor. */
const MISORDERED_MS = 3_600_000;

/** The log's files, oldest first: those in the directory, and removed ones that descriptors keep or that nobody has read. */
export class Directory {
  readonly dir: string;
  readonly layout: Layout;
  files: readonly LogFile[] = [];
  /** A file that was shortened in place while it was read: what was taken of it, nobody can tell. */
  shrunk: LogFile | null = null;
  readonly #held = new HeldFiles<LogFile>();
  #holdFrom: LogFile | null = null;
  #seen = '';
  #seenMs = Number.NEGATIVE_INFINITY;
  readonly #looks = new Fresh(() => this.#look());

  constructor(dir: string, layout: Layout) {
    this.dir = dir;
    this.layout = layout;
  }

  get newest(): LogFile | undefined {
    return this.files.at(-1);
  }

  /** The oldest file that has bytes: where a log that nothing was shipped of begins. */
  get oldest(): LogFile | undefined {
    return this.files.find(isThere);
  }

  /** The file after, if it has bytes; empty ones in between are passed over. */
  next(file: LogFile): LogFile | undefined {
    return this.#after(file).find(({ size }) => size > 0);
  }

  /** Whether nothing can be missing between a file and the one that `next` gave. */
  goesOn(file: LogFile, next: LogFile): boolean {
    const between = this.#after(file);
    const chain = [file, ...between.slice(0, between.indexOf(next) + 1)];
    return chain.every((each, i) => i === 0 || this.layout.goesOn(chain[i - 1]!.name, each.name));
  }

  /** Whether one that rotation renamed comes later by its name alone: it was shipped before, or written long before. */
  isMisordered(file: LogFile, next: LogFile): boolean {
    const { live, compare } = this.layout;
    if (live === null) return false;
    const isShipped = file.bound && next.bound && compare(next.bound.segment, file.bound.segment) <= 0;
    return isShipped || (next.name !== live && next.modifiedMs + MISORDERED_MS < file.modifiedMs);
  }

  /** A file and those after it that are the log. */
  from(file: LogFile): LogFile[] {
    return [file, ...this.#after(file)];
  }

  /** Files that may be a position's, by their content: more than one where they begin alike and nothing was bound yet. */
  async candidates({ segment, incarnation, offset }: Position): Promise<LogFile[]> {
    const bound = this.files.filter(
      (file) => file.bound?.segment === segment && file.bound.incarnation === incarnation,
    );
    const found: LogFile[] = [];
    for (const file of bound.length > 0 ? bound : this.files) {
      const isNamed = this.layout.live !== null || file.name === segment;
      if (isNamed && file.size >= offset && (await file.begins(incarnation))) found.push(file);
    }
    return found;
  }

  /** From now on the file is known as this segment. */
  bind(file: LogFile, { segment, incarnation }: Pick<Position, 'segment' | 'incarnation'>): void {
    for (const other of this.files) if (other !== file && other.bound?.segment === segment) other.bound = null;
    file.bound = { segment, incarnation };
  }

  /** What a file is called in the archive. */
  segmentOf(file: LogFile): string {
    const { live } = this.layout;
    if (live === null) return file.name;
    if (file.bound) return file.bound.segment;
    const before = this.files.slice(0, this.files.indexOf(file) + 1);
    const known = before.findLastIndex(({ bound }) => bound !== null);
    const since = before.slice(known + 1).filter((each) => each === file || each.size > 0).length;
    return sequenceName(live, sequenceNumber(before[known]?.bound?.segment ?? '') + since);
  }

  /** Keeps descriptors from here on, so that no removal takes bytes that are not yet shipped. */
  async holdFrom(file: LogFile): Promise<void> {
    this.#holdFrom = file;
    await this.#hold();
  }

  /** The same for one who only looks: nothing is let go of, and while nothing was acknowledged all is held. */
  async holdToo(file: LogFile): Promise<void> {
    const held = this.#holdFrom ?? this.oldest ?? file;
    await this.holdFrom(this.files.indexOf(file) < this.files.indexOf(held) ? file : held);
  }

  /** Disk space of removed files that only our descriptors keep. */
  get heldBytes(): number {
    return this.files.reduce((sum, { listed, isOpen, size }) => sum + (isOpen && !listed ? size : 0), 0);
  }

  /** Looks at the directory; a look that is under way already doesn't count. */
  look(): Promise<void> {
    return this.#looks.ask();
  }

  async close(): Promise<void> {
    await this.#looks.settled();
    await this.#held.letGo();
  }

  #after(file: LogFile): LogFile[] {
    const index = this.files.indexOf(file);
    return index < 0 ? [] : this.files.slice(index + 1).filter(({ name }) => this.layout.isPart(name));
  }

  async #look(): Promise<void> {
    const found = await stat(this.dir, { bigint: true }).catch((error) => {
      throw unreadable(this.dir, error);
    });
    const state = `${found.dev} ${found.ino} ${found.mtimeNs} ${found.ctimeNs}`;
    const isRecent = performance.now() - this.#seenMs < EVERY_MS;
    if (state === this.#seen && isRecent) {
      await this.newest?.measure();
      return;
    }
    const isSettled = Date.now() - Number(found.ctimeMs) > MTIME_STEP_MS;
    const listed = await this.#steadyList();
    this.#take(listed, await this.#replaced(listed));
    await this.#hold();
    this.#seen = isSettled ? state : '';
    this.#seenMs = performance.now();
  }

  /** While a rotation renames, one look may meet a file twice or not at all: two that agree don't. */
  async #steadyList(): Promise<Found[]> {
    let before = '';
    for (let attempt = 0; attempt < STEADY_ATTEMPTS; attempt++) {
      const found = await this.#list();
      const state = found
        .map((file) => (file ? `${file.name}/${file.identity.dev}/${file.identity.ino}` : '?'))
        .join('\n');
      if (state === before && !found.includes(null)) return this.#eachOnce(found.filter((file) => file !== null));
      before = state;
    }
    throw unsteady(this.dir);
  }

  #list(): Promise<(Found | null)[]> {
    const look = async (name: string): Promise<Found | null> => {
      const path = join(this.dir, name);
      const found = await stat(path).catch((error) => {
        if (codeOf(error) !== 'ENOENT') throw unreadable(path, error);
        if (name.includes(UNDECODED)) throw badName(path);
        return null;
      });
      if (!found) return null;
      const { dev, ino, size, mtimeMs: modifiedMs } = found;
      return { name, identity: { dev, ino }, size, modifiedMs };
    };
    return this.layout.list(this.dir).then((names) => Promise.all(names.map(look)));
  }

  /** Rotation may link a file to its next name before the live one leads elsewhere: until then it is the live file. */
  #eachOnce(found: readonly Found[]): Found[] {
    const byInode = new Map(found.map((each) => [inodeText(each.identity), each]));
    return found.filter((each) => this.layout.live === null || byInode.get(inodeText(each.identity)) === each);
  }

  /** Files that were removed unseen, and whose inodes others have now, by what these begin with. */
  async #replaced(found: readonly Found[]): Promise<ReadonlySet<LogFile>> {
    const replaced = new Set<LogFile>();
    const byInode = new Map(found.map((each) => [inodeText(each.identity), each]));
    for (const file of this.files) {
      const now = byInode.get(inodeText(file.identity));
      if (!now || !file.bound || file.isOpen) continue;
      const isUntouched = now.size === file.size && now.modifiedMs === file.modifiedMs;
      if (!isUntouched && !(await new LogFile(this.dir, now).begins(file.bound.incarnation))) replaced.add(file);
    }
    return replaced;
  }

  #take(found: readonly Found[], replaced: ReadonlySet<LogFile>): void {
    const unknown = new Set(this.files);
    const byInode = Map.groupBy(this.files, ({ identity }) => inodeText(identity));
    const present = found.map((each) => {
      const same = byInode
        .get(inodeText(each.identity))
        ?.find((file) => unknown.has(file) && !replaced.has(file) && this.#isSame(file, each));
      if (!same) return new LogFile(this.dir, each);
      unknown.delete(same);
      same.seen(each);
      return same;
    });
    if (this.layout.live === null) this.#demandNames(present, unknown);
    this.files = this.#withRemoved(present, unknown);
  }

  /** Removed files stay in their place while a descriptor keeps them, or while nobody knows that they were not shipped. */
  #withRemoved(present: readonly LogFile[], removed: ReadonlySet<LogFile>): LogFile[] {
    const before = this.files;
    const shipped = this.#holdFrom === null ? before.length : before.indexOf(this.#holdFrom);
    const after = new Map<LogFile | null, LogFile[]>();
    let last: LogFile | null = null;
    for (const [index, file] of before.entries()) {
      if (!removed.has(file)) last = file;
      else {
        file.listed = false;
        if (file.isOpen || index > shipped) after.set(last, [...(after.get(last) ?? []), file]);
      }
    }
    const list = [...(after.get(null) ?? []), ...present.flatMap((file) => [file, ...(after.get(file) ?? [])])];
    // What comes to stand before what was shipped is no part of the archive.
    const known = new Set(before);
    const from = this.#holdFrom === null ? 0 : list.indexOf(this.#holdFrom);
    for (const file of list.slice(0, Math.max(0, from))) if (!known.has(file)) file.endedAt = 0;
    return list;
  }

  /** While it is open no other file can have its inode; otherwise a new one may. */
  #isSame(file: LogFile, { name, size }: Found): boolean {
    const { live } = this.layout;
    if (live === null && file.name !== name) return false;
    if (file.isOpen) return true;
    return size >= file.size && (live === null || file.name === live || name !== live);
  }

  #demandNames(present: readonly LogFile[], removed: ReadonlySet<LogFile>): void {
    for (const file of removed) {
      const renamed = file.isOpen && present.find((each) => inodeText(each.identity) === inodeText(file.identity));
      if (!renamed) continue;
      throw new ShipmateError(`${file.path} was renamed to ${renamed.name}`, {
        code: 'SOURCE_RENAMED',
        hint: `where rotation renames files, say which name is written: "live: ${file.name}"; docs/files.md tells more`,
        verdict: 'retry',
      });
    }
  }

  /**
   * Opens what is to be held, lets go of the rest. The newest file is held always: while its inode is in use, no other
   * file can pass for it.
   */
  async #hold(): Promise<void> {
    const from = this.#holdFrom === null ? this.files.length : Math.max(0, this.files.indexOf(this.#holdFrom));
    const wanted = new Set(this.files.slice(from, from + MAX_HELD));
    if (this.newest) wanted.add(this.newest);
    await this.#held.keep(wanted);
  }
}

const inodeText = ({ dev, ino }: FileIdentity) => `${dev}/${ino}`;

const isThere = ({ size, listed, isOpen }: LogFile) => size > 0 && (listed || isOpen);
