import type { ChainEnd, Met } from './chain.ts';
import { type Chunk, placeIn, type Read } from './header.ts';
import { comparePlaces, type Place, placeText } from './keys.ts';
import { samePlace } from './position.ts';
import { LivingLog } from './ranges.ts';

/** What retention keeps: everything that any of these asks for. */
export interface Keep {
  /** The log of so long. */
  readonly ageMs?: number;
  /** So many of the newest segments. */
  readonly segments?: number;
  /** The log back to the oldest of so many days (ISO weeks, months; UTC) that have any. */
  readonly daily?: number;
  readonly weekly?: number;
  readonly monthly?: number;
}

/** A part of the chain: from a segment's first chunk to the next such, whatever stands between. */
export interface Part {
  /** The walk's state before its first chunk: what a floor there holds. */
  readonly start: ChainEnd;
  /** The segment that it begins with; null for what the walk began amid. */
  readonly segment: string | null;
  /** Whether a reader can start here: the segment's first byte is part of the log now. */
  readonly living: boolean;
  /** Wall clock of its newest chunk, milliseconds since 1970. */
  readonly latestMs: number;
  /** Days since 1970, UTC, from which it has log that counts. */
  readonly days: ReadonlySet<number>;
}

type GrowingPart = { -readonly [K in keyof Omit<Part, 'living' | 'days'>]: Part[K] };

const DAY_MS = 86_400_000;

/** Chunks of one day that go on from each other, as if they were one: an archive of years has hundreds of millions. */
interface Growing {
  readonly read: Read<Chunk>;
  readonly day: number;
}

/** Gathers from a walk over the chain what retention goes by. */
export class PastLog {
  readonly seals: Place[] = [];
  readonly #living: LivingLog;
  readonly #isCompanion: (segment: string) => boolean;
  readonly #parts: GrowingPart[];
  /** Days since 1970 of what the living log takes for chunks, by the place of the first of them. */
  readonly #days = new Map<string, number>();
  #growing: Growing | null = null;
  #before: ChainEnd;

  /** `isCompanion`: tells files without which others are of no use: they stay, and no reader starts with one. */
  constructor(from: ChainEnd, isCompanion: (segment: string) => boolean) {
    this.#living = new LivingLog(from.position);
    this.#isCompanion = isCompanion;
    this.#before = from;
    this.#parts = [newPart(from, null)];
  }

  /** The next object of the walk, foreign ones included. */
  readonly meet = (met: Met, read: Read, end: ChainEnd): void => {
    const { header } = read;
    if (met === 'chunk' && header.kind === 'chunk') this.#meetChunk({ ...read, header });
    else if (met !== 'foreign') {
      this.#settle();
      this.#living.add(read);
    }
    if (met === 'seal') this.seals.push(placeIn(header));
    this.#before = end;
  };

  /** In chain order; the first one is what the walk began amid. */
  parts(): Part[] {
    this.#settle();
    const parts = this.#parts.map((part) => ({ ...part, living: false, days: new Set<number>() }));
    let index = 0;
    for (const { segments } of this.#living.runs) {
      for (const { place, offset } of segments.flatMap(({ pieces }) => pieces)) {
        while (index + 1 < parts.length && comparePlaces(parts[index + 1]!.start, place) <= 0) index++;
        const part = parts[index]!;
        part.living ||= offset === 0 && part.segment !== null && comparePlaces(part.start, place) === 0;
        part.days.add(this.#days.get(placeText(place))!);
      }
    }
    return parts;
  }

  #meetChunk(read: Read<Chunk>): void {
    const chunk = read.header;
    const { from } = chunk;
    if (from.offset === 0 && !this.#isCompanion(from.segment)) this.#parts.push(newPart(this.#before, from.segment));
    const part = this.#parts.at(-1)!;
    const ms = timeOf(chunk);
    part.latestMs = Math.max(part.latestMs, ms);
    const day = Math.floor(ms / DAY_MS);
    const last = this.#growing;
    if (last && last.day === day && samePlace(from, last.read.header.to)) {
      const { to, openTransaction } = chunk;
      const length = last.read.header.length + chunk.length;
      this.#growing = { day, read: { ...last.read, header: { ...last.read.header, to, length, openTransaction } } };
    } else {
      this.#settle();
      this.#growing = { day, read };
    }
  }

  #settle(): void {
    if (this.#growing === null) return;
    const { read, day } = this.#growing;
    this.#growing = null;
    this.#days.set(placeText(read.header), day);
    this.#living.add(read);
  }
}

const newPart = (start: ChainEnd, segment: string | null): GrowingPart => {
  return { start, segment, latestMs: Number.NEGATIVE_INFINITY };
};

/** A chunk is as young as it was shipped, or as what it holds: a clock that ran ahead keeps more, none deletes too early. */
function timeOf({ time, firstEventMs, lastEventMs }: Chunk): number {
  const shippedMs = Date.parse(time);
  return Math.max(Number.isNaN(shippedMs) ? 0 : shippedMs, firstEventMs ?? 0, lastEventMs ?? 0);
}

export interface Bounds {
  readonly keep: Keep;
  /** Wall clock. */
  readonly nowMs: number;
  /** The floor must not be above any of these: the ends of copies, and of what is settled. */
  readonly notAbove: readonly Place[];
}

/**
 * Where readers may start from now on: the newest part that a reader can start at, and before which nothing is that must
 * stay. The newest living segment always stays. Null: not above where the walk began.
 */
export function chooseFloor(parts: readonly Part[], { keep, nowMs, notAbove }: Bounds): Part | null {
  const oldestKept = Math.min(
    parts.findLastIndex(({ living }) => living),
    ...neededBy(parts, keep, nowMs),
  );
  const isFloor = ({ living, start }: Part) => living && notAbove.every((place) => comparePlaces(start, place) <= 0);
  return parts.slice(0, oldestKept + 1).findLast(isFloor) ?? null;
}

/** Of each rule, the index of the first part that it asks for. */
function* neededBy(parts: readonly Part[], keep: Keep, nowMs: number): Generator<number> {
  const { ageMs, segments, daily, weekly, monthly } = keep;
  if (ageMs !== undefined)
    yield orNone(
      parts.findIndex(({ latestMs }) => latestMs >= nowMs - ageMs),
      parts,
    );
  if (segments !== undefined) {
    const living = [...parts.keys()].filter((index) => parts[index]!.living);
    yield living.at(-segments) ?? 0;
  }
  if (daily !== undefined) yield firstOfPeriods(parts, daily, (day) => day);
  if (weekly !== undefined) yield firstOfPeriods(parts, weekly, weekOf);
  if (monthly !== undefined) yield firstOfPeriods(parts, monthly, monthOf);
}

/** Nothing that is old enough to matter asks for the newest part only. */
const orNone = (index: number, parts: readonly Part[]) => (index === -1 ? parts.length : index);

function firstOfPeriods(parts: readonly Part[], count: number, periodOf: (day: number) => number): number {
  const periods = new Set(parts.flatMap(({ days }) => [...days].map(periodOf)));
  const kept = [...periods].sort((a, b) => b - a).slice(0, count);
  const oldest = kept.at(-1) ?? 0;
  return orNone(
    parts.findIndex(({ days }) => [...days].some((day) => periodOf(day) >= oldest)),
    parts,
  );
}

/** Weeks since 1970, each from Monday on: the first of January 1970 was a Thursday. */
const weekOf = (day: number) => Math.floor((day + 3) / 7);

function monthOf(day: number): number {
  const date = new Date(day * DAY_MS);
  return date.getUTCFullYear() * 12 + date.getUTCMonth();
}

/**
 * Up to where all below is settled, judged by the chain's end: no slot is begun a window above an unsettled one (protocol
 * rule 6), so that no writer is in doubt about what is deleted.
 */
export const settledBelow = ({ term, slot }: ChainEnd, window: number): Place => ({
  term,
  slot: Math.max(0, slot - window),
});

/** The newest floor that is at least so old; null: none. */
export function dueFloor<F extends { readonly timeMs: number | null }>(
  floors: readonly F[],
  { nowMs, delayMs }: { readonly nowMs: number; readonly delayMs: number },
): F | null {
  return floors.findLast(({ timeMs }) => timeMs !== null && timeMs <= nowMs - delayMs) ?? null;
}
