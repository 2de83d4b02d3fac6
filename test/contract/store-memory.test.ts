import { FaultyStore } from '../fakes/faulty-store.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { storeContract } from './store.contract.ts';

storeContract('the store in memory', async () => {
  const store = new MemoryStore();
  return { client: () => store, close: async () => {} };
});

storeContract('a faulty store without faults', async () => {
  const store = new FaultyStore(new MemoryStore());
  return { client: () => store, close: async () => {} };
});
