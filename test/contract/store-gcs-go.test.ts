import { afterAll, beforeAll, describe, test } from '@jest/globals';
import { openGcsStore } from '../../src/store/gcs.ts';
import { type FakeGcsServer, noFakeGcsServer, startFakeGcsServer } from '../helpers/gcs-double-go.ts';
import { storeContract } from './store.contract.ts';

let server: FakeGcsServer;

if (noFakeGcsServer === null) {
  beforeAll(async () => {
    server = await startFakeGcsServer();
  });
  afterAll(() => server?.stop());
  storeContract('the GCS store on fake-gcs-server', async () => {
    const bucket = await server.newBucket();
    return {
      client: () => openGcsStore({ name: 'main', bucket, apiEndpoint: server.url, pieceBytes: 1 << 20 }),
      close: async () => {},
    };
  });
} else {
  process.stderr.write(`      skipped: ${noFakeGcsServer}\n`);
  describe('the GCS store on fake-gcs-server', () => test.skip(noFakeGcsServer!, () => {}));
}
