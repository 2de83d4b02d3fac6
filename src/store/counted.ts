import { altered } from './altered.ts';
import type { ObjectStore } from './store.ts';

/** The store, with the outcome of every creation told. */
export function countedStore(
  store: ObjectStore,
  tell: (outcome: 'created' | 'exists' | 'failed') => void,
): ObjectStore {
  return altered(store, {
    async create(key, body, signal) {
      try {
        const outcome = await store.create(key, body, signal);
        tell(outcome);
        return outcome;
      } catch (error) {
        tell('failed');
        throw error;
      }
    },
  });
}
