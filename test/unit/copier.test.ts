import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { copyDelayMs } from '../../src/core/copies.ts';
import { placeKey, streamKey } from '../../src/core/keys.ts';
import type { ObjectStore } from '../../src/store/store.ts';
import { type Fault, FaultyStore, Gate, seededRandom } from '../fakes/faulty-store.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { HandMadePrimary } from '../helpers/copying.ts';
import { STREAM } from '../helpers/hand-made-archive.ts';
import { copied, Running, reached, text } from '../helpers/running-copier.ts';
import { until } from '../helpers/wait.ts';

const thirdChunk = placeKey(STREAM, { term: 2, slot: 3 });

async function staysDiverged(primary: HandMadePrimary, copy: MemoryStore): Promise<void> {
  const running = new Running(primary, copy);
  await until('it has diverged', () => running.copier.status.state === 'diverged', { describe: () => text(running) });
  expect(running.held).toBeNull();
  const keys = copy.keys();
  await primary.ship();
  running.copier.grown(1);
  await delay(10);
  expect(copy.keys()).toEqual(keys);
  await running.stop();
}

describe('a copy', () => {
  test('holds what the primary holds: terms, strangers’ objects in them, no orphans', async () => {
    const primary = await HandMadePrimary.make();
    await primary.ship(40);
    await primary.meetStranger();
    await primary.ship(3);
    await primary.leaveOrphan();
    await primary.takeOver();
    await primary.ship(2);
    const copy = new MemoryStore('copy');
    await copied(primary, copy);
    expect(await primary.differences(copy)).toEqual([]);
    expect(primary.memory.keys().length - copy.keys().length).toBe(1); // the orphan
  });

  test('holds a stranger’s object where it stands, whatever place that says of itself', async () => {
    const primary = await HandMadePrimary.make();
    await primary.ship(5);
    const key = placeKey(STREAM, primary.end);
    primary.memory.overwrite(key, primary.memory.peek(thirdChunk));
    await primary.takeOver();
    await primary.ship(2);
    const copy = new MemoryStore('copy');
    await copied(primary, copy);
    expect(copy.peek(key).equals(primary.memory.peek(key))).toBe(true);
    expect(await primary.differences(copy)).toEqual([]);
  });

  test('of a pruned primary begins at its floor, and is read from there', async () => {
    const primary = await HandMadePrimary.make();
    await primary.ship(5);
    await primary.takeOver();
    await primary.ship(9);
    await primary.prune((chunks) => chunks.at(-4));
    const copy = new MemoryStore('copy');
    await copied(primary, copy);
    expect(await primary.differences(copy)).toEqual([]);
    expect(copy.keys('orders/floors/')).toHaveLength(1);
    // Openings and seals from before: who owns the term, which branches were left.
    expect(copy.keys('orders/terms/00000001/')).toEqual(primary.memory.keys('orders/terms/00000001/'));
  });

  test('that was left behind by a prune goes on at the floor, no sooner than the delay allows', async () => {
    const primary = await HandMadePrimary.make();
    await primary.ship(4);
    const copy = new MemoryStore('copy');
    await copied(primary, copy);
    await primary.ship(6);
    await primary.prune();
    const running = new Running(primary, copy, { delayMs: 60_000 });
    await until('it has looked', () => running.held);
    for (let n = 0; n < 5; n++) {
      running.copier.grown(0);
      await delay(5);
    }
    expect(copy.keys('orders/floors/')).toEqual([]);
    primary.nowMs += 60_001;
    await reached(primary, running);
    await running.stop();
    expect(await primary.differences(copy)).toEqual([]);
  });

  test('gets each object when it is due, and its lag counts what is due alone', async () => {
    const primary = await HandMadePrimary.make();
    await primary.ship(2);
    primary.nowMs += 1_000;
    const copy = new MemoryStore('copy');
    const running = new Running(primary, copy, { delayMs: 10_000 });
    await until('it has begun', () => running.copier.status.state === 'ok');
    primary.nowMs += 8_000;
    running.copier.grown(0);
    await delay(10);
    expect(copy.keys('orders/terms/')).toHaveLength(2); // a seal and an opening, whose time is long ago
    expect(running.copier.status).toMatchObject({ state: 'ok', lagBytes: 0, lagSeconds: 0, delaySeconds: 10 });
    await primary.ship();
    primary.nowMs += 1_500;
    running.copier.grown(1);
    await until('what is due is there', () => copy.keys('orders/terms/').length === 4);
    expect(running.held).toMatchObject({ term: 2, slot: 3 });
    await running.stop();
  });

  test('whose store is full waits and says so; its lag grows', async () => {
    const primary = await HandMadePrimary.make();
    await primary.ship(3);
    let room = 3; // for stream.json, a seal and an opening
    const copy = new MemoryStore('copy');
    const full = new FaultyStore(copy, (operation) =>
      operation === 'create' && room-- <= 0 ? { kind: 'full' } : undefined,
    );
    const running = new Running(primary, full);
    await until('it fails', () => running.copier.status.state === 'failing');
    primary.nowMs += 7_000;
    const { lagBytes, lagSeconds, reason } = running.copier.status;
    expect(lagSeconds).toBe(7);
    expect(lagBytes).toBeGreaterThan(0);
    expect(reason).toMatch(/no space/);
    room = 1_000_000;
    await reached(primary, running);
    expect(running.copier.status).toMatchObject({ state: 'ok', lagBytes: 0, lagSeconds: 0 });
    await running.stop();
    expect(await primary.differences(copy)).toEqual([]);
  });

  test('whose store fails again and again costs the primary one listing, and its lag is right all the same', async () => {
    const primary = await HandMadePrimary.make();
    await primary.ship(60);
    const copy = new MemoryStore('copy');
    const random = seededRandom(1);
    const kinds = ['before', 'after'] as const;
    const failing = new FaultyStore(copy, (operation) =>
      operation === 'create' && random() < 0.3 ? { kind: kinds[random() < 0.5 ? 0 : 1]! } : undefined,
    );
    let listings = 0;
    const store = new FaultyStore(primary.memory, (operation, key) => {
      if (operation === 'list' && key === 'orders/terms/') listings++;
      return undefined;
    });
    const running = new Running(primary, failing, { archive: { ...primary.archive, store } });
    const bytesOf = (keys: string[]) => keys.reduce((sum, key) => sum + primary.memory.peek(key).length, 0);
    await until('half of it is there', () => copy.keys('orders/terms/').length >= 30, { everyMs: 1 });
    await running.stop();
    const missing = primary.memory.keys('orders/terms/').filter((key) => !copy.keys(key).length);
    const { lagBytes } = running.copier.status;
    expect(listings).toBe(1);
    // What the last batch brought counts when it is over, or when it is looked at again.
    expect(lagBytes).toBeGreaterThanOrEqual(bytesOf(missing));
    expect(lagBytes).toBeLessThanOrEqual(bytesOf(missing) + 4 * 1_000);
  });

  test('that is left stops to be listed for', async () => {
    const primary = await HandMadePrimary.make();
    await primary.ship(3);
    const { promise: ended, resolve: ends } = Promise.withResolvers<void>();
    async function* list(prefix: string, from: object) {
      try {
        for await (const object of primary.memory.list(prefix, from)) {
          do {
            yield object;
            await delay(1);
          } while (prefix === 'orders/terms/'); // of millions of objects
        }
      } finally {
        if (prefix === 'orders/terms/') ends();
      }
    }
    const store = new Proxy<ObjectStore>(primary.memory, {
      get(target, key) {
        const value = key === 'list' ? list : Reflect.get(target, key);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
    const running = new Running(primary, new MemoryStore('copy'), { archive: { ...primary.archive, store } });
    await until('it has begun', () => running.held);
    await running.stop();
    await ended;
  });

  test('has no chunk before those that it says were durable', async () => {
    const primary = await HandMadePrimary.make();
    await primary.ship(6);
    const copy = new MemoryStore('copy');
    const gate = new Gate();
    let hasAsked = false;
    const slow = new FaultyStore(copy, (operation, key) => {
      if (operation !== 'create' || key !== placeKey(STREAM, { term: 2, slot: 2 })) return undefined;
      hasAsked = true;
      return { kind: 'delay', until: gate.opened };
    });
    const running = new Running(primary, slow);
    await until('its third object is under way', () => hasAsked);
    for (let n = 0; n < 20; n++) await delay(1); // the others have been read by then
    const meanwhile = copy.keys('orders/terms/00000002/');
    gate.open();
    await reached(primary, running);
    await running.stop();
    expect(meanwhile).toHaveLength(2);
    expect(await primary.differences(copy)).toEqual([]);
  });

  test('whose store hangs is asked for no more, and is left at once', async () => {
    const primary = await HandMadePrimary.make();
    await primary.ship(20);
    let asked = 0;
    const hung = new FaultyStore(new MemoryStore('copy'), (operation, key) => {
      if (operation !== 'create' || !key.includes('/terms/00000002/000000000')) return undefined;
      if (key.endsWith('0')) return undefined;
      asked++;
      return { kind: 'lost' };
    });
    const running = new Running(primary, hung);
    await until('it hangs', () => asked > 0);
    for (let n = 0; n < 10; n++) {
      await primary.ship();
      running.copier.grown(1);
      await delay(2);
    }
    expect(asked).toBeLessThanOrEqual(4);
    await running.stop();
  });

  test.each([
    ['it holds something else', (copy: MemoryStore) => copy.overwrite(thirdChunk, Buffer.from('something else'))],
    ['it is another archive', (copy: MemoryStore) => copy.overwrite(streamKey(STREAM), Buffer.from('{}'))],
  ])('is never written again once it has diverged: %s', async (_, spoil) => {
    const primary = await HandMadePrimary.make();
    await primary.ship(5);
    const copy = new MemoryStore('copy');
    spoil(copy);
    await staysDiverged(primary, copy);
  });

  test('is never written again once it has diverged: it goes further than the primary', async () => {
    const primary = await HandMadePrimary.make();
    await primary.ship(5);
    const copy = primary.memory.copy('copy');
    const { end } = primary;
    await primary.ship(2);
    for (const key of primary.memory.keys()) copy.overwrite(key, primary.memory.peek(key));
    await primary.memory.delete([6, 7].map((slot) => placeKey(STREAM, { term: 2, slot })));
    primary.end = end;
    await staysDiverged(primary, copy);
  });

  test('never takes a damaged chunk from the primary', async () => {
    const primary = await HandMadePrimary.make();
    await primary.ship(3);
    const key = placeKey(STREAM, { term: 2, slot: 2 });
    const whole = primary.memory.peek(key);
    const damaged = Buffer.from(whole);
    damaged[damaged.length - 1]! ^= 1;
    primary.memory.overwrite(key, damaged);
    const copy = new MemoryStore('copy');
    const running = new Running(primary, copy);
    await until('it says so', () => /not those that were stored/.test(running.copier.status.reason ?? ''));
    expect(copy.keys(key)).toEqual([]);
    primary.memory.overwrite(key, whole);
    await reached(primary, running);
    await running.stop();
  });
});

type Kind = 'slow' | 'full' | 'lying';

/** What goes wrong with one operation of a store; the lie is that an object exists where nothing is. */
function faultOf(kind: Kind, random: () => number, operation: string, isThere: boolean): Fault | undefined {
  const dice = random();
  if (operation !== 'create') return dice < 0.1 ? { kind: 'before' } : undefined;
  if (kind === 'slow' && dice < 0.5) return { kind: 'delay', until: delay(1 + dice * 8) };
  if (kind === 'full' && dice < 0.5) return { kind: 'full' };
  if (kind === 'lying' && dice < 0.3 && !isThere) return { kind: 'lie', answer: 'exists' };
  if (dice > 0.9) return { kind: 'after' };
  if (dice > 0.8) return { kind: 'before' };
  if (dice > 0.7) return { kind: 'late', until: delay(dice * 10) };
  return undefined;
}

test('random faults over three copies, restarts, take-overs, prunes: each ends byte-identical, none is ever wrong', async () => {
  await fc.assert(
    fc.asyncProperty(fc.nat(), fc.array(fc.nat({ max: 9 }), { minLength: 5, maxLength: 25 }), async (seed, steps) => {
      const random = seededRandom(seed);
      const primary = await HandMadePrimary.make();
      const copies = (['slow', 'full', 'lying'] as const).map((kind, index) => {
        const memory = new MemoryStore(kind);
        const store = new FaultyStore(memory, (operation, key) =>
          faultOf(kind, random, operation, memory.keys(key).includes(key)),
        );
        const delayMs = copyDelayMs(index + 1, { delayMs: seed % 2 === 0 ? 0 : 1_000, ack: 2 });
        return { memory, store, delayMs, running: [] as Running[] };
      });
      const start = (copy: (typeof copies)[number]) =>
        copy.running.push(new Running(primary, copy.store, { delayMs: copy.delayMs }));
      for (const copy of copies) start(copy);
      const any = <T>(all: readonly T[]) => all[Math.floor(random() * all.length)]!;
      for (const step of steps) {
        const copy = any(copies);
        if (step < 4) await primary.ship(1 + step * 4);
        else if (step === 4) await primary.takeOver();
        else if (step === 5) await (random() < 0.5 ? primary.meetStranger() : primary.leaveOrphan());
        else if (step === 6) await primary.prune((chunks) => (random() < 0.5 ? any(chunks) : chunks.at(-1)));
        else if (step === 7) await copy.running.pop()?.stop();
        else if (step === 8) start(copy); // the other twin, which copies as well
        primary.nowMs += 400 * random();
        for (const { running } of copies) for (const { copier } of running) copier.grown(1);
        await delay(random() * 6);
      }
      primary.nowMs += 10_000;
      for (const copy of copies) {
        copy.store.faults = () => undefined;
        if (copy.running.length === 0) start(copy);
        await Promise.all(copy.running.map((running) => reached(primary, running)));
        await copy.store.landed();
        await Promise.all(copy.running.map((running) => running.stop()));
        expect(await primary.differences(copy.memory)).toEqual([]);
      }
    }),
    { numRuns: Number(process.env.SHIPMATE_PROPERTY_RUNS ?? 10) },
  );
}, 120_000);
