import { webcrypto } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import { type Archive, floorKeys } from '../archive/walk.ts';
import { decodeTimedFloor, type Floor } from '../core/floor.ts';
import { decodeHeader, type Read } from '../core/header.ts';
import { type Place, placeText } from '../core/keys.ts';
import { ShipmateError } from '../errors.ts';
import type { ObjectStore } from '../store/store.ts';

/** Creates the object in a copy; one that is there already must hold the same bytes. Throws COPY_DIVERGED, COPY_UNFIT. */
export async function mirror(
  store: ObjectStore,
  key: string,
  { bytes, signal }: { readonly bytes: Buffer; readonly signal: AbortSignal },
): Promise<void> {
  if ((await store.create(key, bytes, signal)) === 'created') return;
  const there = await readOrNull(store, key);
  if (there === null) throw unfit(store, key);
  if (!there.equals(bytes)) throw diverged(store, `${key} holds something else there than in the primary`);
}

/** An object as it stands in the primary, proven to be what its header says. Throws BAD_OBJECT, CHUNK_CORRUPT, NOT_FOUND. */
export async function readProven(store: ObjectStore, key: string, { digest }: Pick<Read, 'digest'>): Promise<Buffer> {
  const bytes = await buffer(await store.read(key));
  const read = decodeHeader(bytes, key);
  const { header, payloadOffset } = read;
  if (read.digest !== digest) throw corrupt(store, key, 'its header changed while it was looked at');
  if (header.kind !== 'chunk') return bytes;
  const payload = bytes.subarray(payloadOffset);
  // Off the event loop, as everything that takes long.
  const sha256 = Buffer.from(await webcrypto.subtle.digest('SHA-256', payload)).toString('hex');
  if (sha256 !== header.stored.sha256) throw corrupt(store, key, 'its bytes are not those that were stored');
  return bytes;
}

/** A floor, and the object that says so. */
export interface FloorObject extends Floor {
  readonly key: string;
  readonly bytes: Buffer;
}

/** Where readers start after retention; null: at the archive's start. */
export async function highestFloor(store: ObjectStore, stream: string): Promise<FloorObject | null> {
  let key: string | null = null;
  for await (const each of floorKeys(store, stream)) key = each;
  if (key === null) return null;
  const bytes = await buffer(await store.read(key));
  return { key, bytes, ...decodeTimedFloor(bytes, key) };
}

export async function readOrNull(store: ObjectStore, key: string): Promise<Buffer | null> {
  try {
    return await buffer(await store.read(key));
  } catch (error) {
    if (error instanceof ShipmateError && error.code === 'NOT_FOUND') return null;
    throw error;
  }
}

/** A copy holds what its primary does not: nothing more is written to it. */
export function diverged(store: ObjectStore, why: string, cause?: unknown): ShipmateError {
  return new ShipmateError(`the copy in store ${store.name} has diverged: ${why}`, {
    code: 'COPY_DIVERGED',
    hint:
      'it was written by something else, damaged, or promoted: nothing more is written there. Compare both with "shipmate ' +
      'verify --store", then mend it with "shipmate repair" or give it an empty place, and start the daemon again',
    cause,
  });
}

export function wentBack(store: ObjectStore, place: Place): ShipmateError {
  return new ShipmateError(
    `the copy in store ${store.name} no longer holds ${placeText(place)}, which was written there`,
    {
      code: 'COPY_WENT_BACK',
      verdict: 'retry',
      hint: 'it was emptied, set back to an older state, or another one is mounted there: what it lacks is copied again',
    },
  );
}

/** The primary lacks what its copies still need. */
export function hole({ store, info }: Archive, what: string): ShipmateError {
  return new ShipmateError(`store ${store.name} lacks ${what} of stream ${info.stream}, which its copies still need`, {
    code: 'CHAIN_BROKEN',
    verdict: 'retry',
    hint: 'an object was removed from the primary: run "shipmate verify", and mend it from a copy with "shipmate repair"',
  });
}

function unfit(store: ObjectStore, key: string): ShipmateError {
  return new ShipmateError(`store ${store.name} says that ${key} exists, and has no such object`, {
    code: 'COPY_UNFIT',
    verdict: 'retry',
    hint: 'it does not honour "create only if the name is free", or shows a new object late: look at its server',
  });
}

function corrupt(store: ObjectStore, key: string, why: string): ShipmateError {
  return new ShipmateError(`object ${key} of store ${store.name} is not copied: ${why}`, {
    code: 'CHUNK_CORRUPT',
    verdict: 'retry',
    hint: 'the primary is damaged there: run "shipmate verify --deep", and mend it from a copy with "shipmate repair"',
  });
}
