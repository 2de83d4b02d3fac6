import { openingsBelow, readOutline } from '../archive/outline.ts';
import { type Hole, readFromFloor, readToEnd } from '../archive/reader.ts';
import type { Range } from '../archive/seek.ts';
import { type Archive, findEnd, readFloor, readPlace } from '../archive/walk.ts';
import { type ChainEnd, endAfter, type Met } from '../core/chain.ts';
import { type Chunk, type Opening, placeIn, type Read } from '../core/header.ts';
import { comparePlaces, placeText } from '../core/keys.ts';
import type { Position } from '../core/position.ts';
import { cutRun, type Piece, type Segment } from '../core/ranges.ts';
import { ArchiveNotWhole, ShipmateError } from '../errors.ts';
import type { FilesByName } from '../source/source.ts';
import { type ChunkReader, notWhole } from './chunks.ts';
import { GoingOver } from './fetch-over.ts';
import { type LivingSegment, livingSegments, RangeReader, type RangeReading, readRange } from './fetch-range.ts';

/** A file of the log as the archive has it. */
export interface FoundFile {
  readonly name: string;
  readonly pieces: readonly Pick<
    Piece,
    'place' | 'digest' | 'chunkLength' | 'length' | 'offset' | 'witness' | 'encrypted'
  >[];
  /** In the archive. */
  readonly length: number;
  /** Of the whole file: what is missing at its end was never written, and is zeros. */
  readonly fileBytes: number;
  /** Whether the archive has something of the file that follows it on its timeline, or has left that. */
  readonly goesOn: boolean;
}

/** Proof that the archive holds nothing of the file; anything less is an error. */
export interface Absent {
  readonly absent: string;
  /** It is the history file of a timeline below the newest one, of which nothing was ever shipped. */
  readonly isPassed?: boolean;
  /** It was written before the archive began, and will never be there. */
  readonly isBefore?: boolean;
}

/**
 * Finds the newest living life of a segment, or a history file of any life, by the chain's headers; of the chain only what
 * lies about it is read. Throws ArchiveNotWhole where a gap, a hole or damage keeps from telling.
 */
export async function findFile(chunks: ChunkReader, name: string, files: FilesByName): Promise<FoundFile | Absent> {
  try {
    const search = new FileSearch(chunks, files);
    return files.kindOf(name) === 'history' ? await search.history(name) : await search.segment(name);
  } catch (error) {
    throw notWhole(error);
  }
}

/** How long each of the log's segments is. Reads payload where the place of the head does not tell. */
export async function segmentBytesOf(chunks: ChunkReader, head: Position, files: FilesByName): Promise<number> {
  const known = files.segmentBytesAt(head);
  if (known !== null) return known;
  const isTelling = ({ segment }: LivingSegment) => files.kindOf(segment.name) === 'segment' && segment.offset === 0;
  const newest = await readRange(chunks.archive, files, { from: head.id, until: { kind: 'latest' } });
  const oldest = await readToFirst(chunks.archive, isTelling);
  for (const { segment } of [...livingSegments(newest), ...oldest].filter(isTelling)) {
    const told = files.segmentBytesIn((await chunks.read(segment.pieces[0]!)).bytes);
    if (told !== null) return told;
  }
  throw new ShipmateError(`the archive of stream ${chunks.archive.info.stream} does not tell how long a segment is`, {
    code: 'NO_SEGMENT_SIZE',
    hint: 'it holds no segment from its start on: "shipmate verify" tells more',
  });
}

/** The archive's first segments: its first terms may hold nothing, or a history file alone. */
async function readToFirst(archive: Archive, isEnough: (segment: LivingSegment) => boolean): Promise<LivingSegment[]> {
  const floor = await readFloor(archive);
  const reader = new RangeReader(floor);
  for (let end = floor; ; ) {
    const upTo = { term: end.term, slot: end.slot + HISTORY_CHUNKS };
    const read = await readToEnd(archive, end, reader.meet.bind(reader), upTo);
    const segments = livingSegments({ reader });
    if (segments.some(isEnough) || comparePlaces(read.end, end) === 0) return segments;
    end = read.end;
  }
}

type Part = Pick<FoundFile, 'pieces' | 'length'>;

/** A segment that is asked for, and the IDs at its ends. */
interface Wanted {
  readonly name: string;
  readonly from: string;
  readonly to: string;
  readonly fileBytes: number;
}

/** Where a timeline was left. */
interface Left {
  readonly id: string;
  /** In its segment. */
  readonly offset: number;
}

class FileSearch {
  readonly #chunks: ChunkReader;
  readonly #archive: Archive;
  readonly #files: FilesByName;

  constructor(chunks: ChunkReader, files: FilesByName) {
    this.#chunks = chunks;
    this.#archive = chunks.archive;
    this.#files = files;
  }

  async segment(name: string): Promise<FoundFile | Absent> {
    const { head, hole } = await this.#head();
    const { position } = head;
    if (position === null || this.#files.isBehind(name, position)) {
      if (hole !== null) throw this.#missing(hole);
      return absent(position === null ? 'nothing was shipped yet' : `the archive ends at ${position.id}`);
    }
    const fileBytes = await segmentBytesOf(this.#chunks, position, this.#files);
    const { from, to } = this.#files.span(name, fileBytes);
    const reading = await readRange(this.#archive, this.#files, { from, until: { kind: 'id', id: to } });
    const all = livingSegments(reading);
    const at = all.findLastIndex(({ segment }) => segment.name === name);
    const own = all[at]?.segment;
    const goesOn = !this.#files.isBehind(this.#files.next(name, fileBytes), position);
    if (own === undefined || own.offset > 0 || own.length < fileBytes) {
      const part = await this.#inherited({ name, from, to, fileBytes }, own, reading);
      if (part !== null) return 'absent' in part ? part : { name, ...part, fileBytes, goesOn };
    }
    if (own === undefined) return this.#notLiving(reading, from);
    if (own.offset > 0 || own.length > fileBytes) throw this.#torn(own);
    if (own.length < fileBytes && !isRestUnwritten(reading, all, at)) {
      if (reading.hole !== null) throw this.#missing(reading.hole);
      throw this.#torn(own);
    }
    const isOfHead = own.origin === position.origin;
    if (!isOfHead || own.length < fileBytes) await this.#demandSwitched(position, to);
    return { name, pieces: own.pieces, length: own.length, fileBytes, goesOn };
  }

  /**
   * Of any life: the server asks for one timeline after the other, and takes the last one before a gap for the newest. So
   * those that were left have to be there, but none above the timeline that lives.
   */
  async history(name: string): Promise<FoundFile | Absent> {
    const { head, hole } = await this.#head();
    const { position } = head;
    const isAbove = position === null || this.#files.isBehind(name, position);
    const life = isAbove ? undefined : await this.#lifeOf(name);
    if (life !== undefined) return fileOf(name, life);
    if (hole !== null) throw this.#missing(hole);
    if (position === null) return absent('nothing was shipped yet');
    return { ...absent(`the archive ends at ${position.id}`), isPassed: !isAbove };
  }

  /** The living one, or else the newest. */
  async #lifeOf(name: string): Promise<Read<Chunk>[] | undefined> {
    const lives = await this.#livesOf(name);
    return lives.length > 1 ? this.#newestLiving(lives) : lives[0];
  }

  /** The chain's present end. */
  async #head(): Promise<{ head: ChainEnd; hole: Hole | null }> {
    const { end, hole } = await readToEnd(this.#archive, await findEnd(this.#archive, null), () => {});
    return { head: end, hole };
  }

  /** Complete ones, newest first; those below the floor, where retention leaves them, only if there is none above it. */
  async #livesOf(name: string): Promise<Read<Chunk>[][]> {
    const lives = new Lives(name);
    const floor = await readFloor(this.#archive);
    const outlines = await readOutline(this.#archive, floor);
    if (outlines === null) await readFromFloor(this.#archive, () => lives.clear());
    // A timeline's first term begins with its history file.
    const isOf = (at: Position | null | undefined) => at?.segment === name && at.offset === 0;
    const begun = (outlines ?? []).filter(({ opening }) => isOf(opening?.at));
    for (const { start } of begun) await this.#meetFirst(lives, start);
    if (lives.complete().length > 0) return lives.complete();
    const below: Read<Opening>[] = [];
    for await (const opening of openingsBelow(this.#archive, floor)) if (isOf(opening.header.at)) below.push(opening);
    for (const opening of below.reverse()) await this.#meetFirst(lives, endAfter(opening));
    return lives.complete();
  }

  /** The history file with which a term begins. */
  async #meetFirst(lives: Lives, start: ChainEnd): Promise<void> {
    const upTo = { term: start.term, slot: HISTORY_CHUNKS };
    const meet = lives.meet.bind(lives);
    const { end } = await readToEnd(this.#archive, start, meet, upTo);
    // Begun by a master that died at once, and gone on with by the next ones.
    if (!lives.isComplete) await readToEnd(this.#archive, end, meet);
  }

  async #newestLiving(lives: readonly Read<Chunk>[][]): Promise<Read<Chunk>[]> {
    const { id } = lives[0]![0]!.header.to;
    const range: Range = { from: this.#files.further(id, -1), until: { kind: 'id', id } };
    const { reader } = await readRange(this.#archive, this.#files, range);
    const living = reader.living.runs.flatMap(({ segments }) => segments.map(({ incarnation }) => incarnation));
    return lives.find(([first]) => living.includes(first!.header.from.incarnation)) ?? lives[0]!;
  }

  /**
   * While the archive goes over to another timeline, of which it has less than what both timelines have in common, recovery
   * would go on along the timeline that is left.
   */
  async #demandSwitched(head: Position, segmentEndId: string): Promise<void> {
    const history = this.#files.historyAt(head);
    const life = history === null ? undefined : await this.#lifeOf(history);
    if (life === undefined) return;
    const { id } = life[0]!.header.to;
    const isBefore = head.segment === history || this.#files.isFurther(id, head.id);
    if (isBefore && this.#files.isFurther(segmentEndId, id)) throw this.#goingOver(id, life[0]!.header.term);
  }

  /**
   * A segment inside which its timeline was left: what of it is not there under its own name begins the first segment of the
   * timeline that lives on. Up to where it was left, and no further, that is the same log. Null where nothing was left
   * there, or nothing is missing.
   */
  async #inherited(wanted: Wanted, own: Segment | undefined, reading: RangeReading): Promise<Part | Absent | null> {
    const history = this.#historyAfter(reading, wanted.to);
    const id = history ? await this.#leftAt(wanted.name, history) : null;
    if (!history || id === null || this.#files.covers(id, wanted.to)) return null;
    if (!this.#files.isFurther(id, wanted.from)) return own ? null : absent('its timeline was left before');
    const { offset } = this.#files.placeAt(id, wanted.fileBytes);
    if (own?.offset === 0 && own.length >= offset) return null;
    // Else the archive has a gap before it, or begins with it.
    return this.#beginsInside(history, wanted) ? this.#heirs(wanted, history, { id, offset }) : null;
  }

  /** A timeline that was left inside its first segment has none of its own: the next one's begins with both. */
  async #heirs(wanted: Wanted, history: Segment, left: Left): Promise<Part> {
    const { segment: name } = this.#files.placeAt(history.fromId, wanted.fileBytes);
    const { from, to } = this.#files.span(name, wanted.fileBytes);
    const reading = await readRange(this.#archive, this.#files, { from, until: { kind: 'id', id: to } });
    const heir = livingSegments(reading).findLast(({ segment }) => segment.name === name);
    if (heir?.segment.offset === 0 && heir.segment.length >= left.offset) {
      const { run, segment } = heir;
      const cut = cutRun(run, { segment: run.segments.indexOf(segment), ...left });
      return { pieces: cut.segments.at(-1)!.pieces, length: left.offset };
    }
    const later = this.#historyAfter(reading, to);
    if (!heir && later && this.#beginsInside(later, wanted)) return this.#heirs(wanted, later, left);
    if (reading.hole !== null) throw this.#missing(reading.hole);
    const { end } = reading.reader.living;
    const isAtHead = !reading.goesOn && (end?.segment === name || (end !== null && this.#isHistory(end)));
    throw isAtHead ? this.#goingOver(left.id, termOf(history)) : this.#gapAt(wanted.from);
  }

  #isHistory = ({ segment }: Pick<Position, 'segment'>) => this.#files.kindOf(segment) === 'history';

  /** The history file with which the living log goes over to a later timeline. */
  #historyAfter(reading: RangeReading, id: string): Segment | undefined {
    const segments = livingSegments(reading).map(({ segment }) => segment);
    return segments.find(({ name, fromId }) => this.#isHistory({ segment: name }) && this.#files.covers(fromId, id));
  }

  /** Whether the timeline's first segment is of the same place. */
  #beginsInside({ fromId }: Segment, { from, fileBytes }: Wanted): boolean {
    const { segment } = this.#files.placeAt(fromId, fileBytes);
    return !this.#files.isFurther(this.#files.span(segment, fileBytes).from, from);
  }

  async #leftAt(name: string, history: Segment): Promise<string | null> {
    const isIts = ([first]: Read<Chunk>[]) => first!.header.from.incarnation === history.incarnation;
    const life = (await this.#livesOf(history.name)).find(isIts);
    if (life === undefined) throw this.#goingOver(history.fromId, termOf(history));
    const pieces: Buffer[] = [];
    for await (const { bytes } of this.#chunks.readInOrder(life.map(refOf))) pieces.push(Buffer.from(bytes));
    return this.#files.leftAt(name, Buffer.concat(pieces));
  }

  /** `term`: of the timeline's beginning. */
  #goingOver(id: string, term: number): GoingOver {
    return new GoingOver(this.#archive.info.stream, { id, term });
  }

  /** Why a segment that lies before the head is not there, where that is sure. */
  async #notLiving(reading: RangeReading, from: string): Promise<Absent> {
    const { reader, hole, isPart } = reading;
    const pieces = reader.living.runs.flatMap(({ segments }) => segments.flatMap((segment) => segment.pieces));
    const next = pieces.find(({ toId }) => toId !== null && !this.#files.covers(from, toId));
    const after = next && (await readPlace(this.#archive, next.place));
    const { position, term: lastTerm } = reading.end;
    if (!after && hole === null && position && this.#isHistory(position)) throw this.#goingOver(position.id, lastTerm);
    if (!after) throw hole === null ? this.#gapAt(from) : this.#missing(hole);
    const floor = await readFloor(this.#archive);
    if (next === pieces[0] && !isPart) {
      if (floor.position !== null) throw this.#pruned(from, floor.position);
      return BEFORE_START;
    }
    const { term, slot } = next.place;
    const before = slot === 1 ? await readPlace(this.#archive, { term, slot: 0 }) : null;
    const result = before?.header.kind === 'opening' ? before.header.result : null;
    if (result === 'start') return BEFORE_START;
    if (result === 'switch' || result === 'fork') return absent('its timeline was left before, or began after it');
    const isAtFloor = comparePlaces({ term, slot: slot === 1 ? 0 : slot }, floor) <= 0;
    throw isAtFloor && floor.position ? this.#pruned(from, floor.position) : this.#gapAt(from);
  }

  /** Not "not in the archive": recovery would end there, and take a backup's own state for all that there is. */
  #pruned(id: string, begin: Position): ShipmateError {
    return new ShipmateError(
      `the archive of stream ${this.#archive.info.stream} begins at ${begin.id}: what it had at ${id} was deleted`,
      {
        code: 'PRUNED',
        hint: "a base backup that is older than what retention keeps can't be recovered: take a later one, or look into a copy",
      },
    );
  }

  #gapAt(id: string): ArchiveNotWhole {
    return new ArchiveNotWhole(
      `the archive of stream ${this.#archive.info.stream} has a gap at ${id}`,
      'recover from a base backup that was taken after the gap: "shipmate ls" shows where that ends',
    );
  }

  #torn({ name, offset, length }: Segment): ArchiveNotWhole {
    return new ArchiveNotWhole(
      `of ${name} the archive of stream ${this.#archive.info.stream} holds bytes ${offset} to ${offset + length} alone`,
      'there is a gap: "shipmate ls" shows it. Recover up to before it, or from a later base backup',
    );
  }

  #missing({ at, next }: Hole): ArchiveNotWhole {
    return new ArchiveNotWhole(
      `stream ${this.#archive.info.stream}: the object at ${placeText(at)} is missing, although the one at ` +
        `${placeText(next)} is there`,
      'run "shipmate verify" on this store and on its copies: --store names the one to read from',
    );
  }
}

/** A history file has some lines of text. */
const HISTORY_CHUNKS = 8;

/** The lives of a file that one chunk after the other is met of. */
class Lives {
  readonly #name: string;
  #lives: Read<Chunk>[][] = [];

  constructor(name: string) {
    this.#name = name;
  }

  clear(): this {
    this.#lives = [];
    return this;
  }

  get isComplete(): boolean {
    return isComplete(this.#lives.at(-1));
  }

  /** Newest first. */
  complete(): Read<Chunk>[][] {
    return this.#lives.filter(isComplete).reverse();
  }

  meet(met: Met, read: Read): void {
    if (met !== 'chunk' || !isChunk(read) || read.header.from.segment !== this.#name) return;
    if (read.header.from.offset === 0) this.#lives.push([]);
    const life = this.#lives.at(-1);
    if (life && !isComplete(life)) life.push(read);
  }
}

const isComplete = (life: Read<Chunk>[] | undefined) => life?.at(-1)?.header.endsSegment ?? false;

const isChunk = (read: Read): read is Read<Chunk> => read.header.kind === 'chunk';

const absent = (why: string): Absent => ({ absent: why });

const BEFORE_START: Absent = { absent: 'it lies before the archive’s start', isBefore: true };

/** Whether nothing follows the segment's bytes in its own timeline: at the head, and where the timeline was left. */
function isRestUnwritten({ reader, hole, goesOn }: RangeReading, all: readonly LivingSegment[], at: number): boolean {
  const { segment } = all[at]!;
  const next = all[at + 1];
  if (next !== undefined) return !next.run.afterGap && next.segment.origin !== segment.origin;
  if (hole !== null || goesOn) return false;
  const { end, breaks } = reader.living;
  const isHead = end !== null && end.segment === segment.name && end.offset === segment.length;
  return isHead || (end?.origin !== segment.origin && breaks.at(-1)?.result !== 'gap');
}

function fileOf(name: string, chunks: readonly Read<Chunk>[]): FoundFile {
  const pieces = chunks.map((chunk) => {
    const { from, length, witness, recipients } = chunk.header;
    return { ...refOf(chunk), offset: from.offset, length, witness, encrypted: recipients !== undefined };
  });
  const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
  return { name, pieces, length, fileBytes: length, goesOn: false };
}

const termOf = ({ pieces }: Segment) => pieces[0]!.place.term;

const refOf = ({ header, digest }: Read<Chunk>) => ({ place: placeIn(header), digest, chunkLength: header.length });
