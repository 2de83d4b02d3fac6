import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { inspectReading } from '../../src/store/inspect.ts';
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

  describe('the S3 store on radosgw', () => {
    const never = new AbortController().signal;

    test('never overwrites by a stream, although the server ignores the condition of an upload in parts', async () => {
      const { url: endpoint, account: credentials } = server;
      const bucket = await server.newBucket();
      const open = () =>
        openS3Store({ name: 'main', bucket, endpoint, forcePathStyle: true, credentials, pieceBytes: 5 << 20 });
      const stream = (byte: number) => () => Readable.from([Buffer.alloc(6 << 20, byte)]);
      const outcomes = await Promise.all([1, 2].map((byte) => open().create('long', stream(byte), never)));
      expect([...outcomes].sort()).toEqual(['created', 'exists']);
      expect(await open().readStart('long', 1)).toEqual(Buffer.from([outcomes.indexOf('created') + 1]));
    });

    test('names what an account may not, and what it asks for is not there', async () => {
      const { url: endpoint, account } = server;
      const bucket = await server.newBucket();
      const place = { name: 'main', bucket, endpoint, forcePathStyle: true };
      const stranger = openS3Store({ ...place, credentials: await server.addAccount('stranger') });
      const denied = stranger.create('key', Buffer.from('x'), never);
      await expect(denied).rejects.toMatchObject({
        code: 'STORE_DENIED',
        hint: expect.stringContaining('s3:PutObject'),
      });
      const hints = (await inspectReading(stranger)).map(({ hint }) => hint).join('; ');
      expect(hints).toMatch(/s3:GetObject.*s3:ListBucket/);
      const mistaken = { accessKeyId: account.accessKeyId, secretAccessKey: 'wrong' };
      const refused = openS3Store({ ...place, credentials: mistaken }).head('key');
      await expect(refused).rejects.toMatchObject({
        code: 'STORE_DENIED',
        hint: expect.stringContaining('secret key'),
      });
      const nowhere = openS3Store({ ...place, bucket: 'acme-lgos', credentials: account });
      await expect(nowhere.head('key')).rejects.toMatchObject({ code: 'STORE_MISSING' });
    });
  });
} else {
  process.stderr.write(`      skipped: ${noRadosgw}\n`);
  describe('the S3 store on radosgw', () => test.skip(noRadosgw!, () => {}));
}
