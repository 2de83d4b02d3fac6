import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type RequestListener, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { googleCredentials } from '../../src/store/gcs/credentials.ts';
import { type GcsStoreOptions, openGcsStore } from '../../src/store/gcs.ts';
import { type GcsDouble, type GcsDoubleOptions, startGcsDouble } from '../helpers/gcs-double.ts';

const never = new AbortController().signal;
const KIB = 1024;
const KEY = 'orders/terms/00000001/0000000001';
const BYTES = Buffer.from('what was committed');

let closing: (() => Promise<void>)[] = [];
beforeEach(() => {
  closing = [];
});
afterEach(async () => {
  await Promise.all(closing.map((close) => close()));
});

async function startDouble(options: GcsDoubleOptions = {}): Promise<GcsDouble> {
  const double = await startGcsDouble(options);
  closing.push(() => double.stop());
  return double;
}

const open = (double: Pick<GcsDouble, 'url'>, options: Partial<GcsStoreOptions> = {}) =>
  openGcsStore({ name: 'main', bucket: 'archive', apiEndpoint: double.url, ...options });

async function listed(store: ReturnType<typeof open>, prefix = '', from: Parameters<typeof store.list>[1] = {}) {
  const keys: string[] = [];
  for await (const { key } of store.list(prefix, from)) keys.push(key);
  return keys;
}

/** A server that answers as Google's never would. */
async function startServer(answer: RequestListener): Promise<{ url: string }> {
  const server: Server = createServer(answer).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  closing.push(async () => {
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return { url: `http://127.0.0.1:${address.port}` };
}

describe('what may pass is for the loop to try again', () => {
  test.each([
    [503, 'STORE_BUSY'],
    [429, 'STORE_BUSY'],
    [500, 'STORE_FAILED'],
    [408, 'STORE_FAILED'],
  ])('%i is %s, once, with nothing done', async (status, code) => {
    const double = await startDouble();
    const store = open(double);
    await double.setFaults({ rules: [{ kind: 'refuse', status, retryAfterSeconds: 1, times: 1 }] });
    await expect(store.create(KEY, BYTES, never)).rejects.toMatchObject({ code, verdict: 'retry' });
    expect((await double.counters()).requests.upload).toBe(1);
    expect(await store.create(KEY, BYTES, never)).toBe('created');
  });

  test('a connection that breaks leaves open whether the object exists; creating it again tells', async () => {
    const double = await startDouble();
    const store = open(double);
    for (const [kind, then] of [
      ['drop-before', 'created'],
      ['drop-after', 'exists'],
    ] as const) {
      const key = `orders/${kind}`;
      await double.setFaults({ rules: [{ kind, times: 1 }] });
      await expect(store.create(key, BYTES, never)).rejects.toMatchObject({ code: 'STORE_DOWN', verdict: 'retry' });
      expect(await store.create(key, BYTES, never)).toBe(then);
      expect(await buffer(await store.read(key))).toEqual(BYTES);
    }
  });

  test('an endpoint that does not exist', async () => {
    const store = open({ url: 'http://127.0.0.1:1' });
    await expect(store.head(KEY)).rejects.toMatchObject({ code: 'STORE_DOWN', verdict: 'retry' });
    await expect(store.create(KEY, BYTES, never)).rejects.toThrow('ECONNREFUSED');
  });

  test.each(['hang', 'hang-after'] as const)('no answer (%s) is given up in time, whatever is asked', async (kind) => {
    const double = await startDouble();
    const store = open(double, { timings: { stallMs: 100 } });
    await open(double).create('orders/there', BYTES, never);
    await double.setFaults({ rules: [{ kind, operations: ['upload', 'session', 'read', 'head', 'list', 'delete'] }] });
    const calls: (() => Promise<unknown>)[] = [
      () => store.create(KEY, BYTES, never),
      () => store.create(KEY, () => Readable.from([BYTES]), never),
      () => store.read('orders/there'),
      () => store.head('orders/there'),
      () => listed(store),
      () => store.delete([KEY]),
    ];
    for (const call of calls) await expect(call()).rejects.toMatchObject({ code: 'STORE_DOWN', verdict: 'retry' });
  });

  test('an answer that trickles is given up at the deadline', async () => {
    const double = await startDouble();
    const store = open(double, { timings: { deadlineMs: 150 } });
    await double.setFaults({ rules: [{ kind: 'trickle', bytesPerSecond: 20, operations: ['list'] }] });
    await expect(listed(store)).rejects.toThrow('not done within');
  });

  test('a body that stops half-way is a failure, and a reader that takes its time is none', async () => {
    const server = await startServer((_, response) => {
      response.writeHead(200, { 'content-length': '1000' });
      response.write(Buffer.alloc(500));
    });
    const double = await startDouble();
    // Longer than a busy machine takes to send the next byte.
    const timings = { stallMs: 2_000 };
    const bytes = Buffer.alloc(4 * 1024 * KIB, 'x');
    await open(double).create('large', bytes, never);
    const body = await open(double, { timings }).read('large');

    // Begun later, given up after the same time: by then the other would have been too.
    const stalled = open(server, { timings });
    await expect(buffer(await stalled.read(KEY))).rejects.toMatchObject({ code: 'STORE_DOWN', verdict: 'retry' });
    expect((await buffer(body)).equals(bytes)).toBe(true);
  });

  test('an aborted term does not wait for the network, and its reason is told', async () => {
    const double = await startDouble();
    const store = open(double);
    await double.setFaults({ rules: [{ kind: 'hang' }] });
    for (const body of [BYTES, () => Readable.from([BYTES])]) {
      const term = new AbortController();
      const creating = store.create(KEY, body, term.signal);
      setTimeout(() => term.abort(new Error('the term is over')), 50);
      await expect(creating).rejects.toThrow('the term is over');
    }
  });
});

describe('what an operator must set right is fatal, and says what', () => {
  test.each([
    ['storage.objects.create', (store) => store.create(KEY, BYTES, never)],
    ['storage.objects.get', (store) => store.head('orders/there')],
    ['storage.objects.get', (store) => store.readStart('orders/there', 8)],
    ['storage.objects.list', (store) => listed(store)],
    ['storage.objects.list', (store) => store.head('orders/absent')], // else nobody is told what is not there
    ['storage.objects.delete', (store) => store.delete(['orders/there'])],
  ] as [string, (store: ReturnType<typeof open>) => Promise<unknown>][])('%s is named', async (permission, call) => {
    const double = await startDouble();
    const store = open(double);
    await store.create('orders/there', BYTES, never);
    await double.deny([permission]);
    const refused = {
      code: 'STORE_DENIED',
      verdict: 'fatal',
      hint: expect.stringContaining(`grant this account ${permission} on`),
    };
    await expect(call(store)).rejects.toMatchObject(refused);
  });

  test('a bucket that does not exist is not a store without objects', async () => {
    const double = await startDouble();
    const store = open(double, { bucket: 'acme-lgos' });
    const missing = { code: 'STORE_MISSING', verdict: 'fatal', hint: expect.stringContaining('create the bucket') };
    await expect(store.create(KEY, BYTES, never)).rejects.toMatchObject(missing);
    await expect(store.head(KEY)).rejects.toMatchObject(missing);
    await expect(store.read(KEY)).rejects.toMatchObject(missing);
    await expect(listed(store)).rejects.toMatchObject(missing);
    await expect(store.delete([KEY])).rejects.toMatchObject(missing);
  });

  test("a proxy's page is neither an object that was created nor one that is absent", async () => {
    let status = 200;
    const store = open(
      await startServer((_, response) => response.writeHead(status).end('<html>Please log in</html>')),
    );
    await expect(store.create(KEY, BYTES, never)).rejects.toMatchObject({ code: 'STORE_FAILED' });
    status = 404;
    await expect(store.head(KEY)).rejects.toMatchObject({ code: 'STORE_FAILED' });
    await expect(store.read(KEY)).rejects.toMatchObject({ code: 'STORE_FAILED' });
  });
});

describe('creating only where a name is free', () => {
  test.each([false, true])(
    'needs no right to delete (rights looked at first: %s)',
    async (rightsBeforePreconditions) => {
      const double = await startDouble({ rightsBeforePreconditions });
      await double.deny(['storage.objects.delete']);
      const store = open(double, { pieceBytes: 256 * KIB });
      const large = Buffer.alloc(600 * KIB, 'a');
      for (const body of [BYTES, large, () => Readable.from([large])]) {
        const key = `orders/${closing.length}-${typeof body}-${body.length}`;
        expect(await store.create(key, body, never)).toBe('created');
        expect(await store.create(key, body, never)).toBe('exists');
      }
    },
  );

  test('asks nothing but to create, with one request for a small object and over one connection', async () => {
    const double = await startDouble();
    const store = open(double);
    for (let n = 0; n < 20; n++) await store.create(`orders/${n}`, BYTES, never);
    expect(await double.counters()).toMatchObject({ requests: { upload: 20 }, statuses: { 200: 20 }, connections: 1 });
  });

  test('the class that the config names is that of the objects', async () => {
    const double = await startDouble();
    await open(double, { storageClass: 'NEARLINE' }).create('orders/x', BYTES, never);
    const found = await fetch(`${double.url}/storage/v1/b/archive/o/orders%2Fx`);
    expect(await found.json()).toMatchObject({ storageClass: 'NEARLINE', size: String(BYTES.length) });
  });
});

describe('a large object', () => {
  const large = Buffer.from(Array.from({ length: 1_000 * KIB }, (_, n) => (n * 7) & 255));

  test('goes on after a break from what has arrived', async () => {
    const double = await startDouble();
    const store = open(double, { pieceBytes: 256 * KIB });
    await double.setFaults({
      rules: [
        { kind: 'slow', operations: ['piece'], times: 2 },
        { kind: 'drop-before', operations: ['piece'], times: 1 },
      ],
    });
    await expect(store.create(KEY, large, never)).rejects.toMatchObject({ code: 'STORE_DOWN' });
    expect(await store.create(KEY, large, never)).toBe('created');
    const { requests } = await double.counters();
    expect(requests).toEqual({ session: 1, piece: 5, query: 1 });
    expect((await buffer(await store.read(KEY))).equals(large)).toBe(true);
  });

  test('whose last answer was lost is told to be created by the next attempt', async () => {
    const double = await startDouble();
    const store = open(double, { pieceBytes: 256 * KIB });
    await double.setFaults({
      rules: [
        { kind: 'slow', operations: ['piece'], times: 3 },
        { kind: 'drop-after', operations: ['piece'], times: 1 },
      ],
    });
    await expect(store.create(KEY, large, never)).rejects.toMatchObject({ code: 'STORE_DOWN' });
    expect(await store.create(KEY, large, never)).toBe('created');
    expect(await store.create(KEY, large, never)).toBe('exists');
  });

  test('of other bytes begins anew', async () => {
    const double = await startDouble();
    const store = open(double, { pieceBytes: 256 * KIB });
    await double.setFaults({ rules: [{ kind: 'refuse', operations: ['piece'], times: 1 }] });
    await expect(store.create(KEY, large, never)).rejects.toMatchObject({ code: 'STORE_BUSY' });
    const other = Buffer.from(large.map((byte) => byte ^ 255));
    expect(await store.create(KEY, other, never)).toBe('created');
    expect((await buffer(await store.read(KEY))).equals(other)).toBe(true);
  });

  test('that comes as a stream is one object, whatever its length', async () => {
    const double = await startDouble();
    const store = open(double, { pieceBytes: 256 * KIB });
    for (const length of [256 * KIB, 256 * KIB + 1, 512 * KIB, 1_000 * KIB]) {
      const bytes = large.subarray(0, length);
      const pieces = function* () {
        for (let at = 0; at < length; at += 100_003) yield bytes.subarray(at, at + 100_003);
      };
      expect(await store.create(`s/${length}`, () => Readable.from(pieces()), never)).toBe('created');
      expect((await buffer(await store.read(`s/${length}`))).equals(bytes)).toBe(true);
    }
  });
});

describe('bytes that change on their way', () => {
  test.each([
    ['at once', Buffer.alloc(8 * KIB, 'a'), ['upload']], // most of the request
    ['in pieces', Buffer.alloc(600 * KIB, 'a'), ['piece']],
  ] as const)('are refused by Google when they are sent %s', async (_, body, operations) => {
    const double = await startDouble();
    const store = open(double, { pieceBytes: 256 * KIB });
    for (const given of [body, () => Readable.from([body])]) {
      await double.setFaults({ rules: [{ kind: 'damage', operations, times: 1 }] });
      await expect(store.create(KEY, given, never)).rejects.toMatchObject({ code: 'STORE_DAMAGED', verdict: 'retry' });
      expect(await store.head(KEY)).toBeNull();
    }
    expect(await store.create(KEY, body, never)).toBe('created');
  });

  test('are refused here when a whole object is read', async () => {
    const double = await startDouble();
    const store = open(double);
    await store.create(KEY, BYTES, never);
    await double.setFaults({ rules: [{ kind: 'damage', operations: ['read'] }] });
    const refused = { code: 'STORE_DAMAGED', verdict: 'retry' };
    await expect(store.read(KEY).then(buffer)).rejects.toMatchObject(refused);
    await expect(store.readStart(KEY, 8_192)).rejects.toMatchObject(refused);
  });
});

test('a listing of many pages is in order, each name once, with and without a delimiter', async () => {
  const double = await startDouble({ pageSize: 2 });
  const store = open(double, { prefix: 'prod' });
  const keys = ['s/a', 's/a-b', 's/a/b', 's/a/c', 's/b/a', 's/b/b', 's/b/c', 's/b0', 's/c'];
  for (const key of keys) await store.create(key, BYTES, never);
  expect(await listed(store, 's/', {})).toEqual(keys);
  expect(await listed(store, 's/', { after: 's/a/b' })).toEqual(keys.slice(3));
  expect(await listed(store, 's/', { delimiter: '/' })).toEqual(['s/a', 's/a-b', 's/a/', 's/b/', 's/b0', 's/c']);
  expect(await listed(store, 's/', { delimiter: '/', after: 's/b/' })).toEqual(['s/b0', 's/c']);
});

describe('credentials', () => {
  let dir = '';
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'shipmate-gcs-'));
    closing.push(() => rm(dir, { recursive: true }));
  });

  test('that are refused are asked for anew, and the answer tells what may be wrong', async () => {
    const double = await startDouble({ tokens: ['fresh'] });
    let token = 'stale';
    const credentials = {
      headers: async () => ({ authorization: `Bearer ${token}` }),
      forget: () => {
        token = 'fresh';
      },
    };
    const store = open(double, { credentials });
    await expect(store.head(KEY)).rejects.toMatchObject({
      code: 'STORE_DENIED',
      hint: expect.stringContaining('expired'),
    });
    expect(await store.head(KEY)).toBeNull();
  });

  test("of a workload's identity are exchanged for a token, once, by Google's own client", async () => {
    const warnings = jest.spyOn(console, 'warn').mockImplementation(() => {}); // on where such files may come from
    let exchanges = 0;
    const tokens = await startServer((_, response) => {
      const token = { access_token: `token-${++exchanges}`, token_type: 'Bearer', expires_in: 3_600 };
      const issued_token_type = 'urn:ietf:params:oauth:token-type:access_token';
      response
        .writeHead(200, { 'content-type': 'application/json' })
        .end(JSON.stringify({ ...token, issued_token_type }));
    });
    const [keyFile, subject] = [join(dir, 'pool.json'), join(dir, 'subject')];
    await writeFile(subject, 'who this workload is');
    await writeFile(
      keyFile,
      JSON.stringify({
        type: 'external_account',
        audience: '//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/acme/providers/shipmate',
        subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
        token_url: `${tokens.url}/v1/token`,
        credential_source: { file: subject },
      }),
    );
    const endpoint = 'https://storage.googleapis.com';
    const credentials = googleCredentials({ store: 'main', endpoint, keyFile, timeoutMs: 5_000 });
    const store = open(await startDouble({ tokens: ['token-1'] }), { credentials });
    for (let n = 0; n < 3; n++) expect(await store.create(`orders/${n}`, BYTES, never)).toBe('created');
    expect(exchanges).toBe(1);
    warnings.mockRestore();
  });

  test('that never come are given up in time', async () => {
    const credentials = { headers: () => new Promise<never>(() => {}), forget: () => {} };
    const store = open(await startDouble(), { credentials, timings: { deadlineMs: 100 } });
    await expect(store.create(KEY, BYTES, never)).rejects.toMatchObject({ code: 'STORE_DOWN' });
  });

  test.each([
    ['not JSON', '-----BEGIN PRIVATE KEY----- top secret'],
    ['no object', '"top secret"'],
  ])('in a file that is %s are told of, but never shown', async (_, text) => {
    const keyFile = join(dir, 'key.json');
    await writeFile(keyFile, text);
    const store = openGcsStore({ name: 'main', bucket: 'archive', keyFile });
    const error = await store.head(KEY).then(
      () => null,
      (reason: unknown) => reason,
    );
    expect(error).toMatchObject({ code: 'STORE_DENIED', verdict: 'fatal' });
    expect(String(error)).toContain(keyFile);
    expect(JSON.stringify([String(error), (error as Error).stack, (error as Error).cause])).not.toContain('secret');
  });

  test('that are not there say so', async () => {
    const store = openGcsStore({ name: 'main', bucket: 'archive', keyFile: join(dir, 'absent.json') });
    await expect(store.head(KEY)).rejects.toMatchObject({
      code: 'STORE_DENIED',
      message: expect.stringContaining('ENOENT'),
    });
  });
});
