import { buffer } from 'node:stream/consumers';
import { type ChainEnd, type Met, step } from '../core/chain.ts';
import { decodeFloor } from '../core/floor.ts';
import { decodeHeader, digestOf, generationIn, placeIn, type Read } from '../core/header.ts';
import {
  comparePlaces,
  floorKey,
  floorsPrefix,
  type Place,
  placeKey,
  placeOf,
  placeText,
  streamKey,
  termOf,
  termPrefix,
  termsPrefix,
} from '../core/keys.ts';
import { ShipmateError } from '../errors.ts';
import type { ObjectStore } from '../store/store.ts';
import { readArchive } from './identity.ts';
import { isFloorOf } from './lineage.ts';
import { readHeader } from './objects.ts';
import { demandSameArchive } from './prune.ts';
import { type Hole, readToEnd } from './reader.ts';
import { mapAtOnce } from './search.ts';
import { type Archive, findEnd, readFloor } from './walk.ts';

/** What is wrong with an object of the store that is mended. */
export interface Flaw {
  readonly key: string;
  /** `foreign`: another object stands in its place; `stray`: one that a promotion left behind, beyond where the chain goes. */
  readonly what: 'missing' | 'damaged' | 'foreign' | 'stray';
  /** Of the header that the chain demands; null for what is no part of it. */
  readonly digest: string | null;
}

export interface RepairPlan {
  readonly flaws: readonly Flaw[];
  /** Objects that were compared. */
  readonly objects: number;
  readonly generation: { readonly from: number; readonly to: number };
  /** Where the source's own chain has a hole: nothing behind it can be proven. */
  readonly hole: Hole | null;
}

export interface RepairOptions {
  /** The archive that is whole. */
  readonly from: Archive;
  readonly to: ObjectStore;
  /** Segments that retention leaves below the floor. */
  readonly isCompanion: (segment: string) => boolean;
  readonly signal: AbortSignal;
  /** Told of each object that was compared, or written. */
  readonly onObject?: () => void;
}

/** An object of the source's chain. */
interface Link {
  readonly before: ChainEnd;
  readonly met: Met;
  readonly read: Read;
}

const AT_ONCE = 8;

/**
 * Compares a store with another one that holds the same archive, every payload too, and changes nothing. Throws where they
 * are not the same archive, where the one to be mended was promoted later, or where both go on in their own right.
 */
export async function planRepair(options: RepairOptions): Promise<RepairPlan> {
  const { from, to, onObject, signal } = options;
  const { stream } = from.info;
  const { archive, flaws } = await openTarget(from, to);
  const generation = { from: await highestGeneration(from), to: archive ? await highestGeneration(archive) : 0 };
  if (generation.to > generation.from) throw promotedLater(from, to, generation);

  const floor = await readFloor(from);
  const isLeft = generation.to < generation.from;
  const strays = archive && isLeft ? await strayFloors(archive, from) : [];
  flaws.push(...strays.map((key): Flaw => ({ key, what: 'stray', digest: null })));
  const toFloor = archive && strays.length === 0 ? await readFloor(archive) : null;
  // What a promotion left behind is no chain from below the source's floor up to it.
  if (floor.position !== null && (toFloor === null || (isLeft && comparePlaces(toFloor, floor) < 0))) {
    flaws.push({ key: floorKey(stream, floor), what: 'missing', digest: null });
  }
  flaws.push(...(await missingBelow(floor, isLeft, options)));
  const { links, end, hole } = await linksOf(from, floor, toFloor);
  const compared = await mapAtOnce(links, AT_ONCE, async (link) => {
    signal.throwIfAborted();
    const what = await compare(to, link, generation);
    onObject?.();
    return what && { key: placeKey(stream, placeIn(link.read.header)), what, digest: link.read.digest };
  });
  flaws.push(...compared.filter((flaw) => flaw !== null));
  if (isLeft && archive) flaws.push(...(await straysIn(archive, end)));
  // What retention deleted meanwhile looks like a hole (protocol rule 12).
  if (comparePlaces(floor, await readFloor(from)) < 0) return planRepair(options);
  return { flaws, objects: links.length, generation, hole };
}

/** Writes what was found to be wrong, each object once it was proven to be right at the source. Safe to repeat. */
export async function repair({ flaws }: RepairPlan, options: RepairOptions): Promise<void> {
  const { from, to, signal, onObject } = options;
  for (const { key, what, digest } of flaws) {
    signal.throwIfAborted();
    if (what === 'stray') await to.delete([key]);
    else {
      // Before anything is deleted: between the two calls the place is empty.
      const bytes = await provenBytes(from, key, digest);
      if (bytes === null) continue;
      if (what !== 'missing') await to.delete([key]);
      const outcome = await to.create(key, bytes, signal);
      if (outcome === 'exists' && !bytes.equals(await buffer(await to.read(key)))) throw takenMeanwhile(to, key);
    }
    onObject?.();
  }
}

/** The source's chain from where both can be read; what lies below the other's floor is not wanted there. */
async function linksOf(from: Archive, floor: ChainEnd, toFloor: ChainEnd | null) {
  const links: Link[] = [];
  let before = floor;
  const demandCommon = (at: ChainEnd) => {
    const isThere = toFloor !== null && comparePlaces(at, toFloor) === 0;
    if (isThere && at.digest !== toFloor.digest) throw bothGoOn(from, at);
  };
  demandCommon(floor);
  const { end, hole } = await readToEnd(from, floor, (met, read, next) => {
    if (toFloor === null || comparePlaces(before, toFloor) >= 0) links.push({ before, met, read });
    before = next;
    demandCommon(next);
  });
  return { links, end, hole };
}

async function compare(
  to: ObjectStore,
  { before, met, read }: Link,
  generation: RepairPlan['generation'],
): Promise<Flaw['what'] | null> {
  const { header } = read;
  const key = placeKey(header.stream, placeIn(header));
  let bytes: Buffer;
  let there: Read;
  try {
    bytes = await buffer(await to.read(key));
    there = decodeHeader(bytes, key);
  } catch (error) {
    if (!(error instanceof ShipmateError)) throw error;
    if (error.code === 'NOT_FOUND') return 'missing';
    if (error.code === 'BAD_OBJECT') return 'damaged';
    throw error;
  }
  if (there.digest === read.digest) return isIntact(bytes, there) ? null : 'damaged';
  if (met !== 'foreign' && generation.from === generation.to && isRightful(before, there)) {
    throw bothGoOn({ store: to, info: { stream: header.stream } }, before);
  }
  return 'foreign';
}

/** Whether an object would be the chain's next one, if the source had none there. */
function isRightful(before: ChainEnd, there: Read): boolean {
  try {
    return step(before, there).met !== 'foreign';
  } catch (error) {
    if (error instanceof ShipmateError && error.code === 'CHAIN_BROKEN') return false;
    throw error;
  }
}

/** Whether all behind the header is what that says. */
function isIntact(bytes: Buffer, { header, payloadOffset }: Read): boolean {
  const payload = bytes.subarray(payloadOffset);
  if (header.kind !== 'chunk') return payload.length === 0;
  return payload.length === header.stored.bytes && digestOf(payload) === header.stored.sha256;
}

/** Null where retention has deleted it meanwhile. */
async function provenBytes(from: Archive, key: string, digest: string | null): Promise<Buffer | null> {
  const { store } = from;
  const place = placeOf(key);
  try {
    const bytes = await buffer(await store.read(key));
    if (digest === null || (place === null && digestOf(bytes) === digest)) return bytes;
    const read = decodeHeader(bytes, key);
    if (read.digest === digest && isIntact(bytes, read)) return bytes;
  } catch (error) {
    if (!isUnreadable(error)) throw error;
    if (place !== null && comparePlaces(place, await readFloor(from)) < 0) return null;
  }
  throw new ShipmateError(`object ${key} in store ${store.name} is missing or damaged itself: it can't mend another`, {
    code: 'SOURCE_DAMAGED',
    hint: 'look at both stores with "shipmate verify --deep": a third copy may hold it; what was written by now is right',
  });
}

/** What the store to be mended holds of the archive, and what is wrong with its stream.json. */
async function openTarget(from: Archive, to: ObjectStore): Promise<{ archive: Archive | null; flaws: Flaw[] }> {
  const { info } = from;
  const flaw = { key: streamKey(info.stream), digest: info.digest };
  try {
    const archive = await readArchive(to, info.stream);
    if (archive !== null) demandSameArchive(archive, from);
    return { archive, flaws: archive === null ? [{ ...flaw, what: 'missing' }] : [] };
  } catch (error) {
    if (!(error instanceof ShipmateError && error.code === 'BAD_ARCHIVE_FILE')) throw error;
    const archive = { store: to, info };
    if (!(await holdsObjectsOf(archive))) throw error;
    return { archive, flaws: [{ ...flaw, what: 'damaged' }] };
  }
}

/** By the first object that can be read. */
async function holdsObjectsOf({ store, info }: Archive): Promise<boolean> {
  for await (const { key } of store.list(termsPrefix(info.stream))) {
    try {
      return (await readHeader(store, key)).header.archive === info.archive;
    } catch (error) {
      if (!isUnreadable(error)) throw error;
    }
  }
  return false;
}

/** What retention leaves below the floor: openings, seals, and what other segments need. */
async function missingBelow(floor: Place, isLeft: boolean, { from, to, isCompanion }: RepairOptions): Promise<Flaw[]> {
  const { store, info } = from;
  const missing: Flaw[] = [];
  for await (const { key } of store.list(termsPrefix(info.stream))) {
    const place = placeOf(key);
    if (place === null) continue;
    if (comparePlaces(place, floor) >= 0) break;
    const isThere = (await to.head(key)) !== null;
    if (isThere && !isLeft) continue;
    const { header, digest } = await readHeader(store, key);
    const stays = header.kind !== 'chunk' || isCompanion(header.from.segment);
    if (!stays) continue;
    if (!isThere) missing.push({ key, what: 'missing', digest });
    else if ((await digestIn(to, key)) !== digest) missing.push({ key, what: 'foreign', digest });
  }
  return missing;
}

/** Null where it can't be read. */
async function digestIn(store: ObjectStore, key: string): Promise<string | null> {
  try {
    return (await readHeader(store, key)).digest;
  } catch (error) {
    if (isUnreadable(error)) return null;
    throw error;
  }
}

/** Readers must not begin where only the chain went that a promotion left behind. */
async function strayFloors({ store, info }: Archive, from: Archive): Promise<string[]> {
  const strays: string[] = [];
  for await (const { key } of store.list(floorsPrefix(info.stream))) {
    if (!(await isFloorOf(from, decodeFloor(await buffer(await store.read(key)), key)))) strays.push(key);
  }
  return strays;
}

/** Beyond the chain's end stands what a lower generation wrote there, in the way of what is to come. */
async function straysIn({ store, info }: Archive, end: ChainEnd): Promise<Flaw[]> {
  const strays: Flaw[] = [];
  const after = termPrefix(info.stream, end.term).slice(0, -1);
  for await (const { key } of store.list(termsPrefix(info.stream), { after })) {
    const place = placeOf(key);
    if (place !== null && comparePlaces(place, end) >= 0) strays.push({ key, what: 'stray', digest: null });
  }
  return strays;
}

/** Told by its openings and its end, as far as these can be read: what is to be mended may be damaged anywhere. */
async function highestGeneration(archive: Archive): Promise<number> {
  const { store, info } = archive;
  const terms: number[] = [];
  for await (const { key } of store.list(termsPrefix(info.stream), { delimiter: '/' })) terms.push(termOf(key) ?? 0);
  const firsts = await mapAtOnce(terms, 64, async (term) => {
    try {
      const { header } = await readHeader(store, placeKey(info.stream, { term, slot: 0 }));
      return header.archive === info.archive ? generationIn(header) : 0;
    } catch (error) {
      if (isUnreadable(error)) return 0;
      throw error;
    }
  });
  const end = await findEnd(archive, null).catch((error) => {
    if (isUnreadable(error)) return null;
    throw error;
  });
  return Math.max(0, end?.generation ?? 0, ...firsts);
}

const UNREADABLE = new Set(['NOT_FOUND', 'BAD_OBJECT', 'CHAIN_BROKEN']);
const isUnreadable = (error: unknown): boolean => error instanceof ShipmateError && UNREADABLE.has(error.code);

function promotedLater({ info, store }: Archive, to: ObjectStore, generation: RepairPlan['generation']): ShipmateError {
  return new ShipmateError(
    `store ${to.name} holds generation ${generation.to} of stream ${info.stream}, store ${store.name} an older one ` +
      `(${generation.from}): it was promoted`,
    { code: 'PROMOTED_LATER', hint: `the other way round it can be done: --from ${to.name} --to ${store.name}` },
  );
}

function bothGoOn({ info, store }: { info: { stream: string }; store: ObjectStore }, at: Place): ShipmateError {
  return new ShipmateError(
    `the two archives of stream ${info.stream} go on in different ways, each in its own right, from ${placeText(at)} on ` +
      `(store ${store.name})`,
    {
      code: 'COPY_DIVERGED',
      hint: 'neither is damaged there: find out which one the daemons ship to, and give the other one an empty place',
    },
  );
}

function takenMeanwhile(store: ObjectStore, key: string): ShipmateError {
  return new ShipmateError(`store ${store.name}: somebody wrote ${key} while it was being mended`, {
    code: 'REPAIR_CONFLICT',
    hint: 'a daemon works on this archive: stop those of the stream, then repair again',
  });
}
