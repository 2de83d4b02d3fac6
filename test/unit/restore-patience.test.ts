import { buffer } from 'node:stream/consumers';
import { beforeEach, describe, expect, jest, test } from '@jest/globals';
import { patient } from '../../src/archive/patient-store.ts';
import { type Faults, FaultyStore, Gate } from '../fakes/faulty-store.ts';
import { MemoryStore } from '../fakes/memory-store.ts';

const { signal } = new AbortController();
let store: MemoryStore;

beforeEach(() => {
  store = new MemoryStore('main');
  for (const name of ['a', 'b', 'c', 'd']) store.overwrite(`dir/${name}`, Buffer.from(name));
});

/** Fails every operation's first attempts. */
function failing(times: number): Faults {
  const attempts = new Map<string, number>();
  return (operation, key) => {
    const attempt = (attempts.get(`${operation} ${key}`) ?? 0) + 1;
    attempts.set(`${operation} ${key}`, attempt);
    return attempt <= times ? { kind: operation === 'list' ? 'after' : 'before' } : undefined;
  };
}

async function names(from: ReturnType<typeof patient>, after?: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { key } of from.list('dir/', after === undefined ? {} : { after })) found.push(key);
  return found;
}

describe('a patient store', () => {
  test('asks again after failures that may pass, and tells of each', async () => {
    const told: unknown[] = [];
    const reader = patient(new FaultyStore(store, failing(2)), {
      signal,
      attempts: 10,
      onFailure: (error) => told.push(error),
    });
    expect((await buffer(await reader.read('dir/a'))).toString()).toBe('a');
    expect((await reader.readStart('dir/b', 10)).toString()).toBe('b');
    expect(await reader.head('dir/c')).toEqual({ key: 'dir/c', size: 1 });
    expect(told).toHaveLength(6);
  });

  test('goes on with a listing where it broke off: nothing is left out or comes twice', async () => {
    const reader = patient(new FaultyStore(store, failing(3)), { signal, attempts: 10 });
    expect(await names(reader)).toEqual(['dir/a', 'dir/b', 'dir/c', 'dir/d']);
    expect(await names(reader, 'dir/b')).toEqual(['dir/c', 'dir/d']);
  });

  test('tells again and again of a call that gives no answer, and takes the answer when it comes', async () => {
    const gate = new Gate();
    const told: string[] = [];
    const slow = new FaultyStore(store, () => ({ kind: 'delay', until: gate.opened }));
    const reader = patient(slow, { signal, attempts: 1, onSlow: ({ message }) => told.push(message) });
    jest.useFakeTimers();
    try {
      const answers = Promise.all([reader.head('dir/c'), names(reader)]);
      jest.advanceTimersByTime(60_000);
      expect(told).toEqual(Array(4).fill('no answer for 30 s or longer'));
      gate.open();
      expect(await answers).toEqual([{ key: 'dir/c', size: 1 }, ['dir/a', 'dir/b', 'dir/c', 'dir/d']]);
    } finally {
      jest.useRealTimers();
    }
  });

  test('does not wait for what is not there', async () => {
    const told: unknown[] = [];
    const reader = patient(store, { signal, attempts: 10, onFailure: (error) => told.push(error) });
    await expect(reader.read('dir/x')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(told).toEqual([]);
  });

  test('gives up after so many attempts, with the last failure', async () => {
    const told: unknown[] = [];
    const failing = new FaultyStore(store, () => ({ kind: 'before' }));
    const reader = patient(failing, { signal, attempts: 3, onFailure: (error) => told.push(error) });
    await expect(reader.head('dir/a')).rejects.toMatchObject({ verdict: 'retry' });
    expect(told).toHaveLength(2);
  });

  test('gives up when it is told to', async () => {
    const stop = new AbortController();
    const reader = patient(new FaultyStore(store, () => ({ kind: 'before' })), {
      signal: stop.signal,
      attempts: 10,
      onFailure: () => stop.abort(new Error('enough')),
    });
    await expect(reader.head('dir/a')).rejects.toThrow('enough');
  });
});
