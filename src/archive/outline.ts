import { type ChainEnd, endAfter, step } from '../core/chain.ts';
import type { Opening, Read, Seal } from '../core/header.ts';
import { comparePlaces, type Place } from '../core/keys.ts';
import { mapAtOnce } from './search.ts';
import { type Archive, nearEnd, readPlace, termsFrom } from './walk.ts';

/** A term by its ends. */
export interface TermOutline {
  readonly term: number;
  /** The walk's state at its first place, or at the floor where that stands inside it. */
  readonly start: ChainEnd;
  /** Null where it was never opened, or below the floor. */
  readonly opening: Opening | null;
  /** Slots of its chunks, half open. Of the last term: of those that surely are in the chain. */
  readonly firstSlot: number;
  readonly endSlot: number;
}

/** So many requests at once. */
const AT_ONCE = 128;

/**
 * The terms from the floor on, as each next one's first object tells where the one before was sealed: no listed or
 * galloped seal is taken for a term's end. Null where that leaves something open (objects that no owner wrote, missing
 * ones), so that only a walk can tell.
 */
export async function readOutline(archive: Archive, floor: ChainEnd): Promise<TermOutline[] | null> {
  const terms = [floor.term, ...(await termsFrom(archive, floor.term + 1))];
  const firsts = await mapAtOnce(terms, AT_ONCE, (term) => readPlace(archive, { term, slot: 0 }));
  const [seals, lastEnd] = await Promise.all([
    mapAtOnce(firsts.slice(1), AT_ONCE, (first) => sealBefore(archive, first)),
    nearEnd(archive, terms.at(-1)!, terms.length === 1 ? floor.slot : 0),
  ]);
  const outlines: TermOutline[] = [];
  let start = floor;
  for (const [index, term] of terms.entries()) {
    const opening = openingOf(start, firsts[index] ?? null);
    if (opening === undefined || term !== start.term) return null;
    const firstSlot = Math.max(start.slot, 1);
    const isLast = index === terms.length - 1;
    const seal = isLast ? null : seals[index];
    if (!isLast && !(seal && endsWhole(start, seal))) return null;
    const endSlot = seal ? seal.header.slot : lastEnd + 1;
    outlines.push({ term, start, opening, firstSlot, endSlot: Math.max(firstSlot, endSlot) });
    if (seal) start = endAfter(seal);
  }
  return outlines;
}

/**
 * The openings of the terms below a floor, and of the one that it stands in, newest first: they outlive retention. A copy that
 * was begun at a floor may lack them.
 */
export async function* openingsBelow(archive: Archive, floor: Place): AsyncGenerator<Read<Opening>> {
  for (let last = floor.slot > 0 ? floor.term : floor.term - 1; last > 0; last -= AT_ONCE) {
    const terms = Array.from({ length: Math.min(AT_ONCE, last) }, (_, n) => last - n);
    const firsts = await Promise.all(terms.map((term) => readPlace(archive, { term, slot: 0 })));
    for (const first of firsts) if (first?.header.kind === 'opening') yield { ...first, header: first.header };
  }
}

/** The seal that a term's first object names. */
async function sealBefore(archive: Archive, first: Read | null): Promise<Read<Seal> | null> {
  if (!first || first.header.kind === 'chunk' || first.header.previous === null) return null;
  const read = await readPlace(archive, first.header.previous);
  return read && isSeal(read) ? read : null;
}

const isSeal = (read: Read): read is Read<Seal> => read.header.kind === 'seal';

/** Null where the term was not opened, or below the floor; undefined where its first object is not what it must be. */
function openingOf(start: ChainEnd, first: Read | null): Opening | null | undefined {
  if (start.slot > 0 || first === null) return null;
  const { met } = step(start, first);
  if (met === 'opening' && first.header.kind === 'opening') return first.header;
  return met === 'seal' ? null : undefined;
}

/** Whether the seal ends the term that begins so, and all of its objects before the seal are the owner's. */
function endsWhole(start: ChainEnd, { header }: Read<Seal>): boolean {
  const { archive, stream, term, slot, previous } = header;
  if (archive !== start.archive || stream !== start.stream || term !== start.term || slot < start.slot) return false;
  const last = slot === start.slot ? start.last : { term, slot: slot - 1 };
  return previous === null || last === null ? previous === last : comparePlaces(previous, last) === 0;
}
