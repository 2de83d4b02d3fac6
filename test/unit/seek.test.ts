import { setImmediate as turn } from 'node:timers/promises';
import { beforeEach, describe, expect, jest, test } from '@jest/globals';
import fc from 'fast-check';
import { type Reading, readFromFloor } from '../../src/archive/reader.ts';
import { type Range, seek } from '../../src/archive/seek.ts';
import type { Archive } from '../../src/archive/walk.ts';
import { placeKey, placeText } from '../../src/core/keys.ts';
import type { Position } from '../../src/core/position.ts';
import type { Piece, Run } from '../../src/core/ranges.ts';
import { ChainSummary, demandArchive } from '../../src/restore/reading.ts';
import type { LogFormat, LogSource, Until } from '../../src/source/source.ts';
import { fakeFormat, writeMs } from '../fakes/fake-format.ts';
import { FakeLog } from '../fakes/fake-log.ts';
import { openFakeSource } from '../fakes/fake-source.ts';
import { FaultyStore } from '../fakes/faulty-store.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { createArchive, shipTerm } from '../helpers/shipped-archive.ts';
import { CRASH_POINTS, World } from '../helpers/world.ts';

const format = fakeFormat();
const covers = (id: string, target: string) => format.covers!(id, target);

const readAll = (archive: Archive) => readFromFloor(archive, (from) => new ChainSummary(from));

/** Reads the range only; `found` tells whether that took a seek, not a walk over everything. */
async function readRange(archive: Archive, range: Range, { format: by = format } = {}) {
  let found = false;
  const reading = await readFromFloor(
    archive,
    (from) => new ChainSummary(from),
    async (floor) => {
      const stretch = await seek({ archive, floor, range, format: by, marginChunks: 0 });
      found = stretch !== null;
      return stretch;
    },
  );
  return { reading, found };
}

interface FlatPiece extends Piece {
  readonly run: number;
  readonly segment: string;
}

/** Pieces in order, with what surrounds them, but for the first run's gap: nothing before it was read. */
function flat(runs: readonly Run[]): FlatPiece[] {
  return runs.flatMap(({ segments }, run) =>
    segments.flatMap(({ pieces, name, incarnation }) =>
      pieces.map((piece) => ({ ...piece, run, segment: `${name} ${incarnation}` })),
    ),
  );
}

/** What the range needs is there, and what is there is what a walk over everything gives, piece by piece. */
function compare(whole: Reading<ChainSummary>, part: Reading<ChainSummary>, { from, until }: Range): void {
  const all = flat(whole.reader.living.runs);
  const some = flat(part.reader.living.runs);
  if (all.length === 0) {
    expect(some).toEqual([]);
    return;
  }
  const first = all.findIndex(({ place }) => placeText(place) === placeText(some[0]!.place));
  const renumbered = all
    .slice(first, first + some.length)
    .map((piece) => ({ ...piece, run: piece.run - all[first]!.run }));
  expect(some).toEqual(renumbered);
  const ofRuns = (runs: readonly Run[]) => runs.map(({ origin, until: to, afterGap }) => ({ origin, to, afterGap }));
  const seen = ofRuns(part.reader.living.runs).slice(1);
  expect(seen).toEqual(ofRuns(whole.reader.living.runs).slice(all[first]!.run + 1, all[first]!.run + 1 + seen.length));

  expect(first === 0 || some[0]!.offset === 0).toBe(true);
  for (const { toId } of all.slice(0, first)) expect(toId === null || covers(from!, toId)).toBe(true);
  if (!part.goesOn) {
    expect(first + some.length).toBe(all.length);
    expect(part.end).toMatchObject({ term: whole.end.term, slot: whole.end.slot, digest: whole.end.digest });
    expect(part.hole).toEqual(whole.hole);
  } else {
    expect(some.some((piece) => isBeyond(piece, until))).toBe(true);
  }
}

function isBeyond({ toId, firstEventMs, lastEventMs }: Piece, until: Until): boolean {
  if (until.kind === 'id') return toId !== null && covers(toId, until.id);
  return until.kind === 'time' && Math.max(firstEventMs ?? 0, lastEventMs ?? 0) > until.ms;
}

const numbers = (random: () => number, below: number) => Math.floor(random() * below);

/** Ranges all over a log of some 150 transactions, some of them beyond it. */
function* ranges(random: () => number, count: number): Generator<Range> {
  for (let n = 0; n < count; n++) {
    const low = 1 + numbers(random, 150);
    const from = random() < 0.2 ? null : `0-1-${low}`;
    const kind = random();
    if (kind < 0.2) yield { from, until: { kind: 'latest' } };
    else if (kind < 0.6) yield { from, until: { kind: 'id', id: `0-1-${low + numbers(random, 40)}` } };
    else yield { from, until: { kind: 'time', ms: writeMs(numbers(random, 300)) + 1 } };
  }
}

/** A log's life over some terms, as the source locates each: crashes, restarts of the log, gaps. */
async function shipHistory(random: () => number, archive: Archive): Promise<void> {
  const log = new FakeLog();
  const source = openFakeSource(log, { maxSliceBytes: 300 });
  log.append();
  for (let term = 0; term < 8; term++) {
    for (let n = 2 + numbers(random, 25); n > 0; n--) {
      log.append({ bytes: 60 + numbers(random, 120) });
      if (random() < 0.08) log.rotate();
    }
    await shipTerm(archive, source, { maxChunkBytes: 150 });
    const what = random();
    if (what < 0.35) log.truncate(Math.min(log.sizeBytes - 200, 40 + numbers(random, 1500)));
    else if (what < 0.42) log.reset();
    else if (what < 0.5) {
      for (let n = 0; n < 3; n++) log.rotate();
      log.purge(1);
    }
  }
}

describe('a range of the archive', () => {
  jest.setTimeout(60_000);

  test('is what a walk over everything gives, whatever crashes, restarts and gaps the log had', async () => {
    const found = { sought: 0, all: 0 };
    await fc.assert(
      fc.asyncProperty(fc.integer(), async (seed) => {
        const random = randomFrom(seed);
        const archive = await createArchive(new MemoryStore());
        await shipHistory(random, archive);
        await compareRanges(random, archive, found);
      }),
      { numRuns: 6, interruptAfterTimeLimit: 30_000 },
    );
    // Many of these logs began anew: then a range from an ID on takes a walk.
    expect(found.sought).toBeGreaterThan(found.all * 0.05);
  });

  test('is that also while daemons depose each other, objects land late, and retention deletes', async () => {
    const found = { sought: 0, all: 0 };
    await fc.assert(
      fc.asyncProperty(fc.integer(), async (seed) => {
        const random = randomFrom(seed);
        for await (const store of livesOf(random)) {
          await compareRanges(random, await demandArchive(store, 'orders'), found);
        }
      }),
      { numRuns: 10, interruptAfterTimeLimit: 30_000 },
    );
    expect(found.sought).toBeGreaterThan(found.all * 0.75);
  });
});

/** States of a store that several daemons write to at once. */
async function* livesOf(random: () => number): AsyncGenerator<MemoryStore> {
  const world = new World({ random, window: 1 + numbers(random, 4), faultRate: random() < 0.5 ? 0 : 0.3 });
  const leases: AbortController[] = [];
  const reigns: Promise<void>[] = [];
  world.log.append();
  for (let n = 0; n < 60; n++) {
    const what = random();
    if (what < 0.12) {
      if (random() < 0.5) leases.at(-1)?.abort(new Error('lease lost'));
      const lease = new AbortController();
      leases.push(lease);
      const crashAt = random() < 0.2 ? CRASH_POINTS[numbers(random, CRASH_POINTS.length)]! : null;
      reigns.push(world.elect(lease.signal, crashAt));
    } else if (what < 0.7) world.log.append({ bytes: 60 + numbers(random, 400) });
    else if (what < 0.76) world.log.rotate();
    else if (what < 0.8) await world.raiseFloor();
    else if (what < 0.9) world.landOne();
    for (let turns = numbers(random, 8); turns > 0; turns--) await turn();
    if (n % 20 === 19) yield world.store.copy();
  }
  for (const lease of leases) lease.abort(new Error('over'));
  await world.finish();
  await Promise.all(reigns);
  yield world.store.copy();
}

/** Fewer pieces than this are read as soon as looked for. */
const WORTH_SEEKING_PIECES = 10;

/** Compares ranges all over an archive that nobody writes to; counts those that were sought where that is worth it. */
async function compareRanges(random: () => number, archive: Archive, found: { sought: number; all: number }) {
  const whole = await readAll(archive);
  const isWorthIt = flat(whole.reader.living.runs).length >= WORTH_SEEKING_PIECES;
  for (const range of ranges(random, 25)) {
    const part = await readRange(archive, range);
    compare(whole, part.reading, range);
    if (!isWorthIt) continue;
    found.all++;
    if (part.found) found.sought++;
  }
}

describe('seeking in a long archive', () => {
  const CHUNKS = 3_000;
  let memory: MemoryStore;
  let archive: Archive;
  let requests: string[];

  beforeEach(async () => {
    memory = new MemoryStore();
    const log = new FakeLog();
    const source = openFakeSource(log, { maxSliceBytes: 300 });
    archive = await createArchive(memory);
    for (let term = 0; term < 6; term++) {
      for (let n = 0; n < CHUNKS / 6; n++) {
        log.append({ bytes: 60 });
        if (n % 50 === 0) log.rotate();
      }
      await shipTerm(archive, source, { maxChunkBytes: 60 });
    }
    requests = [];
    const counting = new FaultyStore(memory, (operation, key) => void requests.push(`${operation} ${key}`));
    archive = { store: counting, info: archive.info };
  });

  const id = (n: number): Range['until'] => ({ kind: 'id', id: `0-1-${n}` });

  test('reads the headers of what is wanted and a few more, and lists no more than terms', async () => {
    const range = { from: '0-1-1520', until: id(1540) };
    const { reading, found } = await readRange(archive, range);
    expect(found).toBe(true);
    const pieces = flat(reading.reader.living.runs).length;
    expect(pieces).toBeLessThan(150);
    expect(requests.length).toBeLessThan(pieces + 250);
    expect(
      requests.filter((request) => request.startsWith('list')).every((request) => /(floors|terms)\/$/.test(request)),
    ).toBe(true);
    compare(await readAll({ ...archive, store: memory }), reading, range);
  });

  test('reads nothing between the target and the end, and up to the end where the target is not in the archive', async () => {
    const { reading } = await readRange(archive, { from: '0-1-1520', until: id(1540) });
    expect(reading.goesOn).toBe(true);
    expect(reading.end.slot).toBeLessThan(60);
    const beyond = await readRange(archive, { from: '0-1-2900', until: id(9_999) });
    expect(beyond.reading).toMatchObject({ goesOn: false, hole: null });
    expect(beyond.found).toBe(true);
  });

  test('finds a hole in what is wanted, not one before it', async () => {
    const place = { term: 5, slot: 40 };
    await memory.delete([placeKey('orders', place), placeKey('orders', { term: 2, slot: 7 })]);
    const { reading } = await readRange(archive, { from: '0-1-1500', until: id(1700) });
    expect(reading.hole).toMatchObject({ at: place, next: { term: 5, slot: 41 } });
  });

  test('walks over everything where what it looks at is damaged or not the owner’s, and says what that says', async () => {
    const opening = placeKey('orders', { term: 5, slot: 0 });
    memory.overwrite(opening, Buffer.from('not ours'));
    await expect(readRange(archive, { from: '0-1-1500', until: id(1510) })).rejects.toMatchObject({
      code: 'BAD_OBJECT',
    });
  });
});

describe('a fork to another server’s log, which begins inside a file', () => {
  const withStart: LogFormat = { ...format, fileStart: ({ fileStart }) => (fileStart ? Buffer.from('start') : null) };

  test('is found in the log that counts: up to the common point in the old one, then in the new one', async () => {
    const archive = await createArchive(new MemoryStore());
    const [old, other] = [new FakeLog(), new FakeLog({ origin: 'fake-2' })];
    for (let n = 0; n < 60; n++) old.append();
    await shipTerm(archive, openFakeSource(old, { maxSliceBytes: 300 }), { maxChunkBytes: 150 });
    for (let n = 0; n < 90; n++) other.append();
    const place = (log: FakeLog, transaction: number): Position => {
      const { name, incarnation, boundaries } = log.segments[0]!;
      const { offset, id } = boundaries.find((boundary) => boundary.id === `0-1-${transaction}`)!;
      return { origin: log.origin, segment: name, incarnation, offset, id };
    };
    const located = { result: 'fork', allowed: true, reason: 'a test', evidence: { fileStart: 'here' } } as const;
    const fork: LogSource = {
      ...openFakeSource(other, { maxSliceBytes: 300 }),
      locate: async () => ({ ...located, at: place(other, 38), common: place(old, 40) }),
    };
    await shipTerm(archive, fork, { maxChunkBytes: 150 });

    const whole = flat((await readAll(archive)).reader.living.runs);
    for (const [from, until, origins] of [
      [10, 20, [0]],
      [10, 50, [0, 1]],
      [45, 50, [1]],
      [39, 39, [0]],
    ] as const) {
      const range: Range = { from: `0-1-${from}`, until: { kind: 'id', id: `0-1-${until}` } };
      const { reading, found } = await readRange(archive, range, { format: withStart });
      expect(found).toBe(true);
      const part = flat(reading.reader.living.runs);
      const first = whole.findIndex(({ digest }) => digest === part[0]!.digest);
      expect(part.map(({ digest, length }) => ({ digest, length }))).toEqual(
        whole.slice(first, first + part.length).map(({ digest, length }) => ({ digest, length })),
      );
      const ofRun = (run: number) =>
        part.some(({ digest }) => whole.find((piece) => piece.digest === digest)!.run === run);
      for (const origin of origins) expect(ofRun(origin)).toBe(true);
      if (from === 45)
        expect(reading.reader.living.runs[0]!.segments[0]!.evidence).toMatchObject({ fileStart: 'here' });
    }
  });
});

function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
