import { type Chunk, type Opening, placeIn, type Read, type Result } from './header.ts';
import type { Place } from './keys.ts';
import { type Position, samePlace } from './position.ts';

/** A chunk, or the first part of one, whose bytes are in the log. */
export interface Piece {
  readonly place: Place;
  /** Of the chunk's header. */
  readonly digest: string;
  /** Of all of the chunk's plain bytes. */
  readonly witness: string;
  /** Whether the chunk is encrypted: then its witness is keyed, and tells nothing without the stream's secret. */
  readonly encrypted: boolean;
  /** Where its first byte stands in the segment. */
  readonly offset: number;
  /** Plain bytes that count, from the chunk's first on. */
  readonly length: number;
  /** Plain bytes of the whole chunk. */
  readonly chunkLength: number;
  /** The log's ID after its last byte; null where a cut inside the chunk leaves it unknown. */
  readonly toId: string | null;
  readonly firstEventMs: number | null;
  readonly lastEventMs: number | null;
  /** Whether a transaction is open after its last byte. */
  readonly openTransaction: boolean;
}

export type Evidence = Opening['evidence'];

/** One file of the log, in one of its lives: contiguous bytes from `offset` on, which is 0 where the file is whole. */
export interface Segment {
  readonly name: string;
  readonly origin: string;
  readonly incarnation: string;
  readonly offset: number;
  readonly length: number;
  /** The log's ID at its first byte. */
  readonly fromId: string;
  /** What the opening says that begins the segment inside its file; null where none does. */
  readonly evidence: Evidence | null;
  readonly pieces: readonly Piece[];
}

/** Segments that go on from each other, each name once: one server's log between two restarts of its names. */
export interface Run {
  readonly origin: string;
  readonly segments: readonly Segment[];
  /** Bytes are missing between the run before and this one. */
  readonly afterGap: boolean;
  /** The log began anew (RESET MASTER): its IDs may be those of other transactions in the runs before. */
  readonly anew: boolean;
  /** Only transactions up to this ID count, since another server's log goes on from there; null: all bytes do. */
  readonly until: string | null;
}

/** Where the log did not simply go on. */
export interface Break {
  /** `gap` also where nothing in the archive explains what lies between. */
  readonly result: Result;
  readonly place: Place;
  readonly node: string;
  readonly time: string;
  /** Up to where the log was in the archive. */
  readonly before: Position | null;
  /** From where it went on. */
  readonly at: Position;
  /** What was shipped and does not count any more. */
  readonly deadBytes: number;
}

/** A place between two bytes of a run. */
export interface Cut {
  /** Index of the run's segment. */
  readonly segment: number;
  /** In that segment's file. */
  readonly offset: number;
  /** The log's ID there; null where it is not known. */
  readonly id: string | null;
}

type Growing<T> = { -readonly [K in keyof T]: T[K] };
type GrowingSegment = Growing<Omit<Segment, 'pieces'>> & { pieces: Piece[] };
type GrowingRun = Growing<Omit<Run, 'segments'>> & { segments: GrowingSegment[] };

/**
 * What of the shipped bytes is the log now. Fed with the chain's headers in order, foreign ones left out, it takes back
 * what later openings take back.
 */
export class LivingLog {
  readonly #runs: GrowingRun[] = [];
  readonly #breaks: Break[] = [];
  /** Where the next byte is expected. */
  #end: Position | null;
  #opening: Opening | null = null;

  /** `from`: where the log stands before the first header (a floor's position); null at an archive's start. */
  constructor(from: Position | null = null) {
    this.#end = from;
  }

  /** In order; none is without a byte. */
  get runs(): readonly Run[] {
    return this.#runs.filter(({ segments }) => segments.length > 0);
  }

  get breaks(): readonly Break[] {
    return this.#breaks;
  }

  /** Up to where the log is in the archive. */
  get end(): Position | null {
    return this.#end;
  }

  /** The next header of the chain. */
  add({ header, digest }: Read): void {
    if (header.kind === 'chunk') this.#append(header, digest);
    else if (header.kind === 'opening' && header.at !== null) this.#open(header, header.at);
  }

  #open(opening: Opening, at: Position): void {
    const { node, time } = opening;
    const before = this.#end;
    const deadBytes = this.#livingBytes();
    const result = this.#applyOpening(opening, at);
    this.#end = at;
    this.#opening = opening;
    if (result === 'start' || result === 'resume') return;
    const place = placeIn(opening);
    this.#breaks.push({ result, place, node, time, before, at, deadBytes: deadBytes - this.#livingBytes() });
  }

  /** Returns what it turned out to be. */
  #applyOpening({ result, common }: Opening, at: Position): Result {
    switch (result) {
      case 'fork':
        if (common !== undefined && !this.#goBackTo(common)) return this.#skipTo(at);
        if (common !== undefined) this.#beginRun(at);
        else if (!this.#goBackTo(at) && !this.#leaveFor(at)) return this.#skipTo(at);
        return result;
      case 'truncate':
        return this.#goBackTo(at) || this.#leaveFor(at) ? result : this.#skipTo(at);
      case 'move':
        this.#endAtTransaction();
        this.#beginRun(at);
        return result;
      case 'switch':
        // What was shipped of the old timeline beyond the switch stays: its reader knows by the history file where to leave.
        this.#beginRun(at);
        return result;
      case 'reset':
        this.#beginRun(at).anew = true;
        return result;
      case 'gap':
        return this.#skipTo(at);
      default:
        return goesOn(at, this.#end) ? result : this.#skipTo(at);
    }
  }

  #beginRun({ origin }: Position): GrowingRun {
    const run: GrowingRun = { origin, segments: [], afterGap: false, anew: false, until: null };
    const last = this.#runs.at(-1);
    if (last?.segments.length === 0) {
      run.afterGap = last.afterGap;
      run.anew = last.anew;
      this.#runs.pop();
    }
    this.#runs.push(run);
    return run;
  }

  #skipTo(at: Position): 'gap' {
    this.#beginRun(at).afterGap = true;
    return 'gap';
  }

  #endAtTransaction(): void {
    const run = this.#runs.at(-1);
    const last = run?.segments.at(-1)?.pieces.at(-1);
    if (run && last?.openTransaction) run.until = last.toId;
  }

  /** Everything after `at` does not count any more; false where the archive has no such place. */
  #goBackTo(at: Position): boolean {
    const end = this.#end;
    if (end !== null && samePlace(at, end)) return true;
    if (this.#cutBack((run) => cutInside(run, at))) return true;
    if (end !== null && isStart(at) && isStart(end) && at.segment === end.segment) return true;
    return this.#cutBack((run) => cutBefore(run, at));
  }

  /** Cuts the newest run that has such a place, and drops those after it. */
  #cutBack(cutFor: (run: Run) => Cut | null): boolean {
    for (let index = this.#runs.length - 1; index >= 0; index--) {
      const run = this.#runs[index]!;
      const cut = cutFor(run);
      if (cut === null) continue;
      this.#runs.length = index + 1;
      run.segments = cutSegments(run.segments, cut);
      run.until = null;
      return true;
    }
    return false;
  }

  /** Another server's log goes on, and names the last common point by its ID alone. */
  #leaveFor(at: Position): boolean {
    const run = this.#runs.at(-1);
    if (run?.segments.at(-1)?.origin === at.origin) return false;
    if (run) run.until = at.id;
    this.#beginRun(at);
    return true;
  }

  #append(chunk: Chunk, digest: string): void {
    const { from, to } = chunk;
    const run = this.#runs.at(-1) ?? this.#beginRun(from);
    const last = run.segments.at(-1);
    if (last && isLifeOf(last, from) && endOf(last) === from.offset) {
      last.pieces.push(pieceOf(chunk, digest));
      last.length += chunk.length;
    } else {
      const isNew = run.segments.every(({ name }) => name !== from.segment);
      (isNew ? run : this.#beginRun(from)).segments.push(segmentOf(chunk, digest, this.#evidenceAt(from)));
    }
    this.#end = to;
  }

  #evidenceAt(from: Position): Evidence | null {
    const opening = this.#opening;
    return from.offset > 0 && opening?.at && samePlace(opening.at, from) ? opening.evidence : null;
  }

  #livingBytes(): number {
    return this.#runs.reduce((sum, run) => sum + runBytes(run), 0);
  }
}

/** The runs between which no byte is missing, in order. */
export function stretchesOf(runs: readonly Run[]): Run[][] {
  const stretches: Run[][] = [];
  for (const run of runs) {
    const last = stretches.at(-1);
    if (last === undefined || run.afterGap) stretches.push([run]);
    else last.push(run);
  }
  return stretches;
}

/** The run without what lies beyond the cut. */
export function cutRun(run: Run, cut: Cut): Run {
  return { ...run, segments: cutSegments(run.segments, cut) };
}

export function runBytes({ segments }: Pick<Run, 'segments'>): number {
  return segments.reduce((sum, { length }) => sum + length, 0);
}

/** Where the run's bytes end: its last ID, and the last time that its chunks tell. */
export function runEnd({ segments }: Run): { id: string | null; timeMs: number | null } {
  const last = segments.at(-1)?.pieces.at(-1);
  for (const segment of segments.toReversed()) {
    const timed = segment.pieces.findLast(({ lastEventMs }) => lastEventMs !== null);
    if (timed) return { id: last?.toId ?? null, timeMs: timed.lastEventMs };
  }
  return { id: last?.toId ?? null, timeMs: null };
}

/** Where the run's bytes begin: the ID before its first byte, and the first time that its chunks tell. */
export function runStart({ segments }: Run): { id: string | null; timeMs: number | null } {
  const id = segments[0]?.fromId ?? null;
  for (const segment of segments) {
    const timed = segment.pieces.find(({ firstEventMs }) => firstEventMs !== null);
    if (timed) return { id, timeMs: timed.firstEventMs };
  }
  return { id, timeMs: null };
}

const endOf = ({ offset, length }: Pick<Segment, 'offset' | 'length'>) => offset + length;

const isStart = ({ offset }: Position) => offset === 0;

function goesOn(at: Position, end: Position | null): boolean {
  return end === null || samePlace(at, end) || (isStart(at) && (at.segment !== end.segment || isStart(end)));
}

function cutInside({ segments }: Run, at: Position): Cut | null {
  const index = segments.findLastIndex((segment) => isLifeOf(segment, at));
  const found = segments[index];
  if (!found || at.offset < found.offset || at.offset > endOf(found)) return null;
  return { segment: index, offset: at.offset, id: at.id };
}

/** A file begins another life under its name: all of the life before goes. */
function cutBefore({ segments }: Run, at: Position): Cut | null {
  const index = segments.findLastIndex(({ name, origin }) => name === at.segment && origin === at.origin);
  const found = segments[index];
  return found && isStart(at) ? { segment: index, offset: found.offset, id: at.id } : null;
}

function cutSegments(segments: readonly Segment[], { segment: index, offset, id }: Cut): GrowingSegment[] {
  const cut = segments.slice(0, index + 1).map((segment) => ({ ...segment, pieces: [...segment.pieces] }));
  const last = cut.at(-1);
  if (!last) return cut;
  last.pieces = last.pieces.filter((piece) => piece.offset < offset);
  const piece = last.pieces.at(-1);
  if (piece && endOf(piece) > offset) last.pieces.push(cutPiece(last.pieces.pop()!, { offset, id }));
  last.length = Math.min(last.length, offset - last.offset);
  return last.length > 0 ? cut : cut.slice(0, -1);
}

/** Cuts lie on transaction boundaries, or where a crash left the log: either way nothing stays open. */
function cutPiece(piece: Piece, { offset, id }: Pick<Cut, 'offset' | 'id'>): Piece {
  return { ...piece, length: offset - piece.offset, toId: id, lastEventMs: null, openTransaction: false };
}

const isLifeOf = ({ name, origin, incarnation }: Segment, position: Position) =>
  name === position.segment && origin === position.origin && incarnation === position.incarnation;

function segmentOf(chunk: Chunk, digest: string, evidence: Evidence | null): GrowingSegment {
  const { segment, origin, incarnation, offset, id } = chunk.from;
  const pieces = [pieceOf(chunk, digest)];
  return { name: segment, origin, incarnation, offset, length: chunk.length, fromId: id, evidence, pieces };
}

function pieceOf(chunk: Chunk, digest: string): Piece {
  const { from, to, length, witness, recipients, firstEventMs, lastEventMs, openTransaction } = chunk;
  return {
    place: placeIn(chunk),
    digest,
    witness,
    encrypted: recipients !== undefined,
    offset: from.offset,
    length,
    chunkLength: length,
    toId: to.id,
    firstEventMs,
    lastEventMs,
    openTransaction,
  };
}
