import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { describe, expect, test } from '@jest/globals';
import { withQuota } from '../../src/store/quota.ts';
import { FaultyStore } from '../fakes/faulty-store.ts';
import { MemoryStore } from '../fakes/memory-store.ts';

const { signal } = new AbortController();
const freeIn = async (store: ReturnType<typeof withQuota>) => (await store.capacity())?.freeBytes;

describe('the room that a quota leaves in a bucket', () => {
  test('is what others left, less what is written here: nothing is listed for that', async () => {
    const memory = new MemoryStore('bucket');
    await memory.create('orders/terms/1', Buffer.alloc(300), signal);
    let listings = 0;
    const counted = new FaultyStore(memory, (operation) => {
      if (operation === 'list') listings++;
      return undefined;
    });
    const store = withQuota(counted, { bytes: 1000 });
    expect(await store.capacity()).toEqual({ totalBytes: 1000, freeBytes: 700 });
    await store.create('a', Buffer.alloc(100), signal);
    await store.create('a', Buffer.alloc(100), signal); // exists: takes nothing
    await store.create('b', () => Readable.from([Buffer.alloc(20), Buffer.alloc(30)]), signal);
    expect(await freeIn(store)).toBe(550);
    expect(listings).toBe(1);
    expect((await buffer(await memory.read('b'))).length).toBe(50);
  });

  test('is looked at again after an hour, and after a deletion; is never below nothing', async () => {
    const memory = new MemoryStore('bucket');
    let now = 0;
    const store = withQuota(memory, { bytes: 100, nowMs: () => now });
    expect(await freeIn(store)).toBe(100);
    await memory.create('of another writer', Buffer.alloc(150), signal);
    expect(await freeIn(store)).toBe(100);
    now = 3_600_001;
    expect(await freeIn(store)).toBe(0);
    await store.delete(['of another writer']);
    expect(await freeIn(store)).toBe(100);
  });

  test('is not known where listing fails, and is asked for again', async () => {
    const faulty = new FaultyStore(new MemoryStore('bucket'), () => ({ kind: 'before' }));
    const store = withQuota(faulty, { bytes: 100 });
    await expect(store.capacity()).rejects.toMatchObject({ code: 'STORE_FAILED' });
    faulty.faults = () => undefined;
    expect(await freeIn(store)).toBe(100);
  });
});
