import type { Readable } from 'node:stream';
import { Transform } from 'node:stream';
import { altered } from './altered.ts';
import type { Capacity, ObjectStore } from './store.ts';

export interface Quota {
  /** How much may lie below the store's prefix. */
  readonly bytes: number;
  /** Monotonic, milliseconds. */
  readonly nowMs?: () => number;
}

/** How long a listing counts: what other writers added meanwhile is not in it, what was written through here is. */
const LISTED_MS = 3_600_000;

/** A store that has no bound of its own, with the room that its quota leaves. It tells, and refuses nothing. */
export function withQuota(
  store: ObjectStore,
  { bytes: totalBytes, nowMs = () => performance.now() }: Quota,
): ObjectStore {
  let listed: { readonly bytes: Promise<number>; readonly atMs: number } | null = null;
  let addedBytes = 0;

  async function list(): Promise<number> {
    addedBytes = 0;
    let bytes = 0;
    for await (const { size } of store.list('')) bytes += size;
    return bytes;
  }

  /** Those who ask while it is listed share the answer; a listing that failed is none. */
  async function used(): Promise<number> {
    if (listed === null || nowMs() - listed.atMs > LISTED_MS) {
      const listing = { bytes: list(), atMs: nowMs() };
      listing.bytes.catch(() => {
        if (listed === listing) listed = null;
      });
      listed = listing;
    }
    return (await listed.bytes) + addedBytes;
  }

  return altered(store, {
    async create(key, body, signal) {
      const counted = countedBody(body);
      const outcome = await store.create(key, counted.body, signal);
      if (outcome === 'created') addedBytes += counted.bytes();
      return outcome;
    },
    async delete(keys) {
      await store.delete(keys);
      listed = null; // how much they took nobody knows
    },
    async capacity(): Promise<Capacity> {
      return { totalBytes, freeBytes: Math.max(0, totalBytes - (await used())) };
    },
  });
}

/** A stream may be begun anew: what counts is the last one. */
function countedBody(body: Uint8Array | (() => Readable)): {
  readonly body: Uint8Array | (() => Readable);
  readonly bytes: () => number;
} {
  if (typeof body !== 'function') return { body, bytes: () => body.length };
  let bytes = 0;
  const counting = () => {
    bytes = 0;
    const source = body();
    const counter = new Transform({
      transform(piece: Buffer, _, done) {
        bytes += piece.length;
        done(null, piece);
      },
    });
    source.once('error', (error) => counter.destroy(error));
    counter.once('close', () => source.destroy());
    return source.pipe(counter);
  };
  return { body: counting, bytes: () => bytes };
}
