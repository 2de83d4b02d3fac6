import type { ChainEnd } from '../core/chain.ts';
import { comparePlaces, type Place } from '../core/keys.ts';
import { type Archive, readFloor, readPlace } from './walk.ts';

/**
 * How a copy's end stands to the primary's chain: `held` there, or `passed` by its floor; `other`: proven not to be in that
 * chain; `missing`: neither is proven, since the primary lacks what would tell.
 */
export type Lineage = 'held' | 'passed' | 'other' | 'missing';

/** Looks for the last object of a copy in the primary. What it says of `other` no retry mends. */
export async function lineageOf(copy: Archive, end: ChainEnd, primary: Archive): Promise<Lineage> {
  const { last } = end;
  if (last === null) return 'held';
  const there = await readPlace(primary, last);
  if (there?.digest === end.digest) return 'held';
  const floor = await readFloor(primary);
  const atFloor = comparePlaces(end, floor);
  if (atFloor === 0 && end.digest === floor.digest) return 'held';
  const sealedAt = await sealOf(primary, last.term);
  if (sealedAt !== null && comparePlaces(sealedAt, last) < 0) return 'other'; // a promotion left it behind
  // Below the floor retention leaves places empty, and a write that was given up long ago may land in one; openings stay.
  if (atFloor < 0 && (await isSameTerm(copy, last.term, primary))) return 'passed';
  return there === null ? 'missing' : 'other';
}

/** Whether a floor is one of that chain: not so one of an old primary, beyond where a promotion ended its term. */
export async function isFloorOf(archive: Archive, floor: ChainEnd): Promise<boolean> {
  const opening = await readPlace(archive, { term: floor.term, slot: 0 });
  if (opening?.header.claim !== floor.owner) return false;
  const sealedAt = await sealOf(archive, floor.term);
  return sealedAt === null || comparePlaces(floor, sealedAt) <= 0;
}

/** Where a term ended; null where it is open. */
async function sealOf(archive: Archive, term: number): Promise<Place | null> {
  const next = await readPlace(archive, { term: term + 1, slot: 0 });
  const previous = next && next.header.kind !== 'chunk' ? next.header.previous : null;
  return previous?.term === term ? previous : null;
}

async function isSameTerm(copy: Archive, term: number, primary: Archive): Promise<boolean> {
  const [ours, theirs] = await Promise.all([copy, primary].map((one) => readPlace(one, { term, slot: 0 })));
  return ours != null && ours.digest === theirs?.digest;
}

/**
 * Whether what stands before the opening that a copy ends with is there. It is not where beginning at a floor was
 * interrupted: then openings and seals have been brought, and the floor has not.
 */
export async function isJoined(copy: Archive, end: ChainEnd): Promise<boolean> {
  if (end.slot !== 1) return true;
  const floor = await readFloor(copy);
  for (let place = end.last; place !== null && comparePlaces(place, floor) >= 0; ) {
    const read = await readPlace(copy, place);
    if (read === null) return false;
    const { header } = read;
    if (header.kind === 'chunk') return true;
    place = header.kind === 'seal' && place.slot > 0 ? { term: place.term, slot: place.slot - 1 } : header.previous;
  }
  return true;
}
