import { FakeLog } from '../fakes/fake-log.ts';
import { openFakeSource } from '../fakes/fake-source.ts';
import { sourceContract } from './source.contract.ts';

sourceContract('the fake', async () => {
  const log = new FakeLog();
  let remembered = 0;
  log.append();
  return {
    open: () => openFakeSource(log),
    append: async (options) => log.append(options),
    rotate: async () => log.rotate(),
    purge: async () => log.purge(),
    reset: async () => log.reset(),
    remember: async () => {
      remembered = log.sizeBytes;
    },
    rollBack: async () => {
      log.rollBack(remembered);
      log.append();
    },
    contents: async () => log.contents(),
    close: async () => {},
  };
});
