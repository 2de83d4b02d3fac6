import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Fresh } from '../../core/fresh.ts';
import type { Position } from '../../core/position.ts';
import { codeOf } from '../../errors.ts';
import { type FileIdentity, HeldFiles } from '../held-file.ts';
import { unreadable } from './errors.ts';
import type { Flavour } from './gtid.ts';
import { binlogNumber, findIndex, readIndex } from './index-file.ts';
import { Segment, type SegmentHeader } from './segment.ts';

/** Descriptors held on the backlog at most: a purge beyond that many files takes them. */
const MAX_HELD = 256;
/** Clocks of file systems tick in steps: a file changed more recently than this may change again unseen. */
const MTIME_STEP_MS = 100;
const AWAY_ATTEMPTS = 20;
const AWAY_PAUSE_MS = 5;

/** A file with the header that makes it usable. */
export interface Usable {
  readonly segment: Segment;
  readonly header: SegmentHeader;
}

/**
 * The binlogs of one life of a server's log, oldest first: those listed, and before them purged ones that descriptors
 * keep. It ends when the files are no longer the same (RESET MASTER, a data directory put back).
 */
export class Lineage {
  segments: Segment[] = [];
  ended = false;
  readonly #held = new HeldFiles<Segment>();
  #holdFrom = Number.POSITIVE_INFINITY;
  #readers = 0;

  /** The segment of a position, if it is here by name; its header tells whether it is the same life. */
  find({ segment }: Position): Segment | undefined {
    return this.segments.find(({ name }) => name === segment);
  }

  next(segment: Segment): Segment | undefined {
    const index = this.segments.indexOf(segment);
    return index < 0 ? undefined : this.segments[index + 1];
  }

  get newest(): Segment | undefined {
    return this.segments.at(-1);
  }

  /** What a file's first events say; null while the server is still writing them. */
  header(segment: Segment): Promise<SegmentHeader | null> {
    return segment.header({ ended: this.next(segment) !== undefined });
  }

  /** The newest file whose first events are there; null in an empty log. */
  async newestUsable(): Promise<Usable | null> {
    for (const segment of this.segments.toReversed()) {
      const header = await this.header(segment);
      if (header) return { segment, header };
    }
    return null;
  }

  /** Keeps descriptors from here on, so that a purge can't take bytes that are not yet acknowledged. */
  async holdFrom(segment: Segment): Promise<void> {
    this.#holdFrom = segment.number;
    await this.hold();
  }

  /** The same for one who only looks: nothing is let go of, and while nothing was acknowledged all is held. */
  async holdToo(segment: Segment): Promise<void> {
    const held = Number.isFinite(this.#holdFrom) ? this.#holdFrom : this.segments[0]!.number;
    this.#holdFrom = Math.min(held, segment.number);
    await this.hold();
  }

  /**
   * Opens what is to be held, lets go of the rest. The newest file is held always: while its inode is in use, no other
   * file can pass for it.
   */
  async hold(): Promise<void> {
    const wanted = new Set(this.segments.filter(({ number }) => number >= this.#holdFrom).slice(0, MAX_HELD));
    if (this.newest && !this.ended) wanted.add(this.newest);
    await this.#held.keep(wanted);
    this.segments = this.segments.filter((segment) => segment.listed || segment.isOpen);
  }

  /** While somebody reads, the descriptors outlive the lineage's end. */
  enter(): void {
    this.#readers++;
  }

  async leave(): Promise<void> {
    this.#readers--;
    if (this.ended) await this.end();
  }

  async end(): Promise<void> {
    this.ended = true;
    if (this.#readers > 0) return;
    await this.#held.letGo();
  }

  /** Disk space of purged files that only our descriptors keep. */
  get heldBytes(): number {
    return this.segments.reduce((sum, { listed, isOpen, size }) => sum + (isOpen && !listed ? size : 0), 0);
  }
}

interface Listed {
  readonly path: string;
  readonly identity: FileIdentity;
  readonly size: number;
  readonly modifiedMs: number;
}

/** What the index lists, looked at again and again. */
export class Binlogs {
  readonly dir: string;
  readonly #options: { index?: string | undefined; flavour: Flavour };
  #index: string | null = null;
  #lineage = new Lineage();
  #seen = '';
  readonly #looks = new Fresh(() => this.#look());

  constructor({ dir, index, flavour }: { dir: string; index?: string | undefined; flavour: Flavour }) {
    this.dir = dir;
    this.#options = { index, flavour };
  }

  /** The index file, once known. */
  get index(): string | null {
    return this.#index;
  }

  /** Throws where another index came beside the one that is read: the server may list its binlogs there now. */
  async demandOneIndex(): Promise<void> {
    await findIndex(this.dir, this.#options.index);
  }

  /** The log as last looked at. */
  get current(): Lineage {
    return this.#lineage;
  }

  /** The log as it is at some moment after the call: a look that is under way already doesn't count. */
  look(): Promise<Lineage> {
    return this.#looks.ask();
  }

  async close(): Promise<void> {
    await this.#looks.settled();
    await this.#lineage.end();
  }

  async #look(): Promise<Lineage> {
    this.#index ??= await findIndex(this.dir, this.#options.index);
    if (this.#index === null) return this.#lineage;
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#read(this.#index);
        return this.#lineage;
      } catch (error) {
        // RESET MASTER takes the index away for a moment.
        const isAway = this.#lineage.newest !== undefined && error instanceof Error && codeOf(error.cause) === 'ENOENT';
        if (!isAway || attempt === AWAY_ATTEMPTS) throw error;
        await delay(AWAY_PAUSE_MS);
      }
    }
  }

  async #read(index: string): Promise<void> {
    const before = await stat(index, { bigint: true }).catch((error) => {
      throw unreadable(index, error);
    });
    const state = `${before.ino} ${before.size} ${before.mtimeNs} ${before.ctimeNs}`;
    if (state === this.#seen) return;
    const isSettled = Date.now() - Number(before.ctimeMs) > MTIME_STEP_MS;
    await this.#take(await this.#list(index));
    this.#seen = isSettled ? state : '';
  }

  /** The listed files that are there; deleted by hand or purged meanwhile, they are as good as not listed. */
  async #list(index: string): Promise<Listed[]> {
    const paths = await readIndex(index, this.dir);
    const listed = await Promise.all(
      paths.map(async (path) => {
        const found = await stat(path).catch((error) => {
          if (codeOf(error) === 'ENOENT') return null;
          throw unreadable(path, error);
        });
        if (!found) return null;
        const { dev, ino, size, mtimeMs: modifiedMs } = found;
        return { path, identity: { dev, ino }, size, modifiedMs };
      }),
    );
    return listed.filter((file) => file !== null);
  }

  async #take(listed: readonly Listed[]): Promise<void> {
    const { flavour } = this.#options;
    // Maps, since there may be many thousands.
    const files = new Map(listed.map((file) => [basename(file.path), file]));
    const first = listed[0] ? binlogNumber(listed[0].path) : 0;
    const isSame = (known: Segment) => {
      const file = files.get(known.name);
      return known.number < first || (file !== undefined && isSameFile(known, file));
    };
    if (!this.#lineage.segments.every(isSame)) {
      await this.#lineage.end();
      this.#lineage = new Lineage();
    }
    const known = new Map(this.#lineage.segments.map((segment) => [segment.name, segment]));
    const present = [...files].map(([name, { path, identity, size, modifiedMs }], i) => {
      const segment = known.get(name) ?? new Segment(path, { flavour, identity, size });
      segment.size = size;
      // The server clears a file's in-use flag after it has listed the successor; after the one after that it is done.
      if (i < files.size - 2) segment.finalMs = modifiedMs;
      return segment;
    });
    const purged = this.#lineage.segments.filter(({ name }) => !files.has(name));
    for (const segment of purged) segment.listed = false;
    this.#lineage.segments = [...purged, ...present];
    await this.#lineage.hold();
  }
}

/** Whether a listed file is the known one, in place and unchanged but for what a server appends. */
function isSameFile({ identity, size, finalMs }: Segment, listed: Listed): boolean {
  const { dev, ino } = listed.identity;
  if (dev !== identity.dev || ino !== identity.ino || listed.size < size) return false;
  return finalMs === null || (finalMs === listed.modifiedMs && size === listed.size);
}
