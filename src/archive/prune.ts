import { buffer } from 'node:stream/consumers';
import type { ChainEnd } from '../core/chain.ts';
import { decodeTimedFloor, encodeFloor, type Floor } from '../core/floor.ts';
import { comparePlaces, floorKey, type Place, placeText, probeKey } from '../core/keys.ts';
import { chooseFloor, dueFloor, type Keep, PastLog, settledBelow } from '../core/retention.ts';
import { ArchiveNotWhole, ShipmateError } from '../errors.ts';
import { lineageOf } from './lineage.ts';
import { readFromFloor } from './reader.ts';
import { type Sweeping, type Swept, sweep } from './sweep.ts';
import { type Archive, findEnd, floorKeys, readChain, readFloor } from './walk.ts';

export interface Retention {
  readonly keep: Keep;
  /** Wall clock. */
  readonly now: () => Date;
  /** Segments that stay whatever is deleted around them: a timeline's history is needed by all that is on it. */
  readonly isCompanion: (segment: string) => boolean;
  /** Told of each object that is read. */
  readonly onObject?: () => void;
}

/** What a prune would do in one store, and can be asked to. */
export interface PrunePlan {
  /** Where readers start then. */
  readonly floor: ChainEnd;
  /** Floor object to create; null: it stands there already. */
  readonly create: Uint8Array | null;
  /** Where walks ended terms. */
  readonly seals: readonly Place[];
  /** The store whose copy is behind where the floor would be otherwise. */
  readonly heldBy: string | null;
}

/**
 * Finds the floor that a primary's archive gets: nothing below it is asked for by a rule of `keep`, needed by a copy, or
 * in doubt. `copies`: archives that hold the same chain up to where they are. Changes nothing. Throws ArchiveNotWhole where
 * objects are missing.
 */
export async function planPrune(
  archive: Archive,
  { keep, now, isCompanion, onObject }: Retention,
  copies: readonly Archive[],
): Promise<PrunePlan> {
  const begin = (from: ChainEnd) => counting(new PastLog(from, isCompanion), onObject);
  for (;;) {
    const { reader, from, end, hole } = await readFromFloor(archive, begin);
    if (hole !== null) throw notWhole(archive, hole.at);
    const cursors: { readonly store: string; readonly place: Place }[] = [];
    for (const copy of copies) cursors.push({ store: copy.store.name, place: await cursorOf(copy, archive) });
    const parts = reader.past.parts();
    const settled = settledBelow(end, archive.info.window);
    const choose = (notAbove: readonly Place[]) =>
      chooseFloor(parts, { keep, nowMs: now().getTime(), notAbove: [settled, ...notAbove] });
    const chosen = choose(cursors.map(({ place }) => place));
    const wanted = choose([])?.start ?? from;
    const heldBy = cursors.find(({ place }) => comparePlaces(place, wanted) < 0)?.store ?? null;
    // A take-over may just have gone back to before that place: only the newest look counts.
    const later = await readChain(archive, end, () => {});
    if (later.term !== end.term) continue;
    const floor = chosen?.start ?? from;
    const isNew = comparePlaces(floor, from) > 0;
    return { floor, create: isNew ? encodeFloor(floor, now()) : null, seals: reader.past.seals, heldBy };
  }
}

/**
 * What the primary's prunes ask of a copy: the newest floor there that is `delayMs` old. Throws where the copy does not hold
 * the chain up to it.
 */
export async function planCopyPrune(
  copy: Archive,
  primary: Archive,
  { now, isCompanion, onObject, delayMs }: Omit<Retention, 'keep'> & { readonly delayMs: number },
): Promise<PrunePlan> {
  demandSameArchive(copy, primary);
  const due = dueFloor(await floorsOf(primary), { nowMs: now().getTime(), delayMs });
  const floor = await readFloor(copy);
  if (due === null || comparePlaces(due.end, floor) <= 0) return { floor, create: null, seals: [], heldBy: null };
  const { past, meet } = counting(new PastLog(floor, isCompanion), onObject);
  const wanted = { term: due.end.term, slot: due.end.slot - 1 };
  const reached = await readChain(copy, floor, meet, wanted);
  if (comparePlaces(reached, due.end) !== 0 || reached.digest !== due.end.digest) {
    throw new ShipmateError(
      `store ${copy.store.name} does not hold the chain of stream ${copy.info.stream} up to ${placeText(due.end)}, ` +
        `where store ${primary.store.name} was pruned`,
      { code: 'COPY_BEHIND', hint: 'nothing is deleted in it before it has come so far: see "shipmate status"' },
    );
  }
  return { floor: reached, create: due.bytes, seals: past.seals, heldBy: null };
}

/** Creates the floor, durably, then deletes what lies below it and behind seals; safe to interrupt, and to repeat. */
export async function prune(archive: Archive, { floor, create, seals }: PrunePlan, sweeping: Sweeping): Promise<Swept> {
  const { store, info } = archive;
  // So that readers do not lose what is not deleted after all.
  await store.delete([probeKey(info.stream, 'prune')]);
  if (create !== null) await store.create(floorKey(info.stream, floor), create, sweeping.signal);
  return sweep(archive, { floor: await readFloor(archive), seals }, sweeping);
}

interface FloorObject extends Floor {
  readonly bytes: Buffer;
}

/** In order. One is made by each prune that found something to delete. */
async function floorsOf({ store, info }: Archive): Promise<FloorObject[]> {
  const floors: FloorObject[] = [];
  for await (const key of floorKeys(store, info.stream)) {
    const bytes = await buffer(await store.read(key));
    floors.push({ bytes, ...decodeTimedFloor(bytes, key) });
  }
  return floors;
}

/** The place up to which a copy holds the primary's chain. Throws where it holds another one. */
export async function cursorOf(copy: Archive, primary: Archive): Promise<Place> {
  demandSameArchive(copy, primary);
  const end = await findEnd(copy, null);
  const lineage = await lineageOf(copy, end, primary);
  if (end.last === null || lineage === 'held' || lineage === 'passed') return end;
  const hint =
    end.generation > 0
      ? 'if that copy was promoted, make the config say so (docs/promote.md): nothing is deleted before'
      : 'look at both with "shipmate verify --store", and see "shipmate repair"';
  throw new ShipmateError(
    `the archive of stream ${copy.info.stream} in store ${copy.store.name} is no copy of the one in store ` +
      `${primary.store.name}: they differ at ${placeText(end.last)}`,
    { code: 'COPY_DIVERGED', hint },
  );
}

export function demandSameArchive(copy: Archive, primary: Archive): void {
  if (copy.info.digest === primary.info.digest) return;
  throw new ShipmateError(
    `stores ${copy.store.name} and ${primary.store.name} hold different archives of stream ${primary.info.stream}: ` +
      `${copy.info.archive} and ${primary.info.archive}`,
    {
      code: 'OTHER_ARCHIVE',
      hint: 'one of them has a wrong bucket, path or prefix in the config, or holds an older archive',
    },
  );
}

function notWhole({ info, store }: Archive, at: Place): ArchiveNotWhole {
  return new ArchiveNotWhole(
    `the archive of stream ${info.stream} in store ${store.name} is not whole: the object at ${placeText(at)} is missing`,
    'nothing is deleted from it: run "shipmate verify", and mend it with "shipmate repair" from a copy',
  );
}

function counting(past: PastLog, onObject: (() => void) | undefined) {
  const meet: PastLog['meet'] = (...met) => {
    onObject?.();
    past.meet(...met);
  };
  return { past, meet };
}
