import { type ChainEnd, endAfter } from '../core/chain.ts';
import type { Chunk, Read } from '../core/header.ts';
import type { Place } from '../core/keys.ts';
import { type Position, samePlace } from '../core/position.ts';
import { ShipmateError } from '../errors.ts';
import type { LogFormat, Until } from '../source/source.ts';
import { readOutline, type TermOutline } from './outline.ts';
import { firstWhere, mapAtOnce } from './search.ts';
import { type Archive, readPlace } from './walk.ts';

/** Which part of the log is wanted: what comes after the ID `from` (null: from the start on) up to `until`. */
export interface Range {
  readonly from: string | null;
  readonly until: Until;
}

/** Which part of the chain to read. */
export interface Stretch {
  /** Where to begin: so far before `from` that what is read up to there proves that it is in the chain. */
  readonly before: ChainEnd;
  /** The first object that is needed: a segment's start, or a term's. */
  readonly from: Place;
  /** The last one; null: the chain's end. */
  readonly upTo: Place | null;
}

/** What a log's IDs and openings must tell. */
export type SeekFormat = Pick<LogFormat, 'covers' | 'fileStart'>;

export interface Seek {
  readonly archive: Archive;
  readonly floor: ChainEnd;
  readonly range: Range;
  readonly format: SeekFormat;
  /** Chunks behind the target: what a chunk tells of its times is no more than its first and last event's. */
  readonly marginChunks?: number;
}

/** A term's chunks that are still the log: no later opening took them back. Half open. */
interface Span {
  readonly outline: TermOutline;
  readonly endSlot: number;
  /** Without the last chunk where only its beginning counts. */
  readonly wholeEndSlot: number;
}

/** A chunk by its span's index. */
interface Spot {
  readonly index: number;
  readonly slot: number;
}

type Test = (chunk: Chunk) => boolean;

const AT_ONCE = 128;
/** Chunks that may hold a truncation's place, since they carry the same ID. */
const MAX_SAME_ID = 512;
const MARGIN_CHUNKS = 64;

/** What was found does not tell: only a walk does. */
class Unclear extends Error {}

/**
 * Finds what a range needs by a few headers of each term and searches over its slots, which are dense and whose positions
 * are in order. What a walk from the floor on would give for the range is in the stretch, whatever later openings took
 * back; null where only that walk can tell.
 */
export async function seek(options: Seek): Promise<Stretch | null> {
  const { archive, floor, range, format } = options;
  const isAll = range.from === null && range.until.kind === 'latest';
  if (isAll || !format.covers) return null;
  try {
    const outlines = await readOutline(archive, floor);
    return outlines && (await new Seeker(options).find(outlines));
  } catch (error) {
    if (error instanceof Unclear || isDamage(error)) return null;
    throw error;
  }
}

class Seeker {
  readonly #options: Seek;
  readonly #archive: Archive;
  readonly #format: SeekFormat;
  readonly #read = new Map<string, Promise<Read<Chunk>>>();

  constructor(options: Seek) {
    this.#options = options;
    this.#archive = options.archive;
    this.#format = options.format;
  }

  async find(outlines: readonly TermOutline[]): Promise<Stretch> {
    const { range, marginChunks = MARGIN_CHUNKS } = this.#options;
    const spans = await this.#living(outlines);
    if (spans.length === 0) throw new Unclear('no chunk');
    // A base backup's ID may be of either life of the log: only all of it tells that it names two places.
    if (range.from !== null && outlines.some(({ opening }) => opening?.result === 'reset')) {
      throw new Unclear('IDs that begin again');
    }
    const [next, last] = await Promise.all([this.#firstNew(spans, range.from), this.#target(spans, range.until)]);
    // Nothing new: an end is wanted all the same, since only its bytes tell whether it is there.
    const first = range.from === null ? null : (next ?? last ?? lastOf(spans));
    const upTo = last && placeBehind(spans, first !== null && isBefore(last, first) ? first : last, marginChunks);
    const from = first && (await this.#segmentStart(spans, first));
    if (from === null) return { before: outlines[0]!.start, from: outlines[0]!.start, upTo };
    const { outline } = spans.find((span) => span.outline.term === from.term)!;
    return { before: await this.#proofOf(outline, from), from, upTo };
  }

  /** The chunks that count, in chain order. */
  async #living(outlines: readonly TermOutline[]): Promise<Span[]> {
    let spans: Span[] = [];
    for (const outline of outlines) {
      const { opening, start, firstSlot, endSlot } = outline;
      if (opening?.at && (opening.result === 'truncate' || opening.result === 'fork')) {
        const cut = opening.common ?? opening.at;
        if (!standsAt(start.position, cut)) spans = await this.#cutBack(spans, cut);
      }
      if (firstSlot < endSlot) spans.push({ outline, endSlot, wholeEndSlot: endSlot });
    }
    return spans;
  }

  async #cutBack(spans: readonly Span[], cut: Position): Promise<Span[]> {
    const spot = await this.#lastTurn(spans, ({ to }) => this.#covers(to.id, cut.id));
    if (spot === null) throw new Unclear('a place that is not in the log');
    for await (const { index, chunk } of this.#chunksFrom(spans, spot)) {
      if (!isSameLife(chunk.from, cut) || chunk.from.offset > cut.offset || chunk.to.offset < cut.offset) continue;
      const { slot } = chunk;
      const endSlot = chunk.from.offset === cut.offset ? slot : slot + 1;
      const wholeEndSlot = chunk.to.offset === cut.offset ? endSlot : slot;
      const { outline } = spans[index]!;
      const kept = endSlot > outline.firstSlot ? [{ outline, endSlot, wholeEndSlot }] : [];
      return [...spans.slice(0, index), ...kept];
    }
    throw new Unclear('a place that is not near its ID');
  }

  async *#chunksFrom(spans: readonly Span[], spot: Spot): AsyncGenerator<{ index: number; chunk: Chunk }> {
    let left = MAX_SAME_ID;
    for (let { index, slot } = spot; index < spans.length && left > 0; index++) {
      const { outline, endSlot } = spans[index]!;
      for (; slot < endSlot && left > 0; slot++, left--) {
        yield { index, chunk: (await this.#chunk(outline, slot)).header };
      }
      slot = spans[index + 1]?.outline.firstSlot ?? 0;
    }
  }

  /** The first chunk with something that `from` does not have; null where it has all. */
  async #firstNew(spans: readonly Span[], from: string | null): Promise<Spot | null> {
    if (from === null) return null;
    const isNew = async ({ outline }: Span, slot: number) =>
      !this.#covers(from, (await this.#chunk(outline, slot)).header.to.id);
    const news = await mapAtOnce(spans, AT_ONCE, (span) => isNew(span, span.endSlot - 1));
    const index = news.indexOf(true);
    if (index === -1) return null;
    const span = spans[index]!;
    return { index, slot: await firstWhere(span.outline.firstSlot, span.endSlot - 1, (slot) => isNew(span, slot)) };
  }

  /** A chunk in which the target is passed; null where none is known. */
  async #target(spans: readonly Span[], until: Until): Promise<Spot | null> {
    if (until.kind === 'latest') return null;
    if (until.kind === 'id') return this.#lastTurn(spans, ({ to }) => this.#covers(to.id, until.id));
    const latestMs = ({ firstEventMs, lastEventMs }: Chunk) => Math.max(firstEventMs ?? 0, lastEventMs ?? 0);
    return this.#lastTurn(spans, (chunk) => latestMs(chunk) > until.ms);
  }

  /**
   * The first chunk for which the test holds; where it comes to hold more than once (IDs begin again after a reset, clocks
   * are set back), the last time.
   */
  async #lastTurn(spans: readonly Span[], test: Test): Promise<Spot | null> {
    const holds = async ({ outline }: Span, slot: number) => test((await this.#chunk(outline, slot)).header);
    const ends = await mapAtOnce(spans, AT_ONCE, async (span) => {
      const { outline, wholeEndSlot } = span;
      if (wholeEndSlot === outline.firstSlot) return null;
      return Promise.all([holds(span, outline.firstSlot), holds(span, wholeEndSlot - 1)]);
    });
    let turn: Spot | null = null;
    for (let index = spans.length - 1; index >= 0; index--) {
      const [atFirst, atLast] = ends[index] ?? [turn !== null, turn !== null];
      if (ends[index] === null) continue;
      if (!atLast && turn !== null) return turn;
      const span = spans[index]!;
      const { firstSlot } = span.outline;
      if (atLast && !atFirst) {
        return { index, slot: await firstWhere(firstSlot, span.wholeEndSlot - 1, (slot) => holds(span, slot)) };
      }
      if (atFirst) turn = { index, slot: firstSlot };
    }
    return turn;
  }

  /**
   * Where the chunk's file begins, in an earlier term where that went on with it: its first chunk, or the opening before
   * that; null: at the floor, or below it.
   */
  async #segmentStart(spans: readonly Span[], spot: Spot): Promise<Place | null> {
    const { from } = (await this.#chunk(spans[spot.index]!.outline, spot.slot)).header;
    const isOfFile = (chunk: Read<Chunk>) => isSameLife(chunk.header.from, from);
    for (let { index, slot } = spot; ; index--, slot = spans[index]!.endSlot - 1) {
      const { outline } = spans[index]!;
      const { term, firstSlot, opening } = outline;
      const first = await this.#chunk(outline, firstSlot);
      if (!isOfFile(first)) {
        const start = await firstWhere(firstSlot, slot, async (n) => isOfFile(await this.#chunk(outline, n)));
        return { term, slot: start };
      }
      const begins = first.header.from.offset === 0 || (opening && this.#format.fileStart?.(opening.evidence));
      if (begins || index === 0) return opening && { term, slot: 0 };
      const before = spans[index - 1]!;
      const { to } = (await this.#chunk(before.outline, before.endSlot - 1)).header;
      if (!isSameLife(to, from)) return opening && { term, slot: 0 };
    }
  }

  /** W objects before a place that name each other: no slot is begun so far above an empty one or a seal (rule 6). */
  async #proofOf(outline: TermOutline, { slot }: Place): Promise<ChainEnd> {
    const before = slot - this.#archive.info.window - 1;
    return before < outline.firstSlot ? outline.start : endAfter(await this.#chunk(outline, before));
  }

  #chunk(outline: TermOutline, slot: number): Promise<Read<Chunk>> {
    const key = `${outline.term}/${slot}`;
    const known = this.#read.get(key);
    if (known) return known;
    const reading = this.#readChunk(outline, slot);
    this.#read.set(key, reading);
    return reading;
  }

  async #readChunk({ term, start }: TermOutline, slot: number): Promise<Read<Chunk>> {
    const read = await readPlace(this.#archive, { term, slot });
    if (!read || !isChunk(read)) throw new Unclear('no chunk');
    const { header } = read;
    const isOwners = header.claim === start.owner && header.archive === start.archive && header.stream === start.stream;
    if (!isOwners || header.term !== term || header.slot !== slot) throw new Unclear('not the owner’s');
    return read;
  }

  #covers(id: string, target: string): boolean {
    return this.#format.covers?.(id, target) ?? false;
  }
}

const isChunk = (read: Read): read is Read<Chunk> => read.header.kind === 'chunk';

const lastOf = (spans: readonly Span[]): Spot => ({ index: spans.length - 1, slot: spans.at(-1)!.endSlot - 1 });

const isBefore = (a: Spot, b: Spot) => a.index - b.index < 0 || (a.index === b.index && a.slot < b.slot);

/** The whole chunk so many behind; null where there are not as many. */
function placeBehind(spans: readonly Span[], spot: Spot, count: number): Place | null {
  let left = count;
  let { slot } = spot;
  for (const { outline, wholeEndSlot } of spans.slice(spot.index)) {
    slot = Math.max(slot, outline.firstSlot);
    const room = wholeEndSlot - 1 - slot;
    if (room >= left) return { term: outline.term, slot: slot + left };
    left -= room + 1;
    slot = 0;
  }
  return null;
}

/** Whether going on there takes nothing back. */
const standsAt = (end: Position | null, at: Position) =>
  end !== null && (samePlace(at, end) || (at.offset === 0 && end.offset === 0 && at.segment === end.segment));

const isSameLife = (a: Position, b: Position) =>
  a.segment === b.segment && a.origin === b.origin && a.incarnation === b.incarnation;

function isDamage(error: unknown): boolean {
  return error instanceof ShipmateError && (error.code === 'CHAIN_BROKEN' || error.code === 'BAD_OBJECT');
}
