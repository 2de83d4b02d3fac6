import { comparePlaces, type Place, placeKey, placeOf, termPrefix, termsPrefix } from '../core/keys.ts';
import { ShipmateError } from '../errors.ts';
import { readHeader } from './objects.ts';
import type { Archive } from './walk.ts';

export interface Sweeping {
  /** Segments that stay below the floor too. */
  readonly isCompanion: (segment: string) => boolean;
  /** Counts what would be deleted, and deletes nothing. */
  readonly dryRun?: boolean;
  readonly signal: AbortSignal;
  /** Told of each object that was looked at, or deleted. */
  readonly onObject?: () => void;
}

/** What was deleted, or would be. */
export interface Swept {
  readonly objects: number;
  readonly bytes: number;
  /** Deletions that the store refused. */
  readonly refused: {
    /** By retention: object lock, a policy, a hold. */
    readonly locked: number;
    /** For want of a right. */
    readonly denied: number;
    /** The first of them; one for want of a right, if there is any. */
    readonly error: ShipmateError | null;
  };
  /** The store refused so many in a row that the younger ones were not tried. */
  readonly gaveUp: boolean;
}

interface Candidate {
  readonly key: string;
  readonly size: number;
  /** Behind a seal, not below the floor. */
  readonly isOrphan: boolean;
}

/** So many are read, then deleted, at once. */
const AT_ONCE = 64;

/**
 * Deletes the chunks below the floor and those that stand behind seals which a walk reached: the oldest first. What is no
 * chunk stays, and so does what can't be read.
 */
export async function sweep(
  archive: Archive,
  { floor, seals }: { readonly floor: Place; readonly seals: readonly Place[] },
  sweeping: Sweeping,
): Promise<Swept> {
  const tally = new Tally();
  for await (const batch of batchesOf(candidates(archive, floor, seals))) {
    sweeping.signal.throwIfAborted();
    const isChunk = await Promise.all(batch.map((one) => isGarbage(archive, one, sweeping)));
    const garbage = batch.filter((_, index) => isChunk[index]);
    const refusals = await Promise.all(garbage.map(({ key }) => (sweeping.dryRun ? null : refusalOf(archive, key))));
    for (const [index, { size }] of garbage.entries()) tally.count(size, refusals[index] ?? null);
    // What is younger is locked for longer, and of rights nothing better is to be expected.
    if (refusals.length === AT_ONCE && !refusals.includes(null)) return tally.swept(true);
  }
  return tally.swept(false);
}

class Tally {
  #objects = 0;
  #bytes = 0;
  #locked = 0;
  #denied = 0;
  #error: ShipmateError | null = null;

  count(bytes: number, refusal: ShipmateError | null): void {
    if (refusal === null) {
      this.#objects++;
      this.#bytes += bytes;
    } else if (refusal.code === 'STORE_LOCKED') {
      this.#locked++;
      this.#error ??= refusal;
    } else if (this.#denied++ === 0) {
      this.#error = refusal;
    }
  }

  swept(gaveUp: boolean): Swept {
    const refused = { locked: this.#locked, denied: this.#denied, error: this.#error };
    return { objects: this.#objects, bytes: this.#bytes, refused, gaveUp };
  }
}

async function* batchesOf<T>(all: AsyncIterable<T>): AsyncGenerator<T[]> {
  let batch: T[] = [];
  for await (const one of all) {
    batch.push(one);
    if (batch.length < AT_ONCE) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}

async function* candidates({ store, info }: Archive, floor: Place, seals: readonly Place[]): AsyncGenerator<Candidate> {
  for await (const { key, size } of store.list(termsPrefix(info.stream))) {
    const place = placeOf(key);
    if (place === null) continue;
    if (comparePlaces(place, floor) >= 0) break;
    if (place.slot > 0) yield { key, size, isOrphan: false };
  }
  for (const seal of seals) {
    if (seal.term < floor.term) continue; // its orphans are below the floor
    const behind = { after: placeKey(info.stream, seal) };
    for await (const { key, size } of store.list(termPrefix(info.stream, seal.term), behind)) {
      yield { key, size, isOrphan: true };
    }
  }
}

async function isGarbage({ store }: Archive, { key, isOrphan }: Candidate, { isCompanion, onObject }: Sweeping) {
  try {
    const { header } = await readHeader(store, key);
    onObject?.();
    return header.kind === 'chunk' && (isOrphan || !isCompanion(header.from.segment));
  } catch (error) {
    if (error instanceof ShipmateError && (error.code === 'NOT_FOUND' || error.code === 'BAD_OBJECT')) return false;
    throw error;
  }
}

/** Null: it is deleted. */
async function refusalOf({ store }: Archive, key: string): Promise<ShipmateError | null> {
  try {
    await store.delete([key]);
    return null;
  } catch (error) {
    if (error instanceof ShipmateError && (error.code === 'STORE_LOCKED' || error.code === 'STORE_DENIED')) {
      return error;
    }
    throw error;
  }
}
