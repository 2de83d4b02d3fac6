import type { ObjectStore } from './store.ts';

/** The store, with some of its operations in another way. */
export function altered(store: ObjectStore, operations: Partial<Omit<ObjectStore, 'name'>>): ObjectStore {
  return {
    name: store.name,
    create: (key, body, signal) => store.create(key, body, signal),
    read: (key, range) => store.read(key, range),
    readStart: (key, maxBytes) => store.readStart(key, maxBytes),
    head: (key) => store.head(key),
    list: (prefix, from) => store.list(prefix, from),
    delete: (keys) => store.delete(keys),
    capacity: () => store.capacity(),
    ...operations,
  };
}
