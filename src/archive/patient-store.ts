import { Readable } from 'node:stream';
import { backoffMs } from '../core/backoff.ts';
import { ShipmateError } from '../errors.ts';
import type { ObjectStore } from '../store/store.ts';
import { answerOf, pause } from './retry.ts';

export interface PatienceOptions {
  readonly signal: AbortSignal;
  /** At most, with waits that grow from 50 ms: four take half a second, ten a quarter of a minute. */
  readonly attempts: number;
  /** Told of each failure that is tried again. */
  readonly onFailure?: (error: unknown) => void;
  /** Told again and again while a call gives no answer, as on a dead mount, where nothing ends it. */
  readonly onSlow?: (error: Error) => void;
}

/**
 * A store whose reads and deletions ask again when something fails that may pass: a walk of many reads gets through a store
 * that fails every other one, and a restore of hours outlives a hiccup. A read that breaks off half-way is begun again:
 * bodies are handed out whole.
 */
export function patient(store: ObjectStore, options: PatienceOptions): ObjectStore {
  const { signal, attempts, onFailure, onSlow } = options;

  const answer = <T>(work: Promise<T>) => (onSlow ? answerOf(work, { signal, onSlow }) : work);

  async function* answers<T>(items: AsyncIterable<T>): AsyncGenerator<T> {
    const all = items[Symbol.asyncIterator]();
    try {
      for (let next = await answer(all.next()); !next.done; next = await answer(all.next())) yield next.value;
    } finally {
      all.return?.().catch(() => {}); // may hang, too
    }
  }

  /** Waits before the next attempt; throws what is not to be tried again. */
  async function wait(error: unknown, attempt: number): Promise<void> {
    const mayPass = error instanceof ShipmateError && error.verdict === 'retry';
    if (signal.aborted || !mayPass || attempt >= attempts) throw error;
    onFailure?.(error);
    await pause(backoffMs(attempt), signal);
  }

  async function patiently<T>(work: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      signal.throwIfAborted();
      try {
        return await answer(work());
      } catch (error) {
        await wait(error, attempt);
      }
    }
  }

  return {
    name: store.name,
    create: (key, body, createSignal) => answer(store.create(key, body, createSignal)),
    read: async (key, range) => {
      const pieces = await patiently(async () => collect(await store.read(key, range)));
      return Readable.from(pieces, { objectMode: false });
    },
    readStart: (key, maxBytes) => patiently(() => store.readStart(key, maxBytes)),
    head: (key) => patiently(() => store.head(key)),
    async *list(prefix, from = {}) {
      let { after } = from;
      for (let attempt = 1; ; attempt++) {
        try {
          for await (const object of answers(store.list(prefix, after === undefined ? from : { ...from, after }))) {
            after = object.key;
            attempt = 1;
            yield object;
          }
          return;
        } catch (error) {
          await wait(error, attempt);
        }
      }
    },
    delete: (keys) => patiently(() => store.delete(keys)),
    capacity: () => patiently(() => store.capacity()),
  };
}

async function collect(body: Readable): Promise<Buffer[]> {
  const pieces: Buffer[] = [];
  for await (const piece of body) pieces.push(piece);
  return pieces;
}
