import { beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { planPrune, prune } from '../../src/archive/prune.ts';
import { planRepair, type RepairPlan, repair } from '../../src/archive/repair.ts';
import { newClaim, sealOpenTerm } from '../../src/archive/takeover.ts';
import { type Archive, findEnd, readFloor } from '../../src/archive/walk.ts';
import { decodeHeader, encodeHeader } from '../../src/core/header.ts';
import { floorKey, floorsPrefix, placeKey, streamKey, termsPrefix } from '../../src/core/keys.ts';
import { ChunkReader } from '../../src/restore/chunks.ts';
import { silent } from '../../src/restore/progress.ts';
import { demandArchive } from '../../src/restore/reading.ts';
import { verify } from '../../src/restore/verify.ts';
import { FakeLog } from '../fakes/fake-log.ts';
import { openFakeSource } from '../fakes/fake-source.ts';
import { FaultyStore, seededRandom } from '../fakes/faulty-store.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { createArchive, shipTerm } from '../helpers/shipped-archive.ts';

const STREAM = 'orders';
const signal = new AbortController().signal;
const isCompanion = () => false;

let main: MemoryStore;
let archive: Archive;
let log: FakeLog;

/** Four terms, the last one open. */
beforeEach(async () => {
  main = new MemoryStore('main');
  archive = await createArchive(main, STREAM);
  log = new FakeLog();
  for (let term = 0; term < 3; term++) await ship(archive);
});

async function ship(to: Archive): Promise<void> {
  for (let n = 0; n < 12; n++) {
    log.append({ bytes: 200 });
    if (n % 5 === 4) log.rotate();
  }
  await shipTerm(to, openFakeSource(log, { maxSliceBytes: 300 }));
}

const plan = (to: MemoryStore | FaultyStore, from = archive) => planRepair({ from, to, isCompanion, signal });

async function mended(to: MemoryStore, from = archive): Promise<RepairPlan> {
  const found = await plan(to, from);
  await repair(found, { from, to, isCompanion, signal });
  return found;
}

const contents = (store: MemoryStore) => store.keys().map((key) => [key, store.peek(key).toString('base64')]);
const keysOfChain = () => main.keys(termsPrefix(STREAM));

const DAMAGES: Record<string, (store: MemoryStore, key: string) => void | Promise<void>> = {
  missing: (store, key) => store.delete([key]),
  garbage: (store, key) => store.overwrite(key, Buffer.from('not an object of ours')),
  flipped(store, key) {
    const bytes = Buffer.from(store.peek(key));
    bytes[bytes.length - 1]! ^= 1;
    store.overwrite(key, bytes);
  },
  short: (store, key) => store.overwrite(key, store.peek(key).subarray(0, -1)),
  long: (store, key) => store.overwrite(key, Buffer.concat([store.peek(key), Buffer.from('x')])),
  async foreign(store, key) {
    const { header, payloadOffset } = decodeHeader(store.peek(key), key);
    if (header.kind === 'seal') return await store.delete([key]); // anybody's would end the term
    const { frame } = encodeHeader({ ...header, claim: newClaim(), node: 'elsewhere' });
    store.overwrite(key, Buffer.concat([frame, store.peek(key).subarray(payloadOffset)]));
  },
};

describe('repair', () => {
  test('finds whatever is missing, damaged or foreign, and afterwards both stores hold the same', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer(), async (seed) => {
        const random = seededRandom(seed);
        const nas = main.copy('nas');
        const chosen = keysOfChain().filter(() => random() < 0.2);
        for (const key of chosen) {
          await Object.values(DAMAGES)[Math.floor(random() * Object.keys(DAMAGES).length)]!(nas, key);
        }
        const before = contents(nas);
        const { flaws } = await plan(nas);
        expect(flaws.map(({ key }) => key)).toEqual(chosen);
        expect(contents(nas)).toEqual(before); // looking changes nothing
        await mended(nas);
        expect(contents(nas)).toEqual(contents(main));
        expect((await plan(nas)).flaws).toEqual([]);
      }),
      { numRuns: 20, interruptAfterTimeLimit: 30_000 },
    );
  });

  test('finds a stranger’s object where it stands, whatever place that says of itself', async () => {
    const key = placeKey(STREAM, await findEnd(archive, null));
    main.overwrite(key, main.peek(keysOfChain().at(-3)!));
    await ship(archive);
    const nas = main.copy('nas');
    await nas.delete([key]);
    expect((await mended(nas)).flaws).toMatchObject([{ key, what: 'missing' }]);
    expect(contents(nas)).toEqual(contents(main));
  });

  test('compares an archive of more objects than are kept in mind', async () => {
    const small = openFakeSource(log, { maxSliceBytes: 1 });
    for (let n = 0; n < 6; n++) log.append({ bytes: 200 });
    await shipTerm(archive, small, { maxChunkBytes: 1 });
    const nas = main.copy('nas');
    const keys = keysOfChain();
    expect(keys.length).toBeGreaterThan(1_100);
    const lost = [5, 990, 1_050, keys.length - 1].map((n) => keys[n]!);
    await nas.delete(lost);
    const found = await mended(nas);
    expect(found.flaws.map(({ key }) => key)).toEqual(lost);
    expect(found.objects).toBe(keys.length);
    expect(contents(nas)).toEqual(contents(main));
  });

  test('fills an empty store, also from an archive that was pruned, and one whose stream.json is damaged', async () => {
    await pruneTo(archive, 1);
    const nas = new MemoryStore('nas');
    await mended(nas);
    expect(contents(nas)).toEqual(contents(main));
    nas.overwrite(streamKey(STREAM), Buffer.from('{'));
    expect((await mended(nas)).flaws).toMatchObject([{ key: streamKey(STREAM), what: 'damaged' }]);
    expect(contents(nas)).toEqual(contents(main));
  });

  test('leaves what retention deleted in one store alone', async () => {
    const nas = main.copy('nas');
    const copy = await demandArchive(nas, STREAM);
    await pruneTo(copy, 1);
    const pruned = contents(nas);
    expect((await plan(nas)).flaws).toEqual([]);
    const key = nas.keys(termsPrefix(STREAM)).at(-1)!;
    DAMAGES.flipped!(nas, key);
    expect((await mended(nas)).flaws).toMatchObject([{ key, what: 'damaged' }]);
    expect(contents(nas)).toEqual(pruned);
    // And the other way round: what only the pruned one's peer still has stays there.
    expect((await plan(main, copy)).flaws).toEqual([]);
  });

  test('is safe to repeat after it died at any moment', async () => {
    const nas = main.copy('nas');
    const chosen = keysOfChain().filter((_, n) => n % 7 === 3);
    for (const key of chosen) DAMAGES.garbage!(nas, key);
    for (let step = 0; step < 2 * chosen.length; step += 3) {
      let mutations = 0;
      const dying = new FaultyStore(nas, (operation) => {
        const isMutation = operation === 'create' || operation === 'delete';
        return isMutation && mutations++ >= step ? { kind: 'before', error: new Error('killed') } : undefined;
      });
      const found = await plan(dying);
      await repair(found, { from: archive, to: dying, isCompanion, signal }).catch(() => {});
    }
    await mended(nas);
    expect(contents(nas)).toEqual(contents(main));
  });

  test('never writes what is damaged at the source too, nor what it can’t prove behind a hole there', async () => {
    const nas = main.copy('nas');
    const [, , , third, fourth, fifth, , later] = keysOfChain();
    await nas.delete([third!, fifth!, later!]);
    DAMAGES.flipped!(main, third!);
    await expect(mended(nas)).rejects.toMatchObject({
      code: 'SOURCE_DAMAGED',
      message: expect.stringContaining(third!),
    });
    expect(nas.keys(third!)).toEqual([]);
    DAMAGES.flipped!(main, third!);
    const bytes = main.peek(fourth!);
    await main.delete([fourth!]);
    const found = await mended(nas);
    expect(found.hole).not.toBeNull();
    expect(nas.keys(third!)).toEqual([third]);
    expect(nas.keys(later!)).toEqual([]);
    // Each mends what the other one lacks.
    await mended(main, await demandArchive(nas, STREAM));
    expect(main.peek(fourth!).equals(bytes)).toBe(true);
    await mended(nas);
    expect(contents(nas)).toEqual(contents(main));
  });

  test('refuses another archive, and two that both went on', async () => {
    const other = new MemoryStore('other');
    await createArchive(other, STREAM);
    await expect(plan(other)).rejects.toMatchObject({ code: 'OTHER_ARCHIVE' });
    const nas = main.copy('nas');
    const copy = await demandArchive(nas, STREAM);
    await ship(copy);
    await shipTerm(archive, openFakeSource(log, { maxSliceBytes: 300 }));
    await expect(plan(nas)).rejects.toMatchObject({ code: 'COPY_DIVERGED' });
  });

  test('mends an old primary from the copy that was promoted, never the other way round', async () => {
    const { nas, promoted } = await promotion();
    await expect(plan(nas)).rejects.toMatchObject({ code: 'PROMOTED_LATER' });

    const { generation, flaws } = await mended(main, promoted);
    expect(generation).toEqual({ from: 1, to: 0 });
    expect(new Set(flaws.map(({ what }) => what))).toEqual(new Set(['foreign', 'missing']));
    const end = await findEnd(promoted, null);
    expect(await findEnd(archive, null)).toEqual(end);
    expect((await verify(new ChunkReader(archive), { deep: true, progress: silent })).faults).toEqual([]);
    // A copier goes on behind it.
    await ship(promoted);
    for (const key of nas.keys(termsPrefix(STREAM)).filter((each) => each >= placeKey(STREAM, end))) {
      expect(await main.create(key, nas.peek(key), signal)).toBe('created');
    }
  });

  test('takes away from an old primary however much it wrote where nobody looked any more', async () => {
    const { promoted } = await promotion();
    const { term } = await findEnd(promoted, null);
    const late = Buffer.from('of the left branch');
    for (let slot = 0; slot < 150_000; slot++) main.overwrite(placeKey(STREAM, { term: term + 1, slot }), late);
    const { flaws } = await plan(main, promoted);
    expect(flaws.filter(({ what }) => what === 'stray').length).toBeGreaterThanOrEqual(150_000);
  });

  test.each([false, true])('of an old primary is safe to repeat too (pruned since: %s)', async (isPruned) => {
    const { nas, promoted } = await promotion();
    for (let term = 0; term < 3; term++) await ship(archive); // on and on, where nobody looks any more
    if (isPruned) {
      await ship(promoted);
      await pruneTo(promoted, 1);
    }
    const whole = main.copy('whole');
    await mended(whole, promoted);
    const end = await findEnd(promoted, null);
    expect(await findEnd(await demandArchive(whole, STREAM), null)).toEqual(end);
    expect(whole.keys(termsPrefix(STREAM)).filter((key) => key >= placeKey(STREAM, end))).toEqual([]);
    for (let step = 0, died = true; died; step += 9) {
      const to = main.copy('to');
      died = await diesAt(step, to, promoted);
      await mended(to, promoted);
      expect(contents(to)).toEqual(contents(whole));
    }
    expect(nas.keys().length).toBeGreaterThan(0);
  });

  test('takes nothing from an old primary that the promoted store can’t prove, behind a hole of its own', async () => {
    const { nas, promoted } = await promotion();
    const lost = nas.keys(termsPrefix(STREAM))[20]!;
    await nas.delete([lost]);
    const before = contents(main);
    expect((await mended(main, promoted)).hole).not.toBeNull();
    expect(contents(main)).toEqual(before);
  });

  test('fills a store from an archive that was pruned, also after it died at any moment', async () => {
    await pruneTo(archive, 1);
    for (let step = 0, died = true; died; step++) {
      const nas = new MemoryStore('nas');
      died = await diesAt(step, nas, archive);
      // A copier that comes before it is run again finds the openings wherever there is a floor.
      if (nas.keys(floorsPrefix(STREAM)).length > 0)
        expect(nas.keys(placeKey(STREAM, { term: 1, slot: 0 }))).toHaveLength(1);
      await mended(nas);
      expect(contents(nas)).toEqual(contents(main));
      expect(
        (await verify(new ChunkReader(await demandArchive(nas, STREAM)), { deep: true, progress: silent })).faults,
      ).toEqual([]);
    }
  });

  test('makes no hole where retention deletes what it is about to bring', async () => {
    const nas = new MemoryStore('nas');
    let mutations = 0;
    const slow = new FaultyStore(nas, (operation) => {
      if (operation !== 'create' || mutations++ !== 5) return undefined;
      return { kind: 'delay', until: pruneTo(archive, 1) };
    });
    const found = await plan(slow);
    await expect(repair(found, { from: archive, to: slow, isCompanion, signal })).rejects.toMatchObject({
      code: 'PRUNED',
    });
    const copy = await demandArchive(nas, STREAM);
    const faults = async () => (await verify(new ChunkReader(copy), { deep: true, progress: silent })).faults;
    expect(await faults()).toEqual([]);
    await mended(nas);
    expect(await faults()).toEqual([]);
    expect(await findEnd(copy, null)).toEqual(await findEnd(archive, null));
  });

  test('lets a store whose chain has a hole below the floor of the other begin there, too', async () => {
    const nas = main.copy('nas');
    await nas.delete([keysOfChain()[3]!]);
    await pruneTo(archive, 1);
    await mended(nas);
    const copy = await demandArchive(nas, STREAM);
    expect((await verify(new ChunkReader(copy), { deep: true, progress: silent })).faults).toEqual([]);
    expect(await readFloor(copy)).toEqual(await readFloor(archive));
  });

  test('mends floors, and openings and seals below them', async () => {
    await pruneTo(archive, 1);
    const nas = main.copy('nas');
    const [opening] = keysOfChain();
    const [floor] = main.keys(floorsPrefix(STREAM));
    for (const key of [opening!, floor!]) {
      DAMAGES.garbage!(nas, key);
      expect((await mended(nas)).flaws).toMatchObject([{ key, what: 'damaged' }]);
      expect(contents(nas)).toEqual(contents(main));
    }
    // One that only the mended store ever had.
    const key = floorKey(STREAM, await findEnd(archive, null));
    nas.overwrite(key, Buffer.from('{'));
    expect((await mended(nas)).flaws).toMatchObject([{ key, what: 'stray' }]);
    expect(contents(nas)).toEqual(contents(main));
  });
});

/** The copy was promoted while the old primary, which did not hear of it, went on. */
async function promotion(): Promise<{ nas: MemoryStore; promoted: Archive }> {
  const nas = main.copy('nas');
  const promoted = await demandArchive(nas, STREAM);
  await ship(archive); // what the copy never got
  const by = { claim: newClaim(), node: 'b', now: () => new Date(), generation: 1 };
  await sealOpenTerm(promoted, await findEnd(promoted, null), by, { signal });
  log.truncate(300);
  await ship(promoted);
  return { nas, promoted };
}

async function pruneTo(which: Archive, segments: number): Promise<void> {
  const retention = { keep: { segments }, now: () => new Date(), isCompanion };
  await prune(which, await planPrune(which, retention, []), { isCompanion, signal });
}

/** Mends, and is killed at the mutation that is told; whether it came to that. */
async function diesAt(step: number, to: MemoryStore, from: Archive): Promise<boolean> {
  let mutations = 0;
  const dying = new FaultyStore(to, (operation) => {
    const isMutation = operation === 'create' || operation === 'delete';
    return isMutation && mutations++ >= step ? { kind: 'before', error: new Error('killed') } : undefined;
  });
  await repair(await plan(dying, from), { from, to: dying, isCompanion, signal }).catch(() => {});
  return mutations > step;
}
