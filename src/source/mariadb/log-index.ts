import type { Position } from '../../core/position.ts';
import type { Lineage, Usable } from './binlogs.ts';
import { corrupt } from './errors.ts';
import { CHECKSUM_BYTES, eventLength, eventType, HEADER_BYTES, MAGIC } from './events.ts';
import { Framer } from './frames.ts';
import { type Flavour, type GtidState, placeId } from './gtid.ts';
import type { Segment } from './segment.ts';
import { isGtid, Transactions } from './transactions.ts';

/** A transaction boundary, with what the log has seen up to there. The state is never changed. */
export interface Boundary {
  readonly usable: Usable;
  readonly offset: number;
  readonly state: GtidState;
}

/** What to look for: the first whole transaction of a kind. */
export interface Sought {
  /** Whether a log that stands like this is past the first such transaction: once true it stays true. */
  isPast(state: GtidState): boolean;
  /** Whether the transaction that `state` began last is one. */
  matches(state: GtidState): boolean;
}

/**
 * `found`: at the boundary before it; `transaction` is the state after it, which tells its GTID. `none`: the log, up to its
 * durable end, has none. `before`: it is not in the files here, `at` is the first place after it.
 */
export type Search =
  | { readonly kind: 'found'; readonly at: Boundary; readonly transaction: GtidState }
  | { readonly kind: 'none' | 'before'; readonly at: Boundary };

const BUFFER_BYTES = 1 << 20;
/** Distance of remembered boundaries at first: so much is read again by a search, at most. */
const STEP_BYTES = 256 << 10;
/** Of one file: then every second is forgotten. With forty domains the states of sixteen files took a gigabyte. */
const MAX_STEPS = 512;
/** Of so many files boundaries are remembered. */
const MAX_FILES = 16;

interface FileBoundaries {
  steps: Boundary[];
  stepBytes: number;
  /** The last boundary found so far. */
  end: Boundary;
}

/** Called as a file's events go by; true stops. `before`: the boundary where the transaction began that ends here. */
type Visit = (boundary: { offset: number; state: GtidState }, before: Boundary | null) => boolean;

/**
 * Where in a server's log which transaction stands: the file by the lists of GTIDs at the files' starts, the place in it by
 * boundaries remembered every few hundred KiB. Reads only the files that it is asked for, and every byte of those once.
 */
export class LogIndex {
  readonly #flavour: Flavour;
  readonly #bytes = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  readonly #framer = new Framer(BUFFER_BYTES);
  /** In the order of their last use. */
  readonly #files = new Map<Segment, FileBoundaries>();
  /** The buffer serves one search after the other. */
  #busy: Promise<unknown> = Promise.resolve();

  constructor(flavour: Flavour) {
    this.#flavour = flavour;
  }

  /** The log's durable end, on a transaction boundary; null while there is no binlog. */
  async end(lineage: Lineage): Promise<Boundary | null> {
    const search = await this.find(lineage, { isPast: () => false, matches: () => false });
    return search?.at ?? null;
  }

  /** The first transaction that an ID does not cover. */
  beyond(lineage: Lineage, id: GtidState): Promise<Search | null> {
    return this.find(lineage, {
      isPast: (state) => !id.covers(state),
      matches: (transaction) => !id.coversBegun(transaction),
    });
  }

  /** Null while there is no binlog. */
  find(lineage: Lineage, sought: Sought): Promise<Search | null> {
    const finding = this.#busy.then(() => this.#find(lineage, sought));
    this.#busy = finding.catch(() => {});
    return finding;
  }

  position({ usable: { segment, header }, offset, state }: Boundary): Position {
    const id = state.text() || (this.#flavour === 'mysql' ? placeId(segment.name, offset) : '');
    return { origin: header.origin, incarnation: header.incarnation, segment: segment.name, offset, id };
  }

  async #find(lineage: Lineage, sought: Sought): Promise<Search | null> {
    const newest = await lineage.newestUsable();
    if (!newest) return null;
    const segments = lineage.segments.slice(0, lineage.segments.indexOf(newest.segment) + 1);
    const usable = async (i: number): Promise<Usable> => {
      const segment = segments[i]!;
      const header = await lineage.header(segment);
      if (!header) throw corrupt(segment.path, 0, 'its first events are missing');
      return { segment, header };
    };
    let [first, after] = [0, segments.length];
    while (first < after) {
      const middle = (first + after) >> 1;
      if (sought.isPast((await usable(middle)).header.start)) after = middle;
      else first = middle + 1;
    }
    if (after === 0) return { kind: 'before', at: startOf(await usable(0)) };
    for (let i = after - 1; ; i++) {
      const file = await this.#scanned(await usable(i));
      const found = await this.#findIn(file, sought);
      if (found) return found;
      if (i === segments.length - 1) return { kind: 'none', at: file.end };
      // A list that names what no file before it has.
      const next = await usable(i + 1);
      if (sought.isPast(next.header.start)) return { kind: 'before', at: startOf(next) };
    }
  }

  async #findIn({ steps, end }: FileBoundaries, sought: Sought): Promise<Search | null> {
    if (!sought.isPast(end.state)) return null;
    const past = steps.findIndex(({ state }) => sought.isPast(state));
    let found: Search | null = null;
    await this.#walk(steps.at(past < 0 ? -1 : Math.max(0, past - 1))!, end.offset, {
      tellsBefore: sought.matches,
      visit: ({ state }, before) => {
        if (before) found = { kind: 'found', at: before, transaction: state };
        return before !== null;
      },
    });
    return found;
  }

  /** The file's boundaries up to its present, durable size. */
  async #scanned(usable: Usable): Promise<FileBoundaries> {
    const { segment } = usable;
    const start = startOf(usable);
    const file = this.#files.get(segment) ?? { steps: [start], stepBytes: STEP_BYTES, end: start };
    this.#files.delete(segment);
    this.#files.set(segment, file);
    if (this.#files.size > MAX_FILES) this.#files.delete(this.#files.keys().next().value!);
    const size = await segment.measure();
    if (size === file.end.offset) return file;
    await segment.sync(size);
    const visit: Visit = ({ offset, state }) => {
      if (offset - file.steps.at(-1)!.offset < file.stepBytes) return false;
      file.steps.push({ usable, offset, state: state.clone() });
      if (file.steps.length > MAX_STEPS) {
        file.steps = file.steps.filter((_, i) => i % 2 === 0);
        file.stepBytes *= 2;
      }
      return false;
    };
    file.end = await this.#walk(file.end, size, { visit, tellsBefore: () => false });
    return file;
  }

  /**
   * Goes through a file's whole events from a boundary on, and returns the last boundary met. `tellsBefore`: whether the
   * visitor wants to know where the transaction began that has just been begun.
   */
  async #walk(
    from: Boundary,
    size: number,
    { visit, tellsBefore }: { visit: Visit; tellsBefore: (state: GtidState) => boolean },
  ): Promise<Boundary> {
    const { usable } = from;
    const { segment, header } = usable;
    const bytes = this.#bytes;
    const checksumBytes = header.checksums ? CHECKSUM_BYTES : 0;
    const transactions = new Transactions(this.#flavour, from.state.clone());
    const { state } = transactions;
    let boundary = from.offset;
    let before: Boundary | null = null;
    let offset = Math.max(from.offset, MAGIC.length);
    const take = (at: number, end: number): boolean => {
      transactions.event(bytes, at, end - checksumBytes);
      if (isGtid(eventType(bytes, at))) {
        before = tellsBefore(state) ? { usable, offset: offset + at, state: state.clone() } : null;
      }
      if (!transactions.atBoundary) return false;
      boundary = offset + end;
      const stops = visit({ offset: boundary, state }, before);
      before = null;
      return stops;
    };
    for (let stopped = false; !stopped && offset < size; ) {
      const filled = await segment.read(bytes, 0, Math.min(bytes.length, size - offset), offset);
      const { end } = this.#framer.frame(bytes, 0, filled, header);
      for (let i = 0, at = 0; i < this.#framer.count && !stopped; at = this.#framer.ends[i++]!) {
        stopped = take(at, this.#framer.ends[i]!);
      }
      if (end > 0) {
        offset += end;
        continue;
      }
      // Too large for the buffer; or what no reader has checked yet, if not what a crash left.
      const length = filled < HEADER_BYTES ? 0 : eventLength(bytes, 0);
      if (length <= bytes.length || offset + length > size) break;
      stopped = take(0, length);
      offset += length;
    }
    return { usable, offset: boundary, state };
  }
}

const startOf = (usable: Usable): Boundary => ({ usable, offset: 0, state: usable.header.start });
