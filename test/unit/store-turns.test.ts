import { expect, test } from '@jest/globals';
import type { ObjectStore } from '../../src/store/store.ts';
import { inTurns, Turns } from '../../src/store/turns.ts';
import { FaultyStore, Gate } from '../fakes/faulty-store.ts';
import { MemoryStore } from '../fakes/memory-store.ts';

const { signal } = new AbortController();
const listed = async (store: ObjectStore) => {
  for await (const _ of store.list('')) {
  }
};
/** Lets everything go on that can. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

function hanging() {
  const gate = new Gate();
  const begun: string[] = [];
  const store = new FaultyStore(new MemoryStore(), (operation, key) => {
    begun.push(`${operation} ${key}`);
    return { kind: 'delay', until: gate.opened };
  });
  return { gate, begun, store };
}

test('a store that hangs is at so many calls of all its users, and then goes on in their order', async () => {
  const { gate, begun, store } = hanging();
  const turns = new Turns(2);
  const [one, other] = [inTurns(store, turns), inTurns(store, turns)];
  const calls = [
    one.create('a', Buffer.from('a'), signal),
    other.head('a'),
    one.readStart('a', 1),
    other.head('b'),
    listed(one),
  ];
  await settle();
  expect(begun).toEqual(['create a', 'head a']);
  gate.open();
  await Promise.all(calls);
  expect(begun).toEqual(['create a', 'head a', 'readStart a', 'head b', 'list ']);
});

test('who gives up waiting leaves its turn to the others, and creates nothing', async () => {
  const { gate, begun, store } = hanging();
  const shared = inTurns(store, new Turns(1));
  const term = new AbortController();
  const first = shared.head('a');
  const given = shared.create('b', Buffer.from('b'), term.signal);
  const next = shared.head('c');
  await settle();
  term.abort(new Error('the term is over'));
  await expect(given).rejects.toThrow('the term is over');
  gate.open();
  await Promise.all([first, next]);
  expect(begun).toEqual(['head a', 'head c']);
});

test('a listing that is read slowly, or left, holds nobody up', async () => {
  const store = new MemoryStore();
  for (const key of ['a', 'b']) await store.create(key, Buffer.from(key), signal);
  const shared = inTurns(store, new Turns(1));
  for await (const { key } of shared.list('')) {
    expect(await shared.head(key)).toMatchObject({ size: 1 });
    break;
  }
  expect(await shared.head('b')).not.toBeNull();
});

test('a body has its turn until it is read, or left', async () => {
  const store = new MemoryStore();
  await store.create('a', Buffer.from('a'), signal);
  const shared = inTurns(store, new Turns(1));
  for (const end of ['read', 'left'] as const) {
    const body = await shared.read('a');
    let hasAnswered = false;
    const next = shared.head('a').then(() => {
      hasAnswered = true;
    });
    await settle();
    expect(hasAnswered).toBe(false);
    if (end === 'read') await body.toArray();
    else body.destroy();
    await next;
  }
  await expect(shared.read('b')).rejects.toMatchObject({ code: 'NOT_FOUND' });
  expect(await shared.head('a')).not.toBeNull();
});
