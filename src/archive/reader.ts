import type { ChainEnd } from '../core/chain.ts';
import { comparePlaces, type Place, placeKey, placeOf, termOf, termPrefix, termsPrefix } from '../core/keys.ts';
import { ShipmateError } from '../errors.ts';
import type { Stretch } from './seek.ts';
import { type Archive, type OnObject, readChain, readFloor, readPlace } from './walk.ts';

/** What goes on beyond a place without its owner's object, though nothing can before that is there. */
export interface Hole {
  /** The place: empty, or a stranger's. */
  readonly at: Place;
  /** The next one above it that holds an object. */
  readonly next: Place;
}

export interface Reading<R> {
  readonly reader: R;
  /** Where it began: the floor, or the stretch's first object. */
  readonly from: ChainEnd;
  /** Where it ended: the chain's present end, or behind the stretch. */
  readonly end: ChainEnd;
  /** Set where the chain does not end there, but objects of it are missing. */
  readonly hole: Hole | null;
  /** The chain goes on behind the end, but no more of it was wanted. */
  readonly goesOn: boolean;
  /** More of the chain could be read, before or behind. */
  readonly isPart: boolean;
}

/** Finds what is needed of a chain that is read from the floor on; null: all of it. */
export type FindStretch = (floor: ChainEnd) => Promise<Stretch | null>;

/**
 * Reads the chain from the floor to its present end, or the stretch that is found. `begin` makes what its objects are
 * given to; it is called again where retention raised the floor meanwhile, since then the walk does not count (protocol
 * rule 12), and where a stretch turns out not to be the chain.
 */
export async function readFromFloor<R extends { meet: OnObject }>(
  archive: Archive,
  begin: (from: ChainEnd) => R,
  find: FindStretch = async () => null,
): Promise<Reading<R>> {
  let isStretchGood = true;
  for (;;) {
    const floor = await readFloor(archive);
    const stretch = isStretchGood ? await find(floor) : null;
    const reading = await readStretch(archive, stretch ?? { before: floor, from: floor, upTo: null }, begin);
    if (comparePlaces(floor, await readFloor(archive)) < 0) continue;
    if (reading !== null) return { ...reading, isPart: comparePlaces(floor, reading.from) < 0 || reading.goesOn };
    isStretchGood = false;
  }
}

/** Null where what comes before the stretch does not lead to it. */
async function readStretch<R extends { meet: OnObject }>(
  archive: Archive,
  { before, from, upTo }: Stretch,
  begin: (from: ChainEnd) => R,
): Promise<Omit<Reading<R>, 'isPart'> | null> {
  let start = before;
  if (comparePlaces(before, from) < 0) {
    let isOwners = true;
    const last = { term: from.term, slot: from.slot - 1 };
    start = await readChain(archive, before, (met) => (isOwners &&= met === 'opening' || met === 'chunk'), last);
    if (!isOwners || comparePlaces(start, from) !== 0) return null;
  }
  const reader = begin(start);
  const { end, hole } = await readToEnd(archive, start, (...met) => reader.meet(...met), upTo);
  const goesOn = upTo !== null && comparePlaces(end, upTo) > 0;
  return { reader, from: start, end, hole, goesOn };
}

/** Reads on from a place to the chain's present end (with `upTo`: to right behind that), or to a hole in it. */
export async function readToEnd(
  archive: Archive,
  from: ChainEnd,
  onObject: OnObject,
  upTo: Place | null = null,
): Promise<{ end: ChainEnd; hole: Hole | null }> {
  let end = await readChain(archive, from, onObject, upTo);
  for (;;) {
    if (upTo !== null && comparePlaces(end, upTo) > 0) return { end, hole: null };
    const next = await provenBeyond(archive, end);
    if (next === null) return { end, hole: null };
    // What was found may have been written while the walk went on: it proves a hole only if the place is empty now.
    const further = await readChain(archive, end, onObject, upTo);
    if (comparePlaces(further, end) === 0) return { end, hole: { at: endOfOwners(end), next } };
    end = further;
  }
}

/**
 * The first object above the owner's last one, if something above that cannot be there while the next is missing: a seal,
 * an object of a later term, one W or more slots above an empty place (protocol rules 6 and 12), any in a term that is not
 * opened, or one that the owner made when it knew the missing one to be durable. Null where there is none.
 */
export async function provenBeyond(archive: Archive, end: ChainEnd): Promise<Place | null> {
  const { store, info } = archive;
  const after = placeKey(info.stream, endOfOwners(end));
  let first: Place | null = null;
  for await (const { key } of store.list(termPrefix(info.stream, end.term), { after })) {
    const place = placeOf(key);
    if (place === null) continue;
    first ??= place;
    const isTooFar = end.slot === 0 || place.slot >= end.slot + info.window;
    if (isTooFar || (await proves(archive, place, end))) return first;
  }
  const later = await firstLaterTerm(archive, end.term);
  return later === null ? null : (first ?? later);
}

/** How many objects of a term stand above a place. */
export async function countAbove({ store, info }: Archive, place: Place): Promise<number> {
  let count = 0;
  for await (const _ of store.list(termPrefix(info.stream, place.term), { after: placeKey(info.stream, place) }))
    count++;
  return count;
}

async function firstLaterTerm({ store, info }: Archive, term: number): Promise<Place | null> {
  const after = termPrefix(info.stream, term);
  for await (const { key } of store.list(termsPrefix(info.stream), { after, delimiter: '/' })) {
    const later = termOf(key);
    if (later !== null && later > term) return firstOf(store.list(termPrefix(info.stream, later)));
  }
  return null;
}

async function firstOf(objects: AsyncIterable<{ key: string }>): Promise<Place | null> {
  for await (const { key } of objects) {
    const place = placeOf(key);
    if (place !== null) return place;
  }
  return null;
}

/** The first place that does not hold its owner's object: behind a stranger's nothing but a seal counts. */
function endOfOwners({ term, slot, last, foreign }: ChainEnd): Place {
  if (!foreign) return { term, slot };
  return { term, slot: last?.term === term ? last.slot + 1 : 0 };
}

/** Whether the object at a place shows by itself that the owner's objects went on beyond the end. */
async function proves(archive: Archive, place: Place, end: ChainEnd): Promise<boolean> {
  try {
    const header = (await readPlace(archive, place))?.header;
    if (header?.kind === 'seal') return comparePlaces(place, end) > 0; // one that counts would have ended the walk
    const isOwners = header?.kind === 'chunk' && header.claim === end.owner && header.archive === end.archive;
    return isOwners && (header.settled ?? 0) > endOfOwners(end).slot;
  } catch (error) {
    if (error instanceof ShipmateError && error.code === 'BAD_OBJECT') return false;
    throw error;
  }
}
