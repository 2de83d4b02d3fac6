import { inTurns, Turns } from '../../src/store/turns.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { storeContract } from './store.contract.ts';

storeContract('a store whose calls take turns', async () => {
  const store = new MemoryStore();
  const turns = new Turns(2);
  return { client: () => inTurns(store, turns), close: async () => {} };
});
