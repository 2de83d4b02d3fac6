import { Governor } from '../../src/ship/governor.ts';
import { throttledStore } from '../../src/store/throttled.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { storeContract } from './store.contract.ts';

const MIB = 1024 * 1024;

storeContract('a throttled store', async () => {
  const store = new MemoryStore();
  const governor = new Governor({ nowMs: () => performance.now() });
  governor.set({ link: 500 * MIB, guaranteed: { shipping: 250 * MIB } });
  return { client: () => throttledStore(store, governor.of('shipping')), close: async () => {} };
});
