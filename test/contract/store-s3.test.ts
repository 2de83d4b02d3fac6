import { afterAll, beforeAll, describe, test } from '@jest/globals';
import { openS3Store } from '../../src/store/s3.ts';
import { noRadosgw, type Radosgw, startRadosgw } from '../helpers/radosgw.ts';
import { storeContract } from './store.contract.ts';

let server: Radosgw;

if (noRadosgw === null) {
  beforeAll(async () => {
    server = await startRadosgw();
  }, 120_000);
  afterAll(() => server?.stop());
  storeContract('the S3 store on radosgw', async () => {
    const { url: endpoint, account: credentials } = server;
    const bucket = await server.newBucket();
    return {
      client: () =>
        openS3Store({ name: 'main', bucket, prefix: 'prod/eu', endpoint, forcePathStyle: true, credentials }),
      close: async () => {},
    };
  });
} else {
  process.stderr.write(`      skipped: ${noRadosgw}\n`);
  describe('the S3 store on radosgw', () => test.skip(noRadosgw!, () => {}));
}
