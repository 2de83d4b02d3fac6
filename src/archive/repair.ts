import { buffer } from 'node:stream/consumers';
import { chainStart } from '../core/archive.ts';
import type { ChainEnd } from '../core/chain.ts';
import { decodeFloor } from '../core/floor.ts';
import { decodeHeader, digestOf, generationIn } from '../core/header.ts';
import {
  comparePlaces,
  floorKey,
  type Place,
  placeKey,
  placeOf,
  streamKey,
  termPrefix,
  termsPrefix,
} from '../core/keys.ts';
import { ShipmateError } from '../errors.ts';
import type { ObjectStore } from '../store/store.ts';
import { type Comparing, Comparison, type Flaw, isIntact, isUnreadable, lookAt, orNull } from './comparison.ts';
import { readArchive } from './identity.ts';
import { isFloorOf } from './lineage.ts';
import { readHeader } from './objects.ts';
import { demandSameArchive } from './prune.ts';
import { type Hole, readToEnd } from './reader.ts';
import { mapAtOnce } from './search.ts';
import { type Archive, findEnd, floorKeys, readChain, readFloor, termsFrom } from './walk.ts';

export interface RepairPlan {
  readonly flaws: readonly Flaw[];
  /** Objects that were compared. */
  readonly objects: number;
  readonly generation: { readonly from: number; readonly to: number };
  /** Where the source's own chain has a hole: nothing behind it can be proven. */
  readonly hole: Hole | null;
}

export interface RepairOptions extends Comparing {
  /** Segments that retention leaves below the floor. */
  readonly isCompanion: (segment: string) => boolean;
}

const AT_ONCE = 8;

/**
 * Compares a store with another one that holds the same archive, every payload too, and changes nothing. Throws where they
 * are not the same archive, where the one to be mended was promoted later, or where both go on in their own right.
 */
export async function planRepair(options: RepairOptions): Promise<RepairPlan> {
  const { from, to } = options;
  const { stream } = from.info;
  const { archive, flaw } = await openTarget(from, to);
  const generation = { from: await highestGeneration(from), to: await highestGeneration(archive) };
  if (generation.to > generation.from) throw promotedLater(from, to, generation);

  const floor = await readFloor(from);
  // First: once the store has anything of the higher generation, nothing tells any more that a promotion left it behind.
  const strays = generation.to < generation.from ? await straysIn(archive, from, floor) : [];
  const { toFloor, damaged } = await floorOfTarget(archive, from, strays);
  const below = await flawsBelow(floor, options);
  // Behind what retention leaves below it: whoever copies from a floor on does not bring that.
  const isFloorMissing = !(await leadsTo(archive, toFloor, floor));
  const raised: Flaw[] = isFloorMissing ? [{ key: floorKey(stream, floor), what: 'missing', digest: null }] : [];
  const comparison = new Comparison(options, { floor, toFloor, generation });
  const { hole } = await readToEnd(from, floor, comparison.meet);
  await comparison.finish();
  // What retention deleted meanwhile looks like a hole (protocol rule 12).
  if (comparePlaces(floor, await readFloor(from)) < 0) return planRepair(options);
  const flaws = [...flaw, ...strays, ...damaged, ...below, ...raised, ...comparison.flaws];
  return { flaws, objects: comparison.objects, generation, hole };
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
      if (what !== 'missing') await to.delete([key]);
      const outcome = await to.create(key, bytes, signal);
      if (outcome === 'exists' && !bytes.equals(await buffer(await to.read(key)))) throw takenMeanwhile(to, key);
    }
    onObject?.();
  }
}

/** Where readers of the store begin once it has no floor that was left behind, and none that is damaged. */
async function floorOfTarget(
  { store, info }: Archive,
  from: Archive,
  strays: readonly Flaw[],
): Promise<{ toFloor: ChainEnd; damaged: Flaw[] }> {
  const left = new Set(strays.map(({ key }) => key));
  const damaged: Flaw[] = [];
  let toFloor = chainStart(info);
  for await (const key of floorKeys(store, info.stream)) {
    if (left.has(key)) continue;
    const there = await floorAt(store, key);
    const right = there ?? (await floorAt(from.store, key));
    if (there === null) damaged.push({ key, what: right ? 'damaged' : 'stray', digest: null });
    if (right !== null) toFloor = right;
  }
  return { toFloor, damaged };
}

/** Null where it is not there, or can't be read. */
async function floorAt(store: ObjectStore, key: string): Promise<ChainEnd | null> {
  return orNull(async () => decodeFloor(await buffer(await store.read(key)), key));
}

/**
 * Whether readers get from where they begin in a store to where they begin in the other. What is missing or damaged in
 * between nothing can bring back: then they begin at the other's floor.
 */
async function leadsTo(archive: Archive, start: ChainEnd, floor: ChainEnd): Promise<boolean> {
  if (comparePlaces(start, floor) >= 0) return true;
  const before = { term: floor.term, slot: floor.slot - 1 };
  const end = await orNull(() => readChain(archive, start, () => {}, before));
  return end !== null && comparePlaces(end, floor) === 0 && end.digest === floor.digest;
}

async function provenBytes(from: Archive, key: string, digest: string | null): Promise<Buffer> {
  const { store } = from;
  const place = placeOf(key);
  try {
    const bytes = await buffer(await store.read(key));
    if (digest === null || (place === null && digestOf(bytes) === digest)) return bytes;
    const read = decodeHeader(bytes, key);
    if (read.digest === digest && isIntact(bytes, read)) return bytes;
  } catch (error) {
    if (!isUnreadable(error)) throw error;
    // Nothing behind it may be brought: that would make a hole.
    if (place !== null && comparePlaces(place, await readFloor(from)) < 0) throw pruned(from, key);
  }
  throw new ShipmateError(`object ${key} in store ${store.name} is missing or damaged itself: it can't mend another`, {
    code: 'SOURCE_DAMAGED',
    hint: 'look at both stores with "shipmate verify --deep": a third copy may hold it; what was written by now is right',
  });
}

/** What the store to be mended holds of the archive, and what is wrong with its stream.json. */
async function openTarget(from: Archive, to: ObjectStore): Promise<{ archive: Archive; flaw: Flaw[] }> {
  const { info } = from;
  const archive = { store: to, info };
  const file = { key: streamKey(info.stream), digest: info.digest };
  try {
    const there = await readArchive(to, info.stream);
    if (there === null) return { archive, flaw: [{ ...file, what: 'missing' }] };
    demandSameArchive(there, from);
    return { archive, flaw: [] };
  } catch (error) {
    if (!(error instanceof ShipmateError && error.code === 'BAD_ARCHIVE_FILE')) throw error;
    if (!(await holdsObjectsOf(archive))) throw error;
    return { archive, flaw: [{ ...file, what: 'damaged' }] };
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

/** Of what retention leaves below the floor: openings, seals, and what other segments need. */
async function flawsBelow(floor: Place, { from, to, isCompanion }: RepairOptions): Promise<Flaw[]> {
  const { store, info } = from;
  const keys: string[] = [];
  for await (const { key } of store.list(termsPrefix(info.stream))) {
    const place = placeOf(key);
    if (place !== null && comparePlaces(place, floor) >= 0) break;
    if (place !== null) keys.push(key);
  }
  const flaws = await mapAtOnce(keys, AT_ONCE, async (key): Promise<Flaw | null> => {
    const read = await orNull(() => readHeader(store, key)); // what can't be read is left where it is, as a prune does
    const stays = read && (read.header.kind !== 'chunk' || isCompanion(read.header.from.segment));
    const what = stays ? (await lookAt(to, key, read.digest)).what : null;
    return what && { key, what, digest: read!.digest };
  });
  return flaws.filter((flaw) => flaw !== null);
}

/**
 * What a promotion left behind in a store. Readers must not begin where only that chain went; and beyond the end of the one
 * that was promoted its objects stand in the way of what is to come. Behind a hole nothing tells but a lower generation than
 * the chain has before it.
 */
async function straysIn({ store, info }: Archive, from: Archive, fromFloor: ChainEnd): Promise<Flaw[]> {
  const { end, hole } = await readToEnd(from, fromFloor, () => {});
  const strays: string[] = [];
  for await (const key of floorKeys(store, info.stream)) {
    const floor = await floorAt(store, key);
    const isTold = floor !== null && (hole === null || comparePlaces(floor, end) < 0);
    if (isTold && !(await isFloorOf(from, floor))) strays.push(key);
  }
  const beyond: string[] = [];
  const after = termPrefix(info.stream, end.term).slice(0, -1);
  for await (const { key } of store.list(termsPrefix(info.stream), { after })) {
    const place = placeOf(key);
    if (place !== null && comparePlaces(place, end) >= 0) beyond.push(key);
  }
  const isLeft = await mapAtOnce(beyond, AT_ONCE, async (key) => {
    if (hole === null) return true;
    const read = await orNull(() => readHeader(store, key));
    return read !== null && generationIn(read.header) < end.generation;
  });
  return [...strays, ...beyond.filter((_, index) => isLeft[index])].map((key) => ({
    key,
    what: 'stray',
    digest: null,
  }));
}

/** Told by its openings and its end, as far as these can be read: what is to be mended may be damaged anywhere. */
async function highestGeneration(archive: Archive): Promise<number> {
  const { store, info } = archive;
  const firsts = await mapAtOnce(await termsFrom(archive, 1), 64, async (term) => {
    const opening = await orNull(() => readHeader(store, placeKey(info.stream, { term, slot: 0 })));
    const header = opening?.header;
    return header?.archive === info.archive ? generationIn(header) : 0;
  });
  const end = await orNull(() => findEnd(archive, null));
  return Math.max(0, end?.generation ?? 0, ...firsts);
}

function promotedLater({ info, store }: Archive, to: ObjectStore, generation: RepairPlan['generation']): ShipmateError {
  return new ShipmateError(
    `store ${to.name} holds generation ${generation.to} of stream ${info.stream}, store ${store.name} an older one ` +
      `(${generation.from}): it was promoted`,
    { code: 'PROMOTED_LATER', hint: `the other way round it can be done: --from ${to.name} --to ${store.name}` },
  );
}

function pruned({ store, info }: Archive, key: string): ShipmateError {
  return new ShipmateError(`object ${key} was deleted from store ${store.name} by a prune meanwhile`, {
    code: 'PRUNED',
    hint: `what was written by now is right: repair stream ${info.stream} again`,
  });
}

function takenMeanwhile(store: ObjectStore, key: string): ShipmateError {
  return new ShipmateError(`store ${store.name}: somebody wrote ${key} while it was being mended`, {
    code: 'REPAIR_CONFLICT',
    hint: 'a daemon works on this archive: stop those of the stream, then repair again',
  });
}
