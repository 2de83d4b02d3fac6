import { altered } from './altered.ts';
import type { ObjectStore } from './store.ts';

export interface Created {
  readonly outcome: 'created' | 'exists' | 'failed';
  readonly tookMs: number;
}

/** The store, with the outcome of every creation told; not of one that was called off: that says nothing of the store. */
export function countedStore(store: ObjectStore, tell: (created: Created) => void): ObjectStore {
  return altered(store, {
    async create(key, body, signal) {
      const beganMs = performance.now();
      try {
        const outcome = await store.create(key, body, signal);
        tell({ outcome, tookMs: performance.now() - beganMs });
        return outcome;
      } catch (error) {
        if (!signal.aborted) tell({ outcome: 'failed', tookMs: performance.now() - beganMs });
        throw error;
      }
    },
  });
}
