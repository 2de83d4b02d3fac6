import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import {
  type Fault,
  FaultyStore,
  faultyStoreFromFile,
  Gate,
  seededRandom,
  switchFaults,
} from '../fakes/faulty-store.ts';
import { MemoryStore } from '../fakes/memory-store.ts';

const never = new AbortController().signal;
const failed = { name: 'ShipmateError', code: 'STORE_FAILED', verdict: 'retry' };

/** A store in which the first create meets this fault, and nothing else does. */
function storeWith(fault: Fault): { store: FaultyStore; memory: MemoryStore } {
  const memory = new MemoryStore();
  let met = false;
  const store = new FaultyStore(memory, (operation) => {
    if (operation !== 'create' || met) return undefined;
    met = true;
    return fault;
  });
  return { store, memory };
}

describe('a fault', () => {
  test('before: nothing was done', async () => {
    const { store, memory } = storeWith({ kind: 'before' });
    await expect(store.create('key', Buffer.from('x'), never)).rejects.toMatchObject(failed);
    expect(memory.keys()).toEqual([]);
    expect(await store.create('key', Buffer.from('x'), never)).toBe('created');
  });

  test('after: it was done all the same', async () => {
    const { store } = storeWith({ kind: 'after' });
    await expect(store.create('key', Buffer.from('x'), never)).rejects.toMatchObject(failed);
    expect(await store.create('key', Buffer.from('x'), never)).toBe('exists');
  });

  test('full: no room', async () => {
    const { store, memory } = storeWith({ kind: 'full' });
    await expect(store.create('key', Buffer.from('x'), never)).rejects.toMatchObject({ code: 'STORE_FULL' });
    expect(memory.keys()).toEqual([]);
  });

  test('delay: done when the gate opens, or never if it is aborted before', async () => {
    const gate = new Gate();
    const { store, memory } = storeWith({ kind: 'delay', until: gate.opened });
    const created = store.create('key', Buffer.from('x'), never);
    expect(memory.keys()).toEqual([]);
    gate.open();
    expect(await created).toBe('created');

    const term = new AbortController();
    const shut = storeWith({ kind: 'delay', until: new Gate().opened });
    const aborted = shut.store.create('key', Buffer.from('x'), term.signal);
    term.abort(new Error('over'));
    await expect(aborted).rejects.toThrow('over');
    expect(shut.memory.keys()).toEqual([]);
  });

  test('late: reported as failed, lands long after with the bytes of then, unless the name was taken', async () => {
    const gate = new Gate();
    const { store, memory } = storeWith({ kind: 'late', until: gate.opened });
    const bytes = Buffer.from('mine');
    const term = new AbortController();
    await expect(store.create('key', bytes, term.signal)).rejects.toMatchObject(failed);
    bytes.fill(0);
    term.abort(new Error('over'));
    expect(memory.keys()).toEqual([]);
    gate.open();
    await store.landed();
    expect(memory.peek('key').toString()).toBe('mine');

    const taken = storeWith({ kind: 'late', until: gate.opened });
    taken.memory.overwrite('key', Buffer.from('a seal'));
    await expect(taken.store.create('key', Buffer.from('mine'), never)).rejects.toMatchObject(failed);
    await taken.store.landed();
    expect(taken.memory.peek('key').toString()).toBe('a seal');
  });

  test('lost: no answer at all until it is aborted', async () => {
    const { store, memory } = storeWith({ kind: 'lost' });
    const term = new AbortController();
    const created = store.create('key', Buffer.from('x'), term.signal);
    term.abort(new Error('over'));
    await expect(created).rejects.toThrow('over');
    expect(memory.keys()).toEqual([]);
  });

  test('lie: an answer without the deed', async () => {
    for (const answer of ['created', 'exists'] as const) {
      const { store, memory } = storeWith({ kind: 'lie', answer });
      expect(await store.create('key', Buffer.from('x'), never)).toBe(answer);
      expect(memory.keys()).toEqual([]);
    }
  });

  test('reaches readers too, and breaks listings off half-way', async () => {
    const store = new FaultyStore(new MemoryStore());
    for (const key of ['a', 'b']) await store.create(key, Buffer.from('x'), never);
    store.faults = () => ({ kind: 'after' });
    await expect(store.head('a')).rejects.toMatchObject(failed);
    const listed: string[] = [];
    const list = async () => {
      for await (const { key } of store.list('')) listed.push(key);
    };
    await expect(list()).rejects.toMatchObject(failed);
    expect(listed).toEqual(['a']);
  });
});

describe('faults that a file switches', () => {
  let folder: string;
  let controlFile: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'shipmate-faults-'));
    controlFile = join(folder, 'faults.json');
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  test('come and go with it', async () => {
    const memory = new MemoryStore();
    const store = faultyStoreFromFile(memory, controlFile);
    const create = (key: string) => store.create(key, Buffer.from('x'), never);
    expect(await create('none')).toBe('created');
    switchFaults(controlFile, { seed: 1, rules: [{ kind: 'error', match: 'terms/' }] });
    await expect(create('terms/1')).rejects.toMatchObject(failed);
    expect(await create('other')).toBe('created');
    switchFaults(controlFile, { seed: 1, rules: [{ kind: 'ambiguous', operations: ['create', 'head'] }] });
    await expect(create('terms/1')).rejects.toMatchObject(failed);
    await expect(store.head('terms/1')).rejects.toMatchObject(failed);
    expect(memory.keys()).toContain('terms/1');
    switchFaults(controlFile, { seed: 1, rules: [{ kind: 'full' }] });
    await expect(create('terms/2')).rejects.toMatchObject({ code: 'STORE_FULL' });
    switchFaults(controlFile, { seed: 1, rules: [{ kind: 'slow', slowMs: 30 }] });
    const startedMs = performance.now();
    expect(await create('terms/3')).toBe('created');
    expect(performance.now() - startedMs).toBeGreaterThanOrEqual(29);
    await rm(controlFile);
    expect(await create('terms/4')).toBe('created');
  });

  test('fall by their seed: the same again for the same', async () => {
    const outcomes = async (seed: number) => {
      switchFaults(controlFile, { seed, rules: [{ kind: 'error', probability: 0.3 }] });
      const store = faultyStoreFromFile(new MemoryStore(), controlFile);
      const creates = Array.from({ length: 200 }, (_, i) => store.create(`${i}`, Buffer.from('x'), never));
      return (await Promise.allSettled(creates)).map(({ status }) => status);
    };
    const first = await outcomes(7);
    expect(await outcomes(7)).toEqual(first);
    expect(await outcomes(8)).not.toEqual(first);
    const failures = first.filter((status) => status === 'rejected').length;
    expect(failures).toBeGreaterThan(30);
    expect(failures).toBeLessThan(90);
  });

  test('a seeded random number is from 0 up to 1', () => {
    const random = seededRandom(42);
    const numbers = Array.from({ length: 10_000 }, random);
    expect(numbers.every((n) => n >= 0 && n < 1)).toBe(true);
    expect(numbers.reduce((sum, n) => sum + n, 0) / numbers.length).toBeCloseTo(0.5, 1);
  });
});
