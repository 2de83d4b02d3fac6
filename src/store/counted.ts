import type { ObjectStore } from './store.ts';

/** The store, with the outcome of every creation told. */
export function countedStore(
  store: ObjectStore,
  tell: (outcome: 'created' | 'exists' | 'failed') => void,
): ObjectStore {
  return {
    name: store.name,
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
    read: (key, range) => store.read(key, range),
    readStart: (key, maxBytes) => store.readStart(key, maxBytes),
    head: (key) => store.head(key),
    list: (prefix, from) => store.list(prefix, from),
    delete: (keys) => store.delete(keys),
    capacity: () => store.capacity(),
  };
}
