import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, jest, test } from '@jest/globals';
import fc from 'fast-check';
import { headOf } from '../../src/archive/head.ts';
import { planCopyPrune, planPrune, prune, type Retention } from '../../src/archive/prune.ts';
import { readFromFloor } from '../../src/archive/reader.ts';
import { type Archive, findEnd, readFloor } from '../../src/archive/walk.ts';
import { chainStart } from '../../src/core/archive.ts';
import { decodeTimedFloor } from '../../src/core/floor.ts';
import { decodeHeader } from '../../src/core/header.ts';
import {
  comparePlaces,
  floorsPrefix,
  type Place,
  placeKey,
  placeOf,
  placeText,
  termPrefix,
} from '../../src/core/keys.ts';
import type { Piece } from '../../src/core/ranges.ts';
import { type Keep, PastLog } from '../../src/core/retention.ts';
import { ShipmateError } from '../../src/errors.ts';
import { ChunkReader } from '../../src/restore/chunks.ts';
import { planRestore } from '../../src/restore/plan.ts';
import { silent } from '../../src/restore/progress.ts';
import { ChainSummary, demandArchive, readSummary } from '../../src/restore/reading.ts';
import { restore } from '../../src/restore/restore.ts';
import { verify } from '../../src/restore/verify.ts';
import type { LogSource } from '../../src/source/source.ts';
import { fakeFormat } from '../fakes/fake-format.ts';
import { FakeLog } from '../fakes/fake-log.ts';
import { openFakeSource } from '../fakes/fake-source.ts';
import { type Faults, FaultyStore, seededRandom } from '../fakes/faulty-store.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { chunkAt, info } from '../helpers/hand-made-archive.ts';
import { createArchive, shipTerm } from '../helpers/shipped-archive.ts';

jest.setTimeout(120_000);

const STREAM = 'orders';
const DAY_MS = 86_400_000;
const signal = new AbortController().signal;
const noCompanion = () => false;
const numbers = (random: () => number, below: number) => Math.floor(random() * below);

/** A living chunk (or the part of one that counts), its bytes, and when it was shipped. */
interface Kept extends Piece {
  readonly segment: string;
  readonly bytes: string;
  readonly timeMs: number;
}

/** What can be restored, byte for byte. */
async function restorable(archive: Archive): Promise<Kept[]> {
  const { reader } = await readFromFloor(archive, (from) => new ChainSummary(from));
  const chunks = new ChunkReader(archive);
  const kept: Kept[] = [];
  for (const { segments } of reader.living.runs) {
    for (const { name, origin, incarnation, pieces } of segments) {
      for (const piece of pieces) {
        const { bytes, release } = await chunks.read(piece);
        const key = placeKey(STREAM, piece.place);
        const { header } = decodeHeader(await archive.store.readStart(key, 1 << 16), key);
        const text = Buffer.from(bytes).toString('latin1', 0, piece.length);
        const eventMs = header.kind === 'chunk' ? Math.max(header.firstEventMs ?? 0, header.lastEventMs ?? 0) : 0;
        const timeMs = Math.max(Date.parse(header.time), eventMs);
        kept.push({ ...piece, segment: `${origin} ${name} ${incarnation}`, bytes: text, timeMs });
        release();
      }
    }
  }
  return kept;
}

/** An archive with a past: days of it, over many terms. */
class Past {
  readonly store = new MemoryStore('main');
  readonly #random: () => number;
  #archive: Archive | null = null;
  #log = new FakeLog();
  #source: LogSource = openFakeSource(this.#log, { maxSliceBytes: 300 });
  #origins = 1;
  nowMs = Date.UTC(2026, 4, 25);

  constructor(random: () => number) {
    this.#random = random;
  }

  get archive(): Archive {
    return this.#archive!;
  }

  async live(terms = 7): Promise<this> {
    this.#archive = await createArchive(this.store);
    this.#log.append();
    for (let term = 0; term < terms; term++) {
      this.write();
      await this.ship();
      this.#shake();
    }
    this.write();
    await this.ship();
    this.#leaveOrphans();
    return this;
  }

  write(): void {
    for (let n = 2 + numbers(this.#random, 12); n > 0; n--) {
      this.#log.append({ bytes: 60 + numbers(this.#random, 120) });
      if (this.#random() < 0.15) this.#log.rotate();
    }
  }

  /** Time passes while it ships. */
  async ship(archive = this.archive): Promise<void> {
    const now = () => {
      this.nowMs += numbers(this.#random, DAY_MS / 3);
      return new Date(this.nowMs);
    };
    await shipTerm(archive, this.#source, { maxChunkBytes: 150, now });
    this.#source = openFakeSource(this.#log, { maxSliceBytes: 300 });
  }

  #shake(): void {
    const what = this.#random();
    if (what < 0.3) this.#log.truncate(Math.min(this.#log.sizeBytes - 200, 40 + numbers(this.#random, 1_200)));
    else if (what < 0.38) this.#log.reset();
    else if (what < 0.45) {
      for (let n = 0; n < 3; n++) this.#log.rotate();
      this.#log.purge(1);
    } else if (what < 0.6) this.#move();
  }

  /** The log of another server of the same replication goes on. */
  #move(): void {
    this.#log = new FakeLog({ origin: `fake-${++this.#origins}` });
    this.#log.append();
    const source = openFakeSource(this.#log, { maxSliceBytes: 300 });
    const [first] = this.#log.segments;
    const { name: segment, incarnation, startId: id } = first!;
    const at = { origin: this.#log.origin, incarnation, segment, offset: 0, id };
    const located = { result: 'move', at, allowed: true, reason: 'the other server', evidence: {} } as const;
    this.#source = { ...source, locate: async () => located };
  }

  /** What deposed masters wrote behind their seals. */
  #leaveOrphans(): void {
    for (const key of this.store.keys(`${STREAM}/terms/`)) {
      const { header } = decodeHeader(this.store.peek(key), key);
      if (header.kind !== 'seal' || header.slot < 2 || this.#random() < 0.5) continue;
      const chunk = this.store.peek(placeKey(STREAM, { ...header, slot: header.slot - 1 }));
      for (let n = 1; n < 4; n++) this.store.overwrite(placeKey(STREAM, { ...header, slot: header.slot + n }), chunk);
    }
  }
}

const rules = {
  ageMs: fc.integer({ min: 1, max: 20 * DAY_MS }),
  segments: fc.integer({ min: 1, max: 12 }),
  daily: fc.integer({ min: 1, max: 15 }),
  weekly: fc.integer({ min: 1, max: 3 }),
  monthly: fc.integer({ min: 1, max: 2 }),
};
const anyKeep = fc
  .tuple(fc.subarray(Object.keys(rules), { minLength: 1, maxLength: 2 }), fc.record(rules))
  .map(([names, all]): Keep => Object.fromEntries(Object.entries(all).filter(([name]) => names.includes(name))));

const retentionOf = (keep: Keep, nowMs: number): Retention => ({
  keep,
  now: () => new Date(nowMs),
  isCompanion: noCompanion,
});

async function pruned(archive: Archive, keep: Keep, nowMs: number, copies: readonly Archive[] = []) {
  const plan = await planPrune(archive, retentionOf(keep, nowMs), copies);
  return prune(archive, plan, { isCompanion: noCompanion, signal });
}

/** What the rules ask for, worked out from the bytes that are there. */
function askedFor(all: readonly Kept[], { ageMs, segments, daily, weekly, monthly }: Keep, nowMs: number): Kept[] {
  const oldest = (periodOf: (date: Date) => string | number, count: number | undefined) => {
    const periods = [...new Set(all.map(({ timeMs }) => String(periodOf(new Date(timeMs)))))].sort().reverse();
    const kept = new Set(count === undefined ? [] : periods.slice(0, count));
    return ({ timeMs }: Kept) => kept.has(String(periodOf(new Date(timeMs))));
  };
  const monday = (date: Date) => new Date(date.getTime() - ((date.getUTCDay() + 6) % 7) * DAY_MS);
  // By where each begins: a log that was cut back to its first event and went on has one of the same name twice.
  const starts = [...all.keys()].filter((n) => all[n - 1]?.segment !== all[n]!.segment);
  const fromNewest = (count: number) => starts.at(-count) ?? 0;
  const asking = [
    ({ timeMs }: Kept) => ageMs !== undefined && timeMs >= nowMs - ageMs,
    (_: Kept, n: number) => segments !== undefined && n >= fromNewest(segments),
    oldest((date) => date.toISOString().slice(0, 10), daily),
    oldest((date) => monday(date).toISOString().slice(0, 10), weekly),
    oldest((date) => date.toISOString().slice(0, 7), monthly),
    (_: Kept, n: number) => n >= fromNewest(1),
  ];
  return all.filter((kept, n) => asking.some((asks) => asks(kept, n)));
}

const checkDeep = (archive: Archive) => verify(new ChunkReader(archive), { deep: true, progress: silent });

/** What is there is the end of what was there, and the archive is whole. */
async function demandSuffix(archive: Archive, before: readonly Kept[]): Promise<Kept[]> {
  const after = await restorable(archive);
  expect(after).toEqual(before.slice(before.length - after.length));
  const { faults } = await checkDeep(archive);
  expect(faults.filter(({ what }) => !what.includes('nothing is between'))).toEqual([]);
  return after;
}

/** Nothing is gone but chunks below the floor or behind a seal. */
async function demandOnlyGarbageGone(
  before: MemoryStore,
  archive: Archive & { store: { keys(): string[] } },
): Promise<void> {
  const left = new Set(archive.store.keys());
  const floor = await readFloor(archive);
  const seals = new Map<number, Place>();
  const all = await readFromFloor({ ...archive, store: before }, (from) => ({
    from,
    meet: (met, { header }) => void (met === 'seal' && seals.set(header.term, header)),
  }));
  expect(all.hole).toBeNull();
  for (const key of before.keys().filter((each) => !left.has(each))) {
    const { header } = decodeHeader(before.peek(key), key);
    const place = placeOf(key)!;
    const seal = seals.get(place.term);
    expect(header.kind).toBe('chunk');
    expect(comparePlaces(place, floor) < 0 || (seal !== undefined && place.slot > seal.slot)).toBe(true);
  }
}

describe('what retention keeps', () => {
  test('is all that a rule asks for, byte for byte, and nothing but chunks below and orphans goes, over any history', async () => {
    let raised = 0;
    await fc.assert(
      fc.asyncProperty(fc.integer(), anyKeep, async (seed, keep) => {
        const past = await new Past(seededRandom(seed)).live();
        const { archive, store, nowMs } = past;
        const before = await restorable(archive);
        const was = store.copy();
        await pruned(archive, keep, nowMs);
        const after = await demandSuffix(archive, before);
        const there = new Set(after.map(({ place }) => placeText(place)));
        const wanted = askedFor(before, keep, nowMs).map(({ place }) => placeText(place));
        expect(wanted.filter((place) => !there.has(place))).toEqual([]);
        await demandOnlyGarbageGone(was, { ...archive, store });
        if (after.length < before.length) {
          raised++;
          expect(after[0]!.offset).toBe(0);
        }
        // Nothing is left that a second one would find.
        expect((await pruned(archive, keep, nowMs)).objects).toBe(0);
        past.write();
        await past.ship();
        expect((await checkDeep(archive)).faults.filter(({ what }) => !what.includes('nothing is between'))).toEqual(
          [],
        );
      }),
      // Histories of which these rules leave a part: not every one is long enough.
      {
        numRuns: 8,
        examples: [[0, { daily: 4 }], ...[1, 2, 3].map((seed): [number, Keep] => [seed, { segments: 1 }])],
      },
    );
    expect(raised).toBeGreaterThanOrEqual(3);
  });

  test('is that too after a prune that died at any moment, and was run again', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer(), fc.integer({ min: 0, max: 60 }), fc.boolean(), async (seed, step, after) => {
        const { archive, store, nowMs } = await new Past(seededRandom(seed)).live();
        const keep = { segments: 2 };
        const before = await restorable(archive);
        const whole = store.copy();
        await pruned({ ...archive, store: whole }, keep, nowMs);

        let mutations = 0;
        const dies: Faults = (operation) => {
          if (operation !== 'create' && operation !== 'delete') return undefined;
          const error = new Error('killed');
          if (mutations++ < step) return undefined;
          return mutations === step + 1 && after ? { kind: 'after', error } : { kind: 'before', error };
        };
        await pruned({ ...archive, store: new FaultyStore(store, dies) }, keep, nowMs).catch(() => {});
        await demandSuffix(archive, before);
        await pruned(archive, keep, nowMs);
        expect(store.keys()).toEqual(whole.keys());
      }),
      { numRuns: 8 },
    );
  });

  test('is read by everything that reads while it is deleted, and shipped on to', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer(), async (seed) => {
        const random = seededRandom(seed);
        const past = await new Past(random).live(5);
        const { archive, nowMs } = past;
        const late = () => (random() < 0.3 ? ({ kind: 'delay', until: turn() } as const) : undefined);
        const slow = { ...archive, store: new FaultyStore(past.store, late) };
        past.write();
        const history = async () => {
          for (let n = 0; n < 3; n++) {
            const head = await headOf(slow, await findEnd(slow, null));
            for await (const _ of head!.history());
            for await (const _ of head!.left());
          }
        };
        const [deep] = await Promise.all([
          checkDeep(slow),
          pruned(slow, { segments: 2 }, nowMs),
          past.ship(slow), // a twin takes over in the middle, and ships
          readSummary(slow, silent, { from: null, until: { kind: 'time', ms: nowMs } }, fakeFormat()),
          history(),
        ]);
        expect(deep.faults.filter(({ what }) => !what.includes('nothing is between'))).toEqual([]);
        const before = await restorable(archive);
        await pruned(archive, { segments: 2 }, past.nowMs);
        await demandSuffix(archive, before);
      }),
      { numRuns: 8 },
    );
  });

  test('a restore that reads what is deleted says so, and its plan begins again at the floor', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'shipmate-retention-'));
    try {
      const past = new Past(seededRandom(2));
      const archive = await createArchive(past.store);
      const log = new FakeLog();
      for (let n = 0; n < 60; n++) {
        if (n % 4 === 0) log.rotate();
        log.append();
      }
      await shipTerm(archive, openFakeSource(log, { maxSliceBytes: 300 }), { maxChunkBytes: 150 });
      const format = fakeFormat();
      const target = { kind: 'id', id: '0-1-52' } as const;
      let isPruned = false;
      const meanwhile: Faults = (operation, key) => {
        if (isPruned || operation !== 'read' || !key.includes('/terms/')) return undefined;
        isPruned = true;
        return { kind: 'delay', until: pruned(archive, { segments: 5 }, Date.now()) };
      };
      const during = new ChunkReader({ ...archive, store: new FaultyStore(past.store, meanwhile) });
      const asked = { format, afterGap: false, progress: silent } as const;
      const early = await planRestore({ ...asked, chunks: new ChunkReader(archive), until: { kind: 'latest' } });
      const planned = await planRestore({ ...asked, chunks: during, until: target });
      expect(isPruned).toBe(true);
      expect(planned.end.id).toBe('0-1-52');
      const options = { chunks: new ChunkReader(archive), format, progress: silent };
      await restore(planned, { ...options, directory: join(dir, 'planned') });
      await expect(restore(early, { ...options, directory: join(dir, 'early') })).rejects.toMatchObject({
        code: 'PRUNED',
      });
    } finally {
      await rm(dir, { recursive: true });
    }
  });

  test('a day, a week and a month are those of the calendar, in UTC', async () => {
    const past = new Past(seededRandom(1));
    const archive = await createArchive(past.store);
    const log = new FakeLog();
    const source = openFakeSource(log);
    const days = ['2026-03-30', '2026-04-30', '2026-05-04', '2026-05-10', '2026-05-11', '2026-05-12'];
    for (const day of days) {
      log.rotate();
      log.append();
      await shipTerm(archive, source, { now: () => new Date(`${day}T23:59:59.999Z`) });
    }
    const first = async (keep: Keep) => {
      const plan = await planPrune(archive, retentionOf(keep, Date.UTC(2026, 4, 12)), []);
      return days[log.segments.findIndex(({ name }) => name === plan.floor.position?.segment) + 1] ?? null;
    };
    expect(await first({ daily: 2 })).toBe('2026-05-11');
    expect(await first({ weekly: 1 })).toBe('2026-05-11');
    expect(await first({ weekly: 2 })).toBe('2026-05-04');
    expect(await first({ monthly: 1 })).toBe('2026-05-04');
    expect(await first({ monthly: 2 })).toBe('2026-04-30');
    expect(await first({ monthly: 2, daily: 1 })).toBe('2026-04-30');
  });
});

describe('copies', () => {
  const copyOf = async (store: MemoryStore, name = 'nas') => demandArchive(store.copy(name), STREAM);

  test('the floor never passes where a copy is', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer(), async (seed) => {
        const random = seededRandom(seed);
        const past = await new Past(random).live(4);
        const copy = await copyOf(past.store);
        past.write();
        await past.ship();
        const end = await findEnd(copy, null);
        await pruned(past.archive, { segments: 1 }, past.nowMs, [copy]);
        expect(comparePlaces(await readFloor(past.archive), end)).toBeLessThanOrEqual(0);
      }),
      { numRuns: 10 },
    );
  });

  test('deletions reach a copy after its delay, at the very floors of the primary', async () => {
    const past = await new Past(seededRandom(7)).live(6);
    const { archive } = past;
    const copy = await copyOf(past.store);
    const before = await restorable(archive);
    const start = past.nowMs;
    await pruned(archive, { segments: 3 }, start, [copy]);
    const delayMs = 15 * 60_000;
    const follow = async (nowMs: number) => {
      const plan = await planCopyPrune(copy, archive, { ...retentionOf({}, nowMs), delayMs });
      return prune(copy, plan, { isCompanion: noCompanion, signal });
    };
    expect(await follow(start + delayMs - 1)).toMatchObject({ objects: 0 });
    expect(await restorable(copy)).toEqual(before);
    expect((await follow(start + delayMs)).objects).toBeGreaterThan(0);
    expect(await restorable(copy)).toEqual(await restorable(archive));
    const floors = (store: MemoryStore) => store.keys(floorsPrefix(STREAM)).map((key) => store.peek(key).toString());
    expect(floors(copy.store as MemoryStore)).toEqual(floors(past.store));
    expect(floors(past.store).map((text) => decodeTimedFloor(Buffer.from(text), 'floor').timeMs)).toEqual([start]);
  });

  test('one that does not hold the chain is not deleted from, and holds the primary up', async () => {
    const past = await new Past(seededRandom(3)).live(6);
    const { archive, store, nowMs } = past;
    const copy = await copyOf(store);
    const lastTerm = (await findEnd(archive, null)).term;
    const memory = copy.store as MemoryStore;
    for (let term = 3; term <= lastTerm; term++) await memory.delete(memory.keys(termPrefix(STREAM, term)));
    await pruned(archive, { segments: 1 }, nowMs);
    const keys = memory.keys();
    const follow = planCopyPrune(copy, archive, { ...retentionOf({}, nowMs), delayMs: 0 });
    await expect(follow).rejects.toMatchObject({ code: 'COPY_BEHIND' });
    past.write();
    await past.ship();
    expect(await planPrune(archive, retentionOf({ segments: 1 }, past.nowMs), [copy])).toMatchObject({ create: null });
    expect(memory.keys()).toEqual(keys);
    const other = await createArchive(new MemoryStore('other'));
    await expect(planPrune(archive, retentionOf({ segments: 1 }, nowMs), [other])).rejects.toMatchObject({
      code: 'OTHER_ARCHIVE',
    });
  });
});

describe('a store that refuses to delete', () => {
  test('is told by what it says: retention is respected, a missing right is named', async () => {
    const past = await new Past(seededRandom(5)).live(6);
    const refusing = (code: string, from: number): Archive => {
      let deletions = 0;
      const error = new ShipmateError('refused', { code });
      const faults: Faults = (operation) =>
        operation === 'delete' && deletions++ >= from ? { kind: 'before', error } : undefined;
      return { ...past.archive, store: new FaultyStore(past.store, faults) };
    };
    const before = await restorable(past.archive);
    const floors = () => past.store.keys(floorsPrefix(STREAM)).length;
    await expect(pruned(refusing('STORE_DENIED', 0), { segments: 2 }, past.nowMs)).rejects.toMatchObject({
      code: 'STORE_DENIED',
    });
    expect(floors()).toBe(0); // without the right nothing is given up
    expect(await restorable(past.archive)).toEqual(before);
    const locked = await pruned(refusing('STORE_LOCKED', 3), { segments: 2 }, past.nowMs);
    expect(locked).toMatchObject({ objects: 2, refused: { denied: 0, locked: expect.any(Number) } });
    expect(locked.refused.locked).toBeGreaterThan(0);
    await demandSuffix(past.archive, before);
    expect(floors()).toBe(1);
  });
});

test('objects that are missing keep everything else', async () => {
  const past = await new Past(seededRandom(11)).live(5);
  const { term } = await findEnd(past.archive, null);
  const [, , gone] = past.store.keys(termPrefix(STREAM, term - 1));
  await past.store.delete([gone!]);
  const keys = past.store.keys();
  await expect(pruned(past.archive, { segments: 1 }, past.nowMs)).rejects.toThrow(placeText(placeOf(gone!)!));
  expect(past.store.keys()).toEqual(keys);
});

test('an archive of any number of chunks takes no memory for each of them', () => {
  setFlagsFromString('--expose-gc');
  const collectGarbage: () => void = runInNewContext('gc');
  const heapBytes = () => {
    collectGarbage();
    return process.memoryUsage().heapUsed;
  };
  const start = { ...chainStart(info), slot: 1 };
  const past = new PastLog(start, noCompanion);
  const before = heapBytes();
  for (let n = 0; n < 200_000; n++) {
    const header = { ...chunkAt({ ...start, slot: n + 1 }, n), witness: `witness of ${n}` };
    past.meet('chunk', { header, digest: `digest of ${n}`, payloadOffset: 0 }, { ...start, slot: n + 2 });
  }
  expect((heapBytes() - before) / 200_000).toBeLessThan(50);
  expect(past.parts().filter(({ living }) => living)).toMatchObject([{ segment: 's.1', start: { slot: 1 } }]);
});
