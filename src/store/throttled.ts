import { Readable } from 'node:stream';
import { altered } from './altered.ts';
import type { ObjectStore } from './store.ts';

/** Who says when bytes may be sent; throws the signal's reason when it aborts first. */
export interface Throttle {
  take(bytes: number, signal: AbortSignal): Promise<void>;
}

/** The store, whose bodies wait until their bytes may be sent: whole, or where a body is a stream, piece by piece. */
export function throttledStore(store: ObjectStore, throttle: Throttle): ObjectStore {
  return altered(store, {
    async create(key, body, signal) {
      if (typeof body === 'function') {
        return store.create(key, () => Readable.from(pieces(body(), throttle, signal), { objectMode: false }), signal);
      }
      await throttle.take(body.length, signal);
      return store.create(key, body, signal);
    },
  });
}

async function* pieces(body: Readable, throttle: Throttle, signal: AbortSignal): AsyncGenerator<Buffer> {
  for await (const piece of body) {
    const bytes = Buffer.from(piece);
    await throttle.take(bytes.length, signal);
    yield bytes;
  }
}
