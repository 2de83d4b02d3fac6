import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { describe, expect, test } from '@jest/globals';
import type { ObjectStore } from '../../src/store/store.ts';

/** An empty store; each of its clients is as good as one in another process. */
export interface StoreUnderTest {
  client(): ObjectStore;
  close(): Promise<void>;
}

const never = new AbortController().signal;
const MIB = 1024 * 1024;

/** What every store must do, whatever is behind it: the promises of `ObjectStore`, seen from outside. */
export function storeContract(kind: string, open: () => Promise<StoreUnderTest>): void {
  /** One test on an empty store, closed whatever happens. */
  const check = (title: string, body: (store: ObjectStore, client: () => ObjectStore) => Promise<void>) => {
    test(title, async () => {
      const under = await open();
      try {
        await body(under.client(), under.client);
      } finally {
        await under.close();
      }
    });
  };

  describe(`${kind}: creating`, () => {
    check('gives back every byte, to another client too', async (store, client) => {
      const bytes = pattern(70_000, 1);
      expect(await store.create('orders/terms/00000001/0000000001', bytes, never)).toBe('created');
      for (const reader of [store, client()]) {
        expectBytes(await whole(reader, 'orders/terms/00000001/0000000001'), bytes);
        expect(await reader.head('orders/terms/00000001/0000000001')).toEqual({
          key: 'orders/terms/00000001/0000000001',
          size: 70_000,
        });
      }
    });

    check('takes a stream, an empty body, and a view amid a larger buffer', async (store) => {
      const bytes = pattern(300_000, 2);
      await store.create('stream', () => Readable.from(cut(bytes, 7_001)), never);
      await store.create('empty', new Uint8Array(0), never);
      await store.create('no pieces', () => Readable.from([]), never);
      await store.create('view', bytes.subarray(1_000, 2_000), never);
      expectBytes(await whole(store, 'stream'), bytes);
      expectBytes(await whole(store, 'empty'), Buffer.alloc(0));
      expect(await store.head('no pieces')).toEqual({ key: 'no pieces', size: 0 });
      expectBytes(await whole(store, 'view'), bytes.subarray(1_000, 2_000));
    });

    check('holds a large object, byte for byte', async (store) => {
      const bytes = pattern(24 * MIB + 13, 3);
      await store.create('large', () => Readable.from(cut(bytes, MIB + 1)), never);
      expectBytes(await whole(store, 'large'), bytes);
    });

    check('never changes an object that exists', async (store, client) => {
      await store.create('stream.json', Buffer.from('the first'), never);
      expect(await store.create('stream.json', Buffer.from('another'), never)).toBe('exists');
      expect(await client().create('stream.json', Buffer.from('the first'), never)).toBe('exists');
      const streamed = () => Readable.from([Buffer.from('a third, '), Buffer.from('longer')]);
      expect(await client().create('stream.json', streamed, never)).toBe('exists');
      expect((await whole(store, 'stream.json')).toString()).toBe('the first');
    });

    for (const creators of [2, 8]) {
      check(`has exactly one winner among ${creators} concurrent creators of a name`, async (_, client) => {
        const clients = Array.from({ length: creators }, client);
        for (let round = 0; round < 25; round++) {
          const key = `orders/terms/00000001/${round}`;
          // Bodies of different lengths, so that a mixture of two would show.
          const bodies = clients.map((_, i) => pattern(1 + ((i * 7_919 + round * 104_729) % 90_000), i));
          const outcomes = await Promise.all(
            clients.map((store, i) =>
              store.create(
                key,
                (i + round) % 3 === 0 ? () => Readable.from(cut(bodies[i]!, 9_999)) : bodies[i]!,
                never,
              ),
            ),
          );
          expect([...outcomes].sort()).toEqual(['created', ...Array(creators - 1).fill('exists')]);
          expectBytes(await whole(clients[0]!, key), bodies[outcomes.indexOf('created')]!);
        }
      });
    }

    check('does nothing when it is aborted already, and says why', async (store) => {
      const reason = new Error('the term is over');
      await expect(store.create('late', Buffer.from('x'), AbortSignal.abort(reason))).rejects.toBe(reason);
      expect(await store.head('late')).toBeNull();
    });

    check('shows nothing of an object that was aborted half-way', async (store) => {
      const term = new AbortController();
      const reason = new Error('the term is over');
      const body = async function* () {
        yield pattern(100_000, 1);
        term.abort(reason);
        yield pattern(100_000, 2);
      };
      await expect(store.create('half', () => Readable.from(body()), term.signal)).rejects.toBe(reason);
      expect(await store.head('half')).toBeNull();
      expect(await listed(store, '')).toEqual([]);
      expect(await store.create('half', Buffer.from('whole now'), never)).toBe('created');
    });

    check('shows nothing of an object whose body failed', async (store) => {
      const body = async function* () {
        yield pattern(100_000, 1);
        throw new Error('the log could not be read');
      };
      await expect(store.create('half', () => Readable.from(body()), never)).rejects.toThrow(
        'the log could not be read',
      );
      expect(await store.head('half')).toBeNull();
      expect(await listed(store, '')).toEqual([]);
    });

    check('refuses names that lead out of the store or that not every store can hold', async (store) => {
      const names = ['', '/a', 'a/', 'a//b', '.', 'a/../b', 'a/./b', '..', 'a\nb', 'a\0b', 'a\\b', 'x'.repeat(300)];
      for (const key of names) {
        await expect(store.create(key, Buffer.from('x'), never)).rejects.toMatchObject({ code: 'BAD_KEY' });
        await expect(store.head(key)).rejects.toMatchObject({ code: 'BAD_KEY' });
      }
    });
  });

  describe(`${kind}: reading`, () => {
    check('gives ranges, cut to what is there', async (store) => {
      const bytes = pattern(1_000_000, 4);
      await store.create('object', bytes, never);
      const ranges: [number, number?][] = [
        [0],
        [1],
        [999_999],
        [0, 1],
        [10, 20],
        [300_000, 900_001],
        [5, 5],
        [999_000, 2_000_000],
      ];
      for (const [start, end] of ranges) {
        const range = end === undefined ? { start } : { start, end };
        expectBytes(await buffer(await store.read('object', range)), bytes.subarray(start, end));
      }
      for (const start of [1_000_000, 1_000_001, 3_000_000]) {
        expect(await buffer(await store.read('object', { start }))).toHaveLength(0);
      }
    });

    check('gives the start, or all of a smaller object', async (store) => {
      const bytes = pattern(5_000, 5);
      await store.create('object', bytes, never);
      await store.create('empty', new Uint8Array(0), never);
      expectBytes(await store.readStart('object', 8), bytes.subarray(0, 8));
      expectBytes(await store.readStart('object', 5_000), bytes);
      expectBytes(await store.readStart('object', 8_192), bytes);
      expect(await store.readStart('empty', 16)).toHaveLength(0);
    });

    check('tells an absent object from a failure', async (store) => {
      await store.create('orders/stream.json', Buffer.from('{}'), never);
      for (const key of ['absent', 'orders/absent', 'orders/stream.json/below', 'orders']) {
        expect(await store.head(key)).toBeNull();
      }
      for (const key of ['absent', 'orders/absent', 'orders/stream.json/below']) {
        await expect(store.read(key)).rejects.toMatchObject({ name: 'ShipmateError', code: 'NOT_FOUND' });
        await expect(store.readStart(key, 8)).rejects.toMatchObject({ name: 'ShipmateError', code: 'NOT_FOUND' });
      }
    });

    check('may be broken off', async (store) => {
      await store.create('object', pattern(3 * MIB, 6), never);
      const unread = await store.read('object');
      unread.destroy();
      for await (const piece of await store.read('object')) {
        expect(piece.length).toBeGreaterThan(0);
        break;
      }
      expect(await store.readStart('object', 4)).toHaveLength(4);
    });
  });

  describe(`${kind}: listing`, () => {
    check('is in the order of bytes, with sizes, below a prefix that may end anywhere', async (store) => {
      const keys = [
        'orders-2/stream.json',
        'orders.old/stream.json',
        'orders/floors/00000001-0000000003',
        'orders/stream.json',
        'orders/terms/00000001/0000000000',
        'orders/terms/00000001/000000000a',
        'orders/terms/00000001/0000000010',
        'orders/terms/0000000a/0000000000',
        'größe und mehr/stream.json',
        'orders/\uff5e',
        'orders/\u{1f6a2}',
      ];
      const sorted = [...keys].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
      for (const [i, key] of keys.entries()) await store.create(key, new Uint8Array(i), never);
      const all: unknown[] = [];
      for await (const info of store.list('')) all.push(info);
      expect(all).toEqual(sorted.map((key) => ({ key, size: keys.indexOf(key) })));
      for (const prefix of [
        'orders/',
        'orders',
        'orders/terms/',
        'orders/terms/00000001/',
        'orders/terms/0000000',
        'orders/s',
      ]) {
        expect(await listed(store, prefix)).toEqual(sorted.filter((key) => key.startsWith(prefix)));
      }
      for (const prefix of ['absent', 'absent/', 'orders/terms/00000002/', 'orders/stream.json/']) {
        expect(await listed(store, prefix)).toEqual([]);
      }
    });

    check('goes on after any name, one that exists or not', async (store) => {
      const keys = ['s/a', 's/b', 's/b-c', 's/b/c', 's/b/d/e', 's/b.f', 's/c'];
      const sorted = keys.filter((key) => key !== 's/b').sort(); // on a file system a name can't be both, file and directory
      for (const key of sorted) await store.create(key, Buffer.from('x'), never);
      const marks = [
        '',
        's',
        's/',
        's/a',
        's/aa',
        's/b',
        's/b/',
        's/b/c',
        's/b/c0',
        's/b/d',
        's/b/d/',
        's/b/z',
        's/b0',
        's/c',
        't',
      ];
      for (const after of marks) {
        expect(await listed(store, 's/', { after })).toEqual(sorted.filter((key) => key > after));
      }
    });

    check('folds what lies below a delimiter into one entry', async (store) => {
      const keys = [
        's/stream.json',
        's/terms/00000001/0',
        's/terms/00000001/1',
        's/terms/00000003/0',
        's/terms-x',
        's/x/y/z',
      ];
      for (const key of keys) await store.create(key, Buffer.from('x'), never);
      const folded = ['s/stream.json', 's/terms-x', 's/terms/', 's/x/'];
      expect(await listed(store, '', { delimiter: '/' })).toEqual(['s/']);
      expect(await listed(store, 's/', { delimiter: '/' })).toEqual(folded);
      expect(await listed(store, 's/terms', { delimiter: '/' })).toEqual(['s/terms-x', 's/terms/']);
      expect(await listed(store, 's/terms/', { delimiter: '/' })).toEqual(['s/terms/00000001/', 's/terms/00000003/']);
      for (const after of ['s/stream.json', 's/terms', 's/terms/', 's/terms/00000001/0', 's/x/', 's/z']) {
        expect(await listed(store, 's/', { delimiter: '/', after })).toEqual(folded.filter((key) => key > after));
      }
      const afterTerm = { delimiter: '/', after: 's/terms/00000001/' } as const;
      expect(await listed(store, 's/terms/', afterTerm)).toEqual(['s/terms/00000003/']);
    });

    check('is complete over more objects than a page holds', async (store) => {
      const keys = Array.from({ length: 1_100 }, (_, i) => `s/terms/00000001/${i.toString(16).padStart(10, '0')}`);
      for (let at = 0; at < keys.length; at += 50) {
        await Promise.all(keys.slice(at, at + 50).map((key) => store.create(key, Buffer.from('x'), never)));
      }
      expect(await listed(store, 's/terms/')).toEqual(keys);
      expect(await listed(store, 's/terms/00000001/', { after: keys[1_049]! })).toEqual(keys.slice(1_050));
      for await (const { key } of store.list('s/')) {
        expect(key).toBe(keys[0]); // and may be broken off
        break;
      }
    });
  });

  describe(`${kind}: deleting`, () => {
    check('removes what is there, and takes what is absent for done', async (store) => {
      for (const key of ['s/terms/1/0', 's/terms/1/1', 's/terms/2/0']) await store.create(key, Buffer.from('x'), never);
      await store.delete(['s/terms/1/0', 's/terms/1/1', 's/terms/1/2', 'absent/altogether']);
      await store.delete(['s/terms/1/0']);
      await store.delete([]);
      expect(await store.head('s/terms/1/0')).toBeNull();
      expect(await listed(store, 's/')).toEqual(['s/terms/2/0']);
      expect(await listed(store, 's/terms/', { delimiter: '/' })).toEqual(['s/terms/2/']);
      expect(await store.create('s/terms/1/0', Buffer.from('again'), never)).toBe('created');
    });
  });

  describe(`${kind}: capacity`, () => {
    check('is unknown, or bytes', async (store) => {
      const capacity = await store.capacity();
      if (capacity === null) return;
      expect(capacity.totalBytes).toBeGreaterThan(0);
      expect(capacity.freeBytes).toBeLessThanOrEqual(capacity.totalBytes);
    });
  });
}

/** Jest's own comparison goes byte by byte. */
function expectBytes(actual: Buffer, expected: Buffer): void {
  expect(actual).toHaveLength(expected.length);
  expect(actual.equals(expected)).toBe(true);
}

async function whole(store: ObjectStore, key: string): Promise<Buffer> {
  return buffer(await store.read(key));
}

async function listed(
  store: ObjectStore,
  prefix: string,
  from?: Parameters<ObjectStore['list']>[1],
): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list(prefix, from)) keys.push(key);
  return keys;
}

/** Bytes that differ from place to place and from seed to seed. */
function pattern(lengthBytes: number, seed: number): Buffer {
  const { imul } = Math; // jest looks globals up slowly
  const words = new Uint32Array(Math.ceil(lengthBytes / 4));
  for (let i = 0; i < words.length; i++) words[i] = imul(i + 1, 2_654_435_761) ^ imul(seed + 1, 40_503);
  return Buffer.from(words.buffer, 0, lengthBytes);
}

function* cut(bytes: Buffer, pieceBytes: number): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
}
