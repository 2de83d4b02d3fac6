import { abortReason } from '../errors.ts';
import { altered } from './altered.ts';
import type { ObjectStore } from './store.ts';

const forEver = new AbortController().signal;

/**
 * So many calls at once, whoever makes them; the others wait, first come, first served. A call that hangs in a dead mount
 * holds one of the process's threads, and others must be left for the log and for the stores that are alive.
 */
export class Turns {
  #free: number;
  readonly #waiting = new Set<() => void>();

  constructor(count: number) {
    this.#free = count;
  }

  /** Throws the signal's reason where it aborts before it is its turn; once begun, the call must end by itself. */
  async take<T>(call: () => Promise<T>, signal: AbortSignal = forEver): Promise<T> {
    await this.wait(signal);
    try {
      return await call();
    } finally {
      this.pass();
    }
  }

  /** Resolves when it is the caller's turn, who then passes it on, once. */
  async wait(signal: AbortSignal): Promise<void> {
    if (signal.aborted) throw abortReason(signal);
    if (this.#free > 0) {
      this.#free--;
      return;
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const serve = () => {
      signal.removeEventListener('abort', leave);
      resolve();
    };
    const leave = () => {
      this.#waiting.delete(serve);
      reject(abortReason(signal));
    };
    this.#waiting.add(serve);
    signal.addEventListener('abort', leave, { once: true });
    await promise;
  }

  pass(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#free++;
      return;
    }
    this.#waiting.delete(next);
    next();
  }
}

/** The store, whose calls take turns; to read a body, up to its end, is part of the call. */
export function inTurns(store: ObjectStore, turns: Turns): ObjectStore {
  return altered(store, {
    create: (key, body, signal) => turns.take(() => store.create(key, body, signal), signal),
    async read(key, range) {
      await turns.wait(forEver);
      try {
        const body = await store.read(key, range);
        return body.once('close', () => turns.pass());
      } catch (error) {
        turns.pass();
        throw error;
      }
    },
    readStart: (key, maxBytes) => turns.take(() => store.readStart(key, maxBytes)),
    head: (key) => turns.take(() => store.head(key)),
    async *list(prefix, from) {
      const objects = store.list(prefix, from)[Symbol.asyncIterator]();
      try {
        for (;;) {
          const next = await turns.take(() => objects.next());
          if (next.done) return;
          yield next.value;
        }
      } finally {
        objects.return?.().catch(() => {}); // may hang, too
      }
    },
    delete: (keys) => turns.take(() => store.delete(keys)),
    capacity: () => turns.take(() => store.capacity()),
  });
}
