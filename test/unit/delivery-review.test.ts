import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, test } from '@jest/globals';
import { holdingOf, promote } from '../../src/archive/promote.ts';
import { planPrune } from '../../src/archive/prune.ts';
import { planRepair, repair } from '../../src/archive/repair.ts';
import { findEnd, readChain, readFloor } from '../../src/archive/walk.ts';
import { floorsPrefix, placeKey } from '../../src/core/keys.ts';
import { openFakeSource } from '../fakes/fake-source.ts';
import { FaultyStore } from '../fakes/faulty-store.ts';
import { MemoryHub } from '../fakes/memory-coordination.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { HandMadePrimary } from '../helpers/copying.ts';
import { info, STREAM } from '../helpers/hand-made-archive.ts';
import { Pair } from '../helpers/pair.ts';
import { copied, Running, reached, text } from '../helpers/running-copier.ts';
import { until } from '../helpers/wait.ts';

const signal = new AbortController().signal;

const isDiverged = (running: Running) =>
  until('it has diverged', () => running.copier.status.state === 'diverged', {
    withinMs: 30_000,
    describe: () => text(running),
  });

async function promoted(copy: MemoryStore, generation = 1): Promise<HandMadePrimary> {
  const holding = await holdingOf(copy, STREAM);
  const shared = new MemoryHub().client('x').archives;
  await promote({ ...holding!, generation, node: 'operator', shared, signal });
  return HandMadePrimary.of({ memory: copy, archive: { store: copy, info } });
}

describe('a copy that begins at a floor', () => {
  /** The first chunk of the open term is the floor; what is below may be locked, and stay. */
  async function pruned(slot: number): Promise<HandMadePrimary> {
    const primary = await HandMadePrimary.make();
    await primary.ship(5);
    await primary.takeOver();
    await primary.ship(9);
    const locked = new Map(primary.memory.keys(`${STREAM}/terms/`).map((key) => [key, primary.memory.peek(key)]));
    await primary.prune((chunks) => chunks.find(({ header }) => header.term === 3 && header.slot === slot));
    for (const [key, bytes] of locked) primary.memory.overwrite(key, bytes);
    return primary;
  }

  test.each([1, 4])(
    'and was interrupted before it had written that: it is read all the same (slot %i)',
    async (slot) => {
      const primary = await pruned(slot);
      const copy = new MemoryStore('copy');
      let isAlive = true;
      const dies = new FaultyStore(copy, (operation, key) => {
        if (operation === 'create' && key.startsWith(floorsPrefix(STREAM))) isAlive = false;
        return isAlive ? undefined : { kind: 'lost' };
      });
      const first = new Running(primary, dies);
      await until('it died', () => !isAlive);
      await first.stop();
      await copied(primary, copy);
      expect(await primary.differences(copy)).toEqual([]);
      const archive = { store: copy, info };
      expect(await readChain(archive, await readFloor(archive), () => {})).toMatchObject({
        digest: primary.end.digest,
      });
    },
  );

  test('is not promoted before it has it: nobody could read it', async () => {
    const primary = await pruned(1);
    const copy = new MemoryStore('copy');
    for (const key of primary.memory.keys()) {
      if (!key.includes('/floors/') && !primary.memory.peek(key).includes('"chunk"')) {
        if (!key.includes('/00000001/')) copy.overwrite(key, primary.memory.peek(key));
      }
    }
    await copy.delete([placeKey(STREAM, { term: 2, slot: 0 })]);
    await expect(holdingOf(copy, STREAM)).rejects.toMatchObject({ name: 'ArchiveNotWhole' });
  });
});

describe('a promotion', () => {
  test('takes what a copier brings while it looks for no hole', async () => {
    const primary = await HandMadePrimary.make();
    await primary.ship(4);
    let isLate = false;
    const copying = new FaultyStore(primary.memory, (operation, key) => {
      if (isLate || operation !== 'list' || !key.endsWith('/00000002/')) return undefined;
      isLate = true;
      return { kind: 'delay', until: primary.ship(20) };
    });
    const holding = await holdingOf(copying, STREAM);
    expect(isLate).toBe(true);
    expect(holding?.end).toEqual(primary.end);
  });

  test('leaves a store that went further than it: it has diverged, and says so', async () => {
    const primary = await HandMadePrimary.make();
    await primary.ship(4);
    const nas = new MemoryStore('nas');
    await copied(primary, nas);
    await primary.ship(6);
    const now = await promoted(nas);
    await now.ship(2);
    const old = new Running(now, primary.memory.copy('main'));
    await isDiverged(old);
    await old.stop();
  });

  test('leaves it too where the promoted store was pruned since', async () => {
    const primary = await HandMadePrimary.make();
    await primary.ship(4);
    const nas = new MemoryStore('nas');
    await copied(primary, nas);
    await primary.ship(6);
    await primary.takeOver();
    await primary.ship(1);
    const now = await promoted(nas);
    await now.ship(2);
    await now.takeOver();
    await now.ship(9);
    await now.prune();
    const main = primary.memory.copy('main');
    const keys = main.keys();
    const old = new Running(now, main);
    await isDiverged(old);
    await old.stop();
    expect(main.keys()).toEqual(keys);
  });

  test('is not followed by a floor of the old primary', async () => {
    const primary = await HandMadePrimary.make();
    await primary.ship(4);
    const nas = new MemoryStore('nas');
    await copied(primary, nas);
    await primary.ship(9);
    await primary.prune(); // without the copy
    let now: HandMadePrimary | null = null;
    // An object that the copy holds already: the last thing before the floor is written.
    const slow = new FaultyStore(nas, (operation, key) => {
      if (operation !== 'create' || !key.endsWith('/terms/00000002/0000000000') || now) return undefined;
      return { kind: 'delay', until: promoted(nas).then((made) => (now = made)) };
    });
    const late = new Running(primary, slow);
    await until('it was promoted', () => now);
    await until('the late copier has ended', () => late.copier.status.state === 'diverged', {
      withinMs: 30_000,
      describe: () => text(late),
    });
    await late.stop();
    expect(nas.keys(floorsPrefix(STREAM))).toEqual([]);
  });
});

test('a copy that is set back to an older state under a running copier is never taken for one that holds the log', async () => {
  const primary = await HandMadePrimary.make();
  await primary.ship(3);
  const copy = new MemoryStore('copy');
  const running = new Running(primary, copy);
  await reached(primary, running);
  const before = copy.keys();
  await primary.ship(9);
  await reached(primary, running);
  await copy.delete(copy.keys().filter((key) => !before.includes(key)));
  await primary.ship(1);
  await reached(primary, running);
  await running.stop();
  expect(await primary.differences(copy)).toEqual([]);
});

test('a copy that is behind the floor is no other archive: it holds up what is still to be deleted, and no more', async () => {
  const primary = await HandMadePrimary.make();
  await primary.ship(4);
  const copy = new MemoryStore('copy');
  await copied(primary, copy);
  await primary.ship(9);
  await primary.prune(); // without the copy
  const retention = { keep: { segments: 1 }, now: () => new Date(primary.nowMs), isCompanion: () => false };
  const plan = await planPrune(primary.archive, retention, [{ store: copy, info }]);
  expect(plan).toMatchObject({ create: null, heldBy: 'copy' });
});

test('an old primary that was pruned beyond the promoted copy is readable once it is mended', async () => {
  const primary = await HandMadePrimary.make();
  await primary.ship(4);
  const nas = new MemoryStore('nas');
  await copied(primary, nas);
  await primary.ship(9);
  await primary.prune(); // without the copy
  const now = await promoted(nas);
  await now.ship(3);
  const options = { from: now.archive, to: primary.memory, isCompanion: () => false, signal };
  await repair(await planRepair(options), options);
  expect(await now.differences(primary.memory)).toEqual([]);
  const floor = await readFloor(primary.archive);
  expect(await readChain(primary.archive, floor, () => {})).toMatchObject({ digest: now.end.digest });
});

test('an old primary is readable once it is mended from a promoted store that was pruned since', async () => {
  const primary = await HandMadePrimary.make();
  await primary.ship(4);
  const nas = new MemoryStore('nas');
  nas.overwrite(`${STREAM}/stream.json`, primary.memory.peek(`${STREAM}/stream.json`)); // all that the copy had
  const now = await promoted(nas);
  await now.ship(3);
  await now.takeOver();
  await now.ship(9);
  await now.prune();
  const options = { from: now.archive, to: primary.memory, isCompanion: () => false, signal };
  await repair(await planRepair(options), options);
  await copied(now, primary.memory);
  expect(await now.differences(primary.memory)).toEqual([]);
});

test('a clock that is set back never holds up a copy without a delay', async () => {
  const primary = await HandMadePrimary.make();
  await primary.ship(40);
  const copy = new MemoryStore('copy');
  const clocked = new FaultyStore(copy, (_, key) => {
    if (key === placeKey(STREAM, { term: 2, slot: 9 })) primary.nowMs -= 3_600_000;
    return undefined;
  });
  await copied(primary, clocked);
});

describe('ack: 2', () => {
  const pairs: Pair[] = [];
  afterEach(async () => {
    await Promise.all(pairs.splice(0).map((pair) => pair.stop()));
  });

  test('after a promotion that leaves no copy: nothing is let go of, and the operator is told', async () => {
    const pair = new Pair();
    pairs.push(pair);
    const nas = new MemoryStore('nas');
    const acknowledged: unknown[] = [];
    pair.log.append();
    const source = openFakeSource(pair.log);
    const a = pair.start('a', {
      plan: { primary: 'main', copies: ['nas'], ack: 2 },
      stores: (name) => (name === 'nas' ? nas : pair.store),
      source: { ...source, acknowledge: async (upTo) => void acknowledged.push(upTo) },
      rememberMs: 100,
    });
    await until('it is acknowledged', () => acknowledged.length > 0);
    const shared = pair.hub.client('operator').archives;
    await promote({ ...(await holdingOf(nas, STREAM))!, generation: 1, node: 'operator', shared, signal });
    await until('it has followed', async () => (await pair.twin('a'))?.generation === 1);
    await pair.hasRole('a', 'master');
    const before = acknowledged.length;
    pair.log.append({ bytes: 2_000 });
    await until('it is shipped', async () => {
      const { position } = await findEnd({ store: nas, info: a.shipper.archive!.info }, null);
      return position?.offset === pair.log.segments.at(-1)!.bytes.length;
    });
    await delay(50);
    expect(acknowledged.length).toBe(before);
    expect(await a.metrics.text()).toContain(
      `shipmate_alarm{stream="${STREAM}",alarm="too-few-copies",cluster="test"} 1`,
    );
    expect(a.said.join('\n')).toMatch(/ack: 2/);
  });

  test('of one twin alone is told: its own server is not acknowledged what the master does not count', async () => {
    const pair = new Pair();
    pairs.push(pair);
    pair.log.append();
    const stores = (name: string) => (name === 'nas' ? nas : pair.store);
    const nas = new MemoryStore('nas');
    pair.start('a', { plan: { primary: 'main', copies: ['nas'] }, stores });
    await pair.hasRole('a', 'master');
    const b = pair.start('b', { plan: { primary: 'main', copies: ['nas'], ack: 2 }, stores });
    await pair.isReady('b');
    await until('b says so', () => b.shipper.notReady().some((line) => line.includes('ack: 2')), { withinMs: 30_000 });
    expect((await pair.twin('b'))?.ready).toBe(true);
  });
});
