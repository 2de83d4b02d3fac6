import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openFileStore } from '../../src/store/file.ts';
import { storeContract } from './store.contract.ts';

for (const prefix of ['', 'prod/eu']) {
  storeContract(`the file store ${prefix ? 'with a prefix' : 'at its root'}`, async () => {
    const path = await mkdtemp(join(tmpdir(), 'shipmate-store-'));
    return {
      client: () => openFileStore({ name: 'nas', path, prefix }),
      close: () => rm(path, { recursive: true, force: true }),
    };
  });
}
