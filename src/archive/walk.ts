import { buffer } from 'node:stream/consumers';
import { type ArchiveInfo, chainStart } from '../core/archive.ts';
import { type ChainEnd, endAfter, type Met, step } from '../core/chain.ts';
import { decodeFloor } from '../core/floor.ts';
import type { Header, Read } from '../core/header.ts';
import {
  comparePlaces,
  floorOf,
  floorsPrefix,
  type Place,
  placeKey,
  placeText,
  termOf,
  termPrefix,
  termsPrefix,
} from '../core/keys.ts';
import { ShipmateError } from '../errors.ts';
import type { ObjectStore } from '../store/store.ts';
import { readHeader } from './objects.ts';
import { firstWhere, PROBES } from './search.ts';
import type { WitnessSecret } from './secret.ts';

/** A stream's archive in one store. */
export interface Archive {
  readonly store: ObjectStore;
  readonly info: ArchiveInfo;
  /** For whoever compares encrypted chunks with a log; readers need none. */
  readonly secret?: WitnessSecret;
}

/** Where to begin: what a cursor names. */
export interface Hint extends Place {
  readonly digest: string;
}

/** Told of each object of a walk, which waits for a promise that it gives. */
export type OnObject = (met: Met, read: Read, end: ChainEnd) => unknown;

/** After so many objects a walk looks whether the end is nearer by another way: reading millions of headers takes hours. */
const FAR_BEHIND = 1_000;
/** So many strides of a gallop at once. */
const GALLOPS = 4;
/** Most objects read ahead of the walk: slots are predictable, so latency need not add up. */
const MAX_READ_AHEAD = 16;
/** The same where whole terms are read, and the few too many at their ends weigh nothing. */
const MAX_FAR_AHEAD = 256;

/**
 * So many of a term's first objects may outlive retention: its opening, and a file that others need. That they are there
 * does not show that what came after them is.
 */
const MAY_OUTLIVE = 2;

/** The header at a place, or null where the place is empty. */
export async function readPlace({ store, info }: Archive, place: Place): Promise<Read | null> {
  try {
    return await readHeader(store, placeKey(info.stream, place));
  } catch (error) {
    if (error instanceof ShipmateError && error.code === 'NOT_FOUND') return null;
    throw error;
  }
}

/** In order; what else stands beside the floors is none. */
export async function* floorKeys(store: ObjectStore, stream: string): AsyncGenerator<string> {
  for await (const { key } of store.list(floorsPrefix(stream))) if (floorOf(key) !== null) yield key;
}

/** Where readers start: the highest floor, or the archive's start. */
export async function readFloor({ store, info }: Archive): Promise<ChainEnd> {
  let highest: string | null = null;
  for await (const key of floorKeys(store, info.stream)) highest = key;
  if (highest === null) return chainStart(info);
  return decodeFloor(await buffer(await store.read(highest)), highest);
}

/**
 * Finds the chain's present end: the first empty place of a contiguous walk from a verified object. The walk counts only
 * while no floor has passed the place where it began (rule 12), and then begins again there.
 */
export async function findEnd(archive: Archive, hint: Hint | null, onObject?: OnObject): Promise<ChainEnd> {
  return walkOn(archive, hint ? await beginAt(archive, hint) : await beginAnywhere(archive), onObject);
}

/**
 * The same from where an earlier walk of this process ended. From a place that turns out to be far behind it goes on near the
 * end, as a walk without a cursor does.
 */
export async function walkOn(archive: Archive, from: ChainEnd, onObject?: OnObject): Promise<ChainEnd> {
  let begun: Place = from;
  let end = from;
  let most = FAR_BEHIND;
  for (;;) {
    const walked = await walkTerm(archive, end, onObject, { most });
    end = walked.end;
    most -= walked.objects;
    if (most <= 0) {
      most = Number.POSITIVE_INFINITY;
      const near = await beginAnywhere(archive);
      if (comparePlaces(near, end) > 0) begun = end = near;
      continue;
    }
    const metNothing = !walked.sealed && comparePlaces(end, begun) === 0;
    if (metNothing && end.slot > MAY_OUTLIVE) return end;
    const floor = await readFloor(archive);
    if (comparePlaces(begun, floor) < 0) {
      begun = floor;
      end = floor;
    } else if (!walked.sealed) {
      return end;
    }
  }
}

/**
 * Every object from a verified place to the present end, in chain order, foreign ones included; nothing above `upTo`.
 */
export async function readChain(
  archive: Archive,
  from: ChainEnd,
  onObject: OnObject,
  upTo: Place | null = null,
): Promise<ChainEnd> {
  const walk = (at: ChainEnd) => walkTerm(archive, at, onObject, { maxAhead: MAX_FAR_AHEAD, upTo });
  let { end, sealed } = await walk(from);
  while (sealed) ({ end, sealed } = await walk(end));
  return end;
}

interface Extent {
  readonly maxAhead?: number;
  readonly upTo?: Place | null;
  /** Objects. */
  readonly most?: number;
}

/** Walks one term to its seal or its first empty place; not above `upTo`, and no more than so many objects. */
async function walkTerm(
  archive: Archive,
  from: ChainEnd,
  onObject?: OnObject,
  { maxAhead = MAX_READ_AHEAD, upTo = null, most = Number.POSITIVE_INFINITY }: Extent = {},
): Promise<{ end: ChainEnd; sealed: boolean; objects: number }> {
  let end = from;
  let objects = 0;
  const endSlot = upTo?.term === from.term ? upTo.slot + 1 : Number.POSITIVE_INFINITY;
  const ahead = readAhead(archive, from, { maxAhead, endSlot });
  try {
    while (objects < most && (upTo === null || comparePlaces(end, upTo) <= 0)) {
      const read = await ahead.next();
      if (read === null) break;
      const stepped = step(end, read);
      end = stepped.end;
      objects++;
      await onObject?.(stepped.met, read, end);
      if (stepped.met === 'seal') return { end, sealed: true, objects };
    }
    return { end, sealed: false, objects };
  } finally {
    ahead.stop();
  }
}

/** Reads a term's slots in order: where its end is not known, more and more at once while they turn out to be there. */
function readAhead(archive: Archive, from: Place, { maxAhead, endSlot }: { maxAhead: number; endSlot: number }) {
  const pending: Promise<Read | null>[] = [];
  let nextSlot = from.slot;
  let width = Number.isFinite(endSlot) ? maxAhead : 1;
  return {
    async next(): Promise<Read | null> {
      while (pending.length < width && nextSlot < endSlot) {
        const read = readPlace(archive, { term: from.term, slot: nextSlot });
        read.catch(() => {}); // one that is never awaited must not end the process
        pending.push(read);
        nextSlot++;
      }
      const read = await pending.shift();
      width = Math.min(width * 2, maxAhead);
      return read ?? null;
    },
    stop() {
      pending.length = 0;
    },
  };
}

/** The walk's state right after the object that a cursor names. */
async function beginAt(archive: Archive, hint: Hint): Promise<ChainEnd> {
  const read = await readPlace(archive, hint);
  if (read?.digest === hint.digest) return endAfter(read);
  // Below the floor retention leaves places empty, and a write that was given up long ago may land in one.
  const floor = await readFloor(archive);
  if (comparePlaces(hint, floor) < 0) return floor;
  throw new ShipmateError(
    `store ${archive.store.name} went back in time: the archive of stream ${archive.info.stream} reached ` +
      `${placeText(hint)}, but that object is ${read ? 'another one now' : 'not there'}`,
    {
      code: 'STORE_WENT_BACK',
      hint:
        'the store was restored from an older copy, emptied, or another one is mounted there. Put the right one back; ' +
        `if this state is to be kept on purpose: shipmate adopt ${archive.info.stream}`,
    },
  );
}

/** Without a cursor: near the end of the highest term whose opening proves its owner, or else at the floor (rule 10). */
async function beginAnywhere(archive: Archive): Promise<ChainEnd> {
  const floor = await readFloor(archive);
  for (const term of (await termsFrom(archive, floor.term)).reverse()) {
    const begin = await beginInTerm(archive, term, term === floor.term ? floor.slot : 0);
    if (begin) return begin;
  }
  return floor;
}

/** The terms of which anything stands in the store, from a term on, in order; whether it belongs there shows what is read. */
export async function termsFrom({ store, info }: Archive, first: number): Promise<number[]> {
  const terms: number[] = [];
  const after = termPrefix(info.stream, first).slice(0, -1);
  for await (const { key } of store.list(termsPrefix(info.stream), { after, delimiter: '/' })) {
    const term = termOf(key);
    if (term !== null && term >= first) terms.push(term);
  }
  return terms;
}

async function beginInTerm(archive: Archive, term: number, lowest: number): Promise<ChainEnd | null> {
  const opening = await readPlace(archive, { term, slot: 0 });
  if (opening === null || !(await opensItsTerm(archive, opening.header))) return null;
  const near = await nearEnd(archive, term, lowest);
  if (near > lowest) {
    const place = { term, slot: near };
    const read = await readPlace(archive, place);
    const ours = read !== null && (read.header.kind === 'seal' || read.header.claim === opening.header.claim);
    if (ours && isOf(archive, read.header) && comparePlaces(read.header, place) === 0) return endAfter(read);
  }
  return lowest === 0 ? endAfter(opening) : null;
}

const isOf = ({ info }: Archive, { archive, stream }: Header) => archive === info.archive && stream === info.stream;

/** Whether an object at slot 0 is an opening by the claim that wrote the seal before: proof of the term's owner. */
async function opensItsTerm(archive: Archive, header: Header): Promise<boolean> {
  if (header.kind !== 'opening' || !isOf(archive, header)) return false;
  if (header.previous === null) return header.claim === archive.info.owner;
  const seal = await readPlace(archive, header.previous);
  return (
    seal !== null && seal.header.kind === 'seal' && seal.digest === header.prev && seal.header.claim === header.claim
  );
}

/**
 * A slot that is surely part of the contiguous run: gallops to some occupied slot and steps back W, since no slot is
 * begun W or more above the lowest unsettled one.
 */
export async function nearEnd({ store, info }: Archive, term: number, lowest: number): Promise<number> {
  const isEmpty = async (slot: number) => (await store.head(placeKey(info.stream, { term, slot }))) === null;
  let low = lowest;
  let high = lowest;
  for (let power = 0; high === lowest; power += GALLOPS) {
    const probes = Array.from({ length: GALLOPS }, (_, n) => lowest + (PROBES + 1) ** (power + n));
    const empty = await Promise.all(probes.map(isEmpty));
    const first = empty.indexOf(true);
    if (first !== 0) low = probes.at(first - 1)!;
    if (first !== -1) high = probes[first]!;
  }
  const end = await firstWhere(low + 1, high, isEmpty);
  return Math.max(lowest, end - 1 - info.window);
}
