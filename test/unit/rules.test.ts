import { describe, expect, test } from '@jest/globals';
import { headOf } from '../../src/archive/head.ts';
import { openArchive, raceProbe } from '../../src/archive/identity.ts';
import { createMine, openTerm, sealOpenTerm } from '../../src/archive/takeover.ts';
import { findEnd, readFloor } from '../../src/archive/walk.ts';
import { chainStart } from '../../src/core/archive.ts';
import { encodeFloor } from '../../src/core/floor.ts';
import { encodeHeader, type Opening, type Seal } from '../../src/core/header.ts';
import { floorKey, placeKey } from '../../src/core/keys.ts';
import { statusReport } from '../../src/core/status.ts';
import type { ObjectStore } from '../../src/store/store.ts';
import { type Faults, FaultyStore, Gate } from '../fakes/faulty-store.ts';
import { MemoryHub } from '../fakes/memory-coordination.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import {
  at,
  chunkAt,
  cursorAt,
  emptyArchive,
  info,
  located,
  openingAt,
  retries,
  STREAM,
  sealAt,
  ship,
  takeOver,
  writer,
} from '../helpers/hand-made-archive.ts';

const signal = new AbortController().signal;

describe('the archive', () => {
  const opener = (store: ObjectStore, hub = new MemoryHub(), cluster = 'test') => ({
    store,
    stream: STREAM,
    cluster,
    node: 'a',
    identity: { type: 'fake', name: null },
    memories: [hub.client('a').archives, new MemoryHub().client('a').archives] as const,
    signal,
  });

  test('rule 1: two daemons that start at once make one archive, and one of them owns term 1', async () => {
    for (let round = 0; round < 50; round++) {
      const store = new MemoryStore();
      const hub = new MemoryHub();
      const both = await Promise.all([openArchive(opener(store, hub), true), openArchive(opener(store, hub), true)]);
      expect(new Set(both.map(({ archive }) => archive.info.archive)).size).toBe(1);
      expect(both.filter(({ claim }) => claim !== null).length).toBeLessThanOrEqual(1);
    }
  });

  test('rule 1: a clone of production with its config is refused, whether it knows nothing or another id', async () => {
    const store = new MemoryStore();
    await openArchive(opener(store), true);
    await expect(openArchive(opener(store), true)).rejects.toThrow('neither this host nor its twins know');
    const cloned = opener(new MemoryStore());
    await openArchive(cloned, true);
    await expect(openArchive({ ...cloned, store }, true)).rejects.toThrow('but this daemon knows');
    const keys = store.keys('orders/terms/');
    expect(keys).toEqual([]);
  });

  test('rule 1: what etcd or the state directory has lost it learns from the other; two that differ are refused', async () => {
    const store = new MemoryStore();
    const first = opener(store);
    const { archive } = await openArchive(first, true);
    const [shared, local] = first.memories;
    const known = { id: archive.info.archive, state: 'created' };
    const [newShared, newLocal] = opener(store).memories;
    await openArchive({ ...first, memories: [newShared, local] }, false);
    expect(await newShared.load(STREAM)).toEqual(known);
    await openArchive({ ...first, memories: [shared, newLocal] }, false);
    expect(await newLocal.load(STREAM)).toEqual(known);
    const other = opener(new MemoryStore());
    await openArchive(other, true);
    const conflict = openArchive({ ...first, memories: [shared, other.memories[1]] }, false);
    await expect(conflict).rejects.toMatchObject({ code: 'ARCHIVE_ID_CONFLICT' });
  });

  test('rule 1: another kind of database is refused', async () => {
    const store = new MemoryStore();
    const first = opener(store);
    await openArchive(first, true);
    await expect(openArchive({ ...first, identity: { type: 'mysql', name: null } }, false)).rejects.toMatchObject({
      code: 'WRONG_IDENTITY',
    });
  });

  test('rule 2: a store that does not honour create-only is refused', async () => {
    const lying = new FaultyStore(new MemoryStore(), (operation, key) =>
      operation === 'create' && key.includes('probe') ? { kind: 'lie', answer: 'created' } : undefined,
    );
    await expect(raceProbe(lying, STREAM, signal)).rejects.toThrow('does not honour');
    await expect(openArchive(opener(lying), true)).rejects.toThrow('does not honour');
    const forgetful = new FaultyStore(new MemoryStore());
    const given = opener(forgetful);
    await openArchive(given, true);
    forgetful.faults = (operation) => (operation === 'create' ? { kind: 'lie', answer: 'created' } : undefined);
    await expect(openArchive(given, false)).rejects.toThrow('does not honour');
  });
});

describe('taking over', () => {
  test('rule 4: a claim writes in one term only: after a restart a node seals its own open term', async () => {
    const { archive } = emptyArchive();
    const first = await ship(archive, await takeOver(archive, writer('a')), 3);
    const second = await takeOver(archive, writer('a'));
    expect(second.term).toBe(first.term + 1);
    expect(second.owner).not.toBe(first.owner);
  });

  test("rule 5: the owner's objects count up to the first foreign one, and then only a seal does", async () => {
    const { archive, memory } = emptyArchive();
    const end = await ship(archive, await takeOver(archive), 2);
    const foreign = encodeHeader({ ...chunkAt(end, 7), claim: 'a stranger' });
    memory.overwrite(placeKey(STREAM, end), foreign.frame);
    const late = encodeHeader(chunkAt({ ...end, slot: end.slot + 1 }, 2));
    memory.overwrite(placeKey(STREAM, { term: end.term, slot: end.slot + 1 }), late.frame);
    const met: string[] = [];
    const next = await sealOpenTerm(archive, end, writer('b'), { ...retries, onObject: (what) => met.push(what) });
    expect(met).toEqual(['foreign', 'foreign', 'seal']);
    expect(next).toMatchObject({ term: end.term + 1, slot: 0, position: at(2) });
  });

  test('rule 5: a damaged object in the chain is an alarm, never a silent end', async () => {
    const { archive, memory } = emptyArchive();
    const end = await ship(archive, await takeOver(archive), 3);
    memory.overwrite(placeKey(STREAM, { term: end.term, slot: 2 }), Buffer.from('not an object of ours'));
    await expect(sealOpenTerm(archive, chainStart(info), writer('b'), retries)).rejects.toMatchObject({
      code: 'BAD_OBJECT',
    });
    memory.overwrite(
      placeKey(STREAM, { term: end.term, slot: 2 }),
      encodeHeader(chunkAt({ ...end, slot: 2 }, 1)).frame,
    );
    await expect(sealOpenTerm(archive, chainStart(info), writer('b'), retries)).rejects.toMatchObject({
      code: 'CHAIN_BROKEN',
    });
  });

  test('rule 5: a seal that does not name the header before it is an alarm', async () => {
    const { archive, memory } = emptyArchive();
    const end = await ship(archive, await takeOver(archive), 3);
    const seal: Seal = { ...sealAt(end), prev: 'another' };
    memory.overwrite(placeKey(STREAM, end), encodeHeader(seal).frame);
    await expect(findEnd(archive, cursorAt(end))).rejects.toMatchObject({ code: 'CHAIN_BROKEN' });
    memory.overwrite(placeKey(STREAM, end), encodeHeader(sealAt(end)).frame);
    expect(await findEnd(archive, cursorAt(end))).toMatchObject({ term: end.term + 1, slot: 0, owner: 'a claim' });
  });

  test('rule 6: my own timed-out write is a success; another object in its place deposes', async () => {
    const { memory } = emptyArchive();
    let fault: ReturnType<Faults> = { kind: 'after' };
    const faulty = new FaultyStore(memory, (operation) => {
      const now = operation === 'create' ? fault : undefined;
      if (now) fault = undefined;
      return now;
    });
    const archive = { store: faulty, info };
    const end = await takeOver({ store: memory, info });
    const mine = chunkAt(end, 0);
    const { frame, digest } = encodeHeader(mine);
    await createMine(archive, mine, digest, () => frame, retries);
    const other = encodeHeader({ ...mine, time: 'later' });
    await expect(createMine(archive, mine, other.digest, () => other.frame, retries)).rejects.toMatchObject({
      code: 'DEPOSED',
    });
  });

  test('rule 9: a cursor whose object is not there stops the twin, unless it is below the floor', async () => {
    const { archive, memory } = emptyArchive();
    const end = await ship(archive, await takeOver(archive), 5);
    const [third, fourth] = [3, 4].map((slot) => placeKey(STREAM, { term: end.term, slot }));
    await memory.delete([third!, fourth!]);
    const cursor = { term: end.term, slot: 3, digest: 'gone' };
    await expect(findEnd(archive, cursor)).rejects.toMatchObject({ code: 'STORE_WENT_BACK' });
    memory.overwrite(floorKey(STREAM, end), encodeFloor(end));
    expect(await findEnd(archive, cursor)).toMatchObject({ term: end.term, slot: end.slot, position: at(5) });
    // A write that was given up before retention came by lands in the place that it left.
    memory.overwrite(third!, encodeHeader(sealAt({ ...end, slot: 3 })).frame);
    expect(await findEnd(archive, cursor)).toMatchObject({ term: end.term, slot: end.slot, position: at(5) });
  });

  test('rule 9: a cursor whose place holds another object stops the twin', async () => {
    const { archive } = emptyArchive();
    const end = await ship(archive, await takeOver(archive), 3);
    await expect(findEnd(archive, { ...cursorAt(end), digest: 'another' })).rejects.toMatchObject({
      code: 'STORE_WENT_BACK',
    });
  });

  test('rule 10: slots that landed above one that did not are not taken for the end', async () => {
    const { archive, memory } = emptyArchive();
    const end = await ship(archive, await takeOver(archive), 9);
    await memory.delete([placeKey(STREAM, { term: end.term, slot: 6 })]);
    expect(await findEnd(archive, null)).toMatchObject({ slot: 6, position: at(5) });
  });

  test('rule 10: a term whose opening no seal proves is passed over, as is what is not of its owner', async () => {
    const { archive, memory } = emptyArchive();
    const end = await ship(archive, await takeOver(archive), 20);
    const stray = await ship(archive, { ...end, term: end.term + 3, owner: 'a stranger' }, 3);
    expect(stray).toEqual(end);
    const opening: Opening = { ...openingAt(end), term: end.term + 3, claim: 'a stranger', previous: end.last };
    memory.overwrite(placeKey(STREAM, { term: end.term + 3, slot: 0 }), encodeHeader(opening).frame);
    expect(await findEnd(archive, null)).toEqual(end);
    for (let slot = end.slot; slot < end.slot + 8; slot++) {
      const foreign = encodeHeader({ ...chunkAt({ ...end, slot }, 99), claim: 'a stranger' });
      memory.overwrite(placeKey(STREAM, { term: end.term, slot }), foreign.frame);
    }
    const beyond = { slot: end.slot + 8, foreign: true, owner: end.owner, position: end.position };
    expect(await findEnd(archive, null)).toMatchObject(beyond);
  });

  test('rules 10, 18: what somebody put beside the archive’s objects is passed over', async () => {
    const { archive, memory } = emptyArchive();
    const early = await ship(archive, await takeOver(archive), 3);
    const end = await ship(archive, early, 20);
    memory.overwrite(floorKey(STREAM, early), encodeFloor(early));
    for (const key of ['floors/notes.txt', 'terms/notes.txt', 'terms/deadbeef/notes.txt', 'terms/ffffffff/notes.txt']) {
      memory.overwrite(`${STREAM}/${key}`, Buffer.from('not an object of ours'));
    }
    expect(await findEnd(archive, null)).toEqual(end);
    expect(await readFloor(archive)).toEqual(early);
  });

  test('rule 10: the last of many terms is found with a few looks', async () => {
    const { archive, memory } = emptyArchive();
    for (let n = 0; n < 40; n++) await ship(archive, await takeOver(archive), 1);
    const end = await findEnd(archive, null);
    let looks = 0;
    const counting = new FaultyStore(memory, () => void looks++);
    expect(await findEnd({ store: counting, info }, null)).toEqual(end);
    expect(end.term).toBe(41);
    expect(looks).toBeLessThan(20);
  });

  test('rule 18: without a cursor a walk begins at the highest floor, not at the openings that outlive it', async () => {
    const { archive, memory } = emptyArchive();
    const opened = await takeOver(archive);
    const fourth = await ship(archive, opened, 3);
    const end = await ship(archive, fourth, 2);
    for (const floor of [opened, fourth]) memory.overwrite(floorKey(STREAM, floor), encodeFloor(floor));
    await memory.delete([1, 2, 3].map((slot) => placeKey(STREAM, { term: end.term, slot })));
    expect(await findEnd(archive, null)).toEqual(end);
  });

  test('rule 10: without a cursor the end of a long term is found with a few looks', async () => {
    const { archive, memory } = emptyArchive();
    const opened = await takeOver(archive);
    const end = await ship(archive, opened, 2_000);
    let looks = 0;
    const counting = new FaultyStore(memory, () => void looks++);
    expect(await findEnd({ store: counting, info }, null)).toMatchObject({ slot: 2_001, digest: end.digest });
    expect(looks).toBeLessThan(70);
  });

  test('rule 10: nor does a cursor of long ago make the end be found by reading everything since', async () => {
    const { archive, memory } = emptyArchive();
    const opened = await takeOver(archive);
    const early = await ship(archive, opened, 20);
    const old = await ship(archive, early, 3);
    for (let n = 0; n < 3; n++) await ship(archive, await findEnd(archive, null), 900);
    const end = await ship(archive, await takeOver(archive), 1_500);
    memory.overwrite(floorKey(STREAM, early), encodeFloor(early));
    await memory.delete([5, 6].map((slot) => placeKey(STREAM, { ...opened, slot })));
    const below = { term: opened.term, slot: 5, digest: 'of a chunk that is gone' };
    for (const hint of [cursorAt(old), below, cursorAt(opened)]) {
      let looks = 0;
      const counting = new FaultyStore(memory, () => void looks++);
      expect(await findEnd({ store: counting, info }, hint)).toEqual(end);
      expect(looks).toBeLessThan(1_200);
    }
  });

  test('rule 12: a walk counts only while the floor has not passed the place where it began', async () => {
    const { archive, memory } = emptyArchive();
    const early = await ship(archive, await takeOver(archive), 3);
    const late = await ship(archive, early, 6);
    const end = await ship(archive, late, 2);
    const gate = new Gate();
    const next = placeKey(STREAM, early);
    let met = 0;
    const slow = new FaultyStore(memory, (operation, key) =>
      operation === 'readStart' && key === next && met++ === 0 ? { kind: 'delay', until: gate.opened } : undefined,
    );
    const by = writer('b');
    const sealing = sealOpenTerm({ store: slow, info }, early, by, retries);
    // Retention overtakes the walk: it finds its next place empty, and puts a seal there.
    memory.overwrite(floorKey(STREAM, late), encodeFloor(late));
    const deleted = Array.from({ length: late.slot - 1 }, (_, n) => placeKey(STREAM, { term: end.term, slot: n + 1 }));
    await memory.delete(deleted);
    gate.open();
    const sealed = await sealing;
    expect(memory.keys(next)).toEqual([next]);
    expect(sealed).toMatchObject({ term: end.term + 1, slot: 0, owner: by.claim, position: end.position });
    expect(sealed.last).toEqual({ term: end.term, slot: end.slot });
    expect(await findEnd(archive, null)).toMatchObject({ term: sealed.term, slot: 0, digest: sealed.digest });
  });

  test('rule 12: nor does one that meets nothing, where the object that it began with outlives retention', async () => {
    const { archive, memory } = emptyArchive();
    const opened = await takeOver(archive);
    const early = await ship(archive, opened, 30);
    const end = await ship(archive, early, 10);
    memory.overwrite(floorKey(STREAM, early), encodeFloor(early));
    const slots = Array.from({ length: early.slot - 1 }, (_, n) => n + 1);
    await memory.delete(slots.map((slot) => placeKey(STREAM, { term: end.term, slot })));
    expect(await findEnd(archive, cursorAt(opened))).toEqual(end); // as etcd says after it was restored from a backup
  });

  test('rule 12: of any number of sealers one owns each term, and every one of them gets a term', async () => {
    const { archive, memory } = emptyArchive();
    await ship(archive, await takeOver(archive), 3);
    const ends = await Promise.all(
      Array.from({ length: 8 }, () =>
        findEnd(archive, null).then((end) => sealOpenTerm(archive, end, writer(), retries)),
      ),
    );
    expect(new Set(ends.map(({ term }) => term)).size).toBe(8);
    expect(memory.keys('orders/terms/').length).toBe(4 + 1 + 8);
  });

  test('rule 13: a term that was never opened is sealed at slot 0', async () => {
    const { archive } = emptyArchive();
    const first = await ship(archive, await takeOver(archive), 2);
    const unopened = await sealOpenTerm(archive, first, writer('b'), retries);
    expect(await findEnd(archive, cursorAt(unopened))).toMatchObject({ position: at(2) });
    const third = await takeOver(archive, writer('c'));
    expect(unopened).toMatchObject({ term: first.term + 1, slot: 0 });
    expect(third.term).toBe(first.term + 2);
    expect(third.last).toEqual({ term: third.term, slot: 0 });
    const head = await headOf(archive, third);
    expect(head?.witness?.to).toEqual(at(2));
  });

  test('rule 13: an opening that no reader would take is not written', async () => {
    const { archive } = emptyArchive();
    const by = writer('b');
    const sealed = await sealOpenTerm(archive, await findEnd(archive, null), by, retries);
    const fileStart = 'x'.repeat(1 << 20);
    const opening = openTerm(archive, sealed, by, { ...located, evidence: { fileStart } }, retries);
    await expect(opening).rejects.toMatchObject({ code: 'HEADER_TOO_LONG' });
    expect(await findEnd(archive, null)).toEqual(sealed);
  });

  test('rule 13: an opening is found again as the cursor, so that a quiet log loses no acknowledgement', async () => {
    const { archive } = emptyArchive();
    const opened = await takeOver(archive);
    const found = await findEnd(archive, cursorAt(opened));
    expect(found).toMatchObject({ term: opened.term, slot: 1, position: opened.position, owner: opened.owner });
  });

  test('rule 14: what a truncation cut off is no evidence any more', async () => {
    const { archive } = emptyArchive();
    const shipped = await ship(archive, await takeOver(archive), 5);
    const by = writer('b');
    const sealed = await sealOpenTerm(archive, shipped, by, retries);
    const truncated = { ...located, result: 'truncate', at: at(2) } as const;
    const opened = await openTerm(archive, sealed, by, truncated, retries);
    const head = await headOf(archive, opened);
    const history: number[] = [];
    for await (const { to } of head!.history()) history.push(to.offset);
    expect(history).toEqual([2, 1]);
  });

  test('rule 14: what no successor names is no evidence: going back over the chain stops there, told', async () => {
    const { archive, memory } = emptyArchive();
    const end = await ship(archive, await takeOver(archive), 5);
    const head = (await headOf(archive, end))!;
    memory.overwrite(
      placeKey(STREAM, { term: end.term, slot: 3 }),
      encodeHeader(chunkAt({ ...end, slot: 3 }, 2)).frame,
    );
    const going = async () => {
      for await (const { to } of head.history()) if (to.offset < 3) return to.offset;
      return null;
    };
    await expect(going()).rejects.toMatchObject({ code: 'CHAIN_BROKEN' });
    await memory.delete([placeKey(STREAM, { term: end.term, slot: 3 })]);
    await expect(going()).rejects.toMatchObject({ code: 'CHAIN_BROKEN' });
  });

  test('rule 21: the lag of a stream is the largest over its twins', () => {
    const twin = (node: string, lagBytes: number) => ({
      node,
      streams: [{ name: STREAM, role: 'standby', ready: true, reason: '', lagBytes, lagSeconds: lagBytes }],
    });
    const told = { streams: [{ name: STREAM, master: 'a', cursor: null }], twins: [twin('a', 0), twin('b', 4096)] };
    const report = statusReport(told, { cluster: 'test', stores: { [STREAM]: ['main'] } });
    expect(report.streams[0]).toMatchObject({ lagBytes: 4096, lagSeconds: 4096 });
  });
});

test('an opening names what the next reader needs: result, reason and the place of the seal before', async () => {
  const { archive, memory } = emptyArchive();
  await ship(archive, await takeOver(archive), 1);
  const opened = await takeOver(archive, writer('b'));
  const text = memory
    .peek(placeKey(STREAM, { term: opened.term, slot: 0 }))
    .subarray(8)
    .toString();
  const opening: Opening = JSON.parse(text);
  expect(opening).toMatchObject({ node: 'b', result: 'resume', evidence: { reason: 'a test' }, at: at(0) });
  expect(opening.previous).toMatchObject({ term: opened.term - 1 });
});
