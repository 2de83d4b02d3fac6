import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, describe, expect, test } from '@jest/globals';
import { raceProbe } from '../../src/archive/identity.ts';
import { openS3Store, type S3StoreOptions } from '../../src/store/s3.ts';
import { startS3rver } from '../helpers/s3rver.ts';
import { until } from '../helpers/wait.ts';

const never = new AbortController().signal;
const credentials = { accessKeyId: 'S3RVER', secretAccessKey: 'S3RVER' };

type Answer = (request: IncomingMessage, body: Buffer, response: ServerResponse) => void;

let server: Server | null = null;
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
  server = null;
});

/** A store on a server that answers as the test says. */
async function storeOn(
  answer: Answer,
  options: Partial<S3StoreOptions> & { deadlineMs?: number; ofProfile?: boolean } = {},
) {
  server = createServer(async (request, response) => {
    const pieces: Buffer[] = [];
    for await (const piece of request) pieces.push(piece);
    answer(request, Buffer.concat(pieces), response);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const { deadlineMs = 5_000, ofProfile = false, ...rest } = options;
  const place = { name: 'main', bucket: 'archive', endpoint, forcePathStyle: true };
  const own = ofProfile ? {} : { credentials };
  return openS3Store({ ...place, ...own, timings: { deadlineMs, stallMs: deadlineMs }, ...rest });
}

const refuse = (status: number, code: string): Answer => {
  const body = `<?xml version="1.0"?><Error><Code>${code}</Code><Message>no</Message></Error>`;
  return (_, __, response) => response.writeHead(status, { 'content-type': 'application/xml' }).end(body);
};

describe('an S3 store', () => {
  test('refuses a look-alike that takes the condition and overwrites all the same', async () => {
    const lookAlike = await startS3rver();
    try {
      const { url: endpoint, bucket } = lookAlike;
      const store = openS3Store({ name: 'main', bucket, endpoint, forcePathStyle: true, credentials });
      await expect(raceProbe(store, 'orders', never)).rejects.toThrow(
        'does not honour "create only if the name is free"',
      );
    } finally {
      await lookAlike.stop();
    }
  });

  test.each([
    [403, 'AccessDenied', 'STORE_DENIED', 'fatal', 's3:PutObject'],
    [403, 'RequestTimeTooSkewed', 'STORE_DENIED', 'fatal', 'clock'],
    [404, 'NoSuchBucket', 'STORE_MISSING', 'fatal', 'bucket'],
    [301, 'PermanentRedirect', 'STORE_UNFIT', 'fatal', 'region'],
    [400, 'BadDigest', 'STORE_DAMAGED', 'retry', 'checksum'],
    [503, 'SlowDown', 'STORE_BUSY', 'retry', 'slow down'],
    [500, 'InternalError', 'STORE_FAILED', 'retry', 'tried again'],
  ])('says what %i %s means', async (status, said, code, verdict, hint) => {
    let asked = 0;
    const store = await storeOn((...call) => {
      asked++;
      refuse(status, said)(...call);
    });
    const refusal = store.create('key', Buffer.from('x'), never);
    await expect(refusal).rejects.toMatchObject({ code, verdict, hint: expect.stringContaining(hint) });
    expect(asked).toBe(1); // the loops retry
  });

  test('a conflict with another creation is `exists` only once the other is there', async () => {
    let isThere = false;
    const store = await storeOn((request, body, response) => {
      if (request.method === 'PUT') return refuse(409, 'ConditionalRequestConflict')(request, body, response);
      if (!isThere) return refuse(404, 'NoSuchKey')(request, body, response);
      response.writeHead(206, { 'content-range': 'bytes 0-0/7', 'content-length': '1' }).end('x');
    });
    await expect(store.create('key', Buffer.from('x'), never)).rejects.toMatchObject({ verdict: 'retry' });
    isThere = true;
    expect(await store.create('key', Buffer.from('x'), never)).toBe('exists');
  });

  test('a server that does not answer is down after the deadline, and a term that ends leaves at once', async () => {
    const store = await storeOn(() => {}, { deadlineMs: 300 });
    await expect(store.create('key', Buffer.from('x'), never)).rejects.toMatchObject({ code: 'STORE_DOWN' });
    const term = new AbortController();
    const creation = store.create('key', Buffer.from('x'), term.signal);
    const reason = new Error('the term is over');
    term.abort(reason);
    await expect(creation).rejects.toBe(reason);
  });

  test('a key that was rotated in the files of a profile is taken up when the old one is refused', async () => {
    const home = await mkdtemp(join(tmpdir(), 'shipmate-aws-'));
    const file = join(home, 'credentials');
    const write = (id: string) => writeFile(file, `[default]\naws_access_key_id = ${id}\naws_secret_access_key = x\n`);
    const before = { ...process.env };
    for (const name of Object.keys(before)) if (name.startsWith('AWS_')) delete process.env[name];
    Object.assign(process.env, { AWS_SHARED_CREDENTIALS_FILE: file, AWS_CONFIG_FILE: join(home, 'config') });
    try {
      let valid = 'FIRST';
      await write(valid);
      const store = await storeOn(
        (request, body, response) => {
          const isValid = request.headers.authorization?.includes(`Credential=${valid}/`);
          if (!isValid) return refuse(403, 'InvalidAccessKeyId')(request, body, response);
          response.writeHead(200).end();
        },
        { ofProfile: true },
      );
      expect(await store.create('1', Buffer.from('x'), never)).toBe('created');
      valid = 'SECOND';
      await expect(store.create('2', Buffer.from('x'), never)).rejects.toMatchObject({ code: 'STORE_DENIED' });
      await write(valid);
      await until('the new key is used', () => store.create('2', Buffer.from('x'), never).catch(() => null));
    } finally {
      for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) delete process.env[name];
      Object.assign(process.env, before);
      await rm(home, { recursive: true });
    }
  });

  test('a storage class that only this server knows is asked for, and refused by it alone', async () => {
    const asked: unknown[] = [];
    const store = await storeOn(
      (request, _, response) => {
        asked.push(request.headers['x-amz-storage-class']);
        response.writeHead(200).end();
      },
      { storageClass: 'FAST_DISKS' },
    );
    await store.create('key', Buffer.from('x'), never);
    expect(asked).toEqual(['FAST_DISKS']);
  });

  test('a listing that breaks off is no whole one', async () => {
    const page =
      '<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>a</Key></Contents></ListBucketResult>';
    const store = await storeOn((_, __, response) => response.end(page));
    const keys = async () => {
      for await (const _ of store.list(''));
    };
    await expect(keys()).rejects.toMatchObject({ code: 'STORE_UNFIT' });
  });

  test('a long stream goes in parts, and is completed only if its name is free', async () => {
    const parts: Buffer[] = [];
    const conditions: unknown[] = [];
    const aborted: string[] = [];
    const store = await storeOn(
      (request, body, response) => {
        const { pathname, searchParams } = new URL(request.url ?? '', 'http://host');
        const isProbe = pathname.endsWith('.shipmate-probe');
        if (request.method === 'DELETE') {
          aborted.push(pathname);
          return response.writeHead(204).end();
        }
        if (searchParams.has('uploads')) {
          const xml = '<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>';
          return response.end(xml);
        }
        if (request.method === 'PUT') {
          if (!isProbe) parts.push(body);
          return response.writeHead(200, { etag: '"e"' }).end();
        }
        conditions.push(request.headers['if-none-match']);
        if (isProbe || pathname.endsWith('taken')) return refuse(412, 'PreconditionFailed')(request, body, response);
        response.end('<CompleteMultipartUploadResult/>');
      },
      { pieceBytes: 1_000 },
    );
    const bytes = Buffer.from('0123456789'.repeat(250));
    const stream = () => Readable.from([bytes]);
    expect(await store.create('free', stream, never)).toBe('created');
    expect(parts.map(({ length }) => length)).toEqual([1_000, 1_000, 500]);
    expect(Buffer.concat(parts).equals(bytes)).toBe(true);
    expect(await store.create('taken', stream, never)).toBe('exists');
    expect(aborted).toContain('/archive/taken');
    expect(new Set(conditions)).toEqual(new Set(['*']));
  });
});
