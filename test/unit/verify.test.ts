import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { newClaim } from '../../src/archive/takeover.ts';
import type { Archive } from '../../src/archive/walk.ts';
import { decodeHeader, encodeHeader, type Header } from '../../src/core/header.ts';
import { placeKey, termPrefix, termsPrefix } from '../../src/core/keys.ts';
import { ArchiveNotWhole } from '../../src/errors.ts';
import { ChunkReader } from '../../src/restore/chunks.ts';
import { listArchive } from '../../src/restore/listing.ts';
import { silent } from '../../src/restore/progress.ts';
import { type ProofNote, proofNote } from '../../src/restore/proof-note.ts';
import { demandArchive } from '../../src/restore/reading.ts';
import { type Verification, verify } from '../../src/restore/verify.ts';
import type { LogSource } from '../../src/source/source.ts';
import { FakeLog } from '../fakes/fake-log.ts';
import { openFakeSource } from '../fakes/fake-source.ts';
import { FaultyStore } from '../fakes/faulty-store.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { createArchive, shipTerm } from '../helpers/shipped-archive.ts';
import { until } from '../helpers/wait.ts';

const STREAM = 'orders';

let store: MemoryStore;
let archive: Archive;
let log: FakeLog;

const ship = () => shipTerm(archive, openFakeSource(log, { maxSliceBytes: 300 }));
const check = (deep = false): Promise<Verification> => verify(new ChunkReader(archive), { deep, progress: silent });
const key = (term: number, slot: number) => placeKey(STREAM, { term, slot });
const headerAt = (place: string) => decodeHeader(store.peek(place), place);
const inTerm = (term: number) => store.keys(termPrefix(STREAM, term));

function fill(transactions = 20): void {
  for (let i = 0; i < transactions; i++) log.append({ bytes: 300 });
}

function damagePayload(object: string): void {
  const bytes = Buffer.from(store.peek(object));
  bytes[bytes.length - 5]! ^= 1;
  store.overwrite(object, bytes);
}

/** The object with another header, all else as it was. */
function rewrite(object: string, change: (header: Header) => Header): void {
  const { header, payloadOffset } = headerAt(object);
  const { frame } = encodeHeader(change(header));
  store.overwrite(object, Buffer.concat([frame, store.peek(object).subarray(payloadOffset)]));
}

/** Three terms that hold bytes (2, 3 and 4; whoever made the archive never opened term 1), the last one open. */
beforeEach(async () => {
  store = new MemoryStore('main');
  archive = await createArchive(store, STREAM);
  log = new FakeLog();
  for (let term = 0; term < 3; term++) {
    fill();
    await ship();
  }
});

describe('a whole archive', () => {
  test('has no faults, open term and all', async () => {
    const found = await check(true);
    expect(found).toMatchObject({ faults: [], warnings: [], terms: 4, open: true, orphans: 0, bytes: log.sizeBytes });
    expect(found.chunks).toBe(store.keys(termsPrefix(STREAM)).length - 3 - 3); // less openings and seals
    expect(found.end).toEqual({ id: '0-1-60', timeMs: log.segments[0]!.boundaries.at(-1)!.ms });
  });

  test('what a deposed master wrote behind its seal is counted, and no fault', async () => {
    const last = inTerm(2).length - 1;
    for (let slot = last + 1; slot < last + 4; slot++) {
      store.overwrite(key(2, slot), store.peek(key(2, last - 1)));
    }
    expect(await check(true)).toMatchObject({ faults: [], warnings: [], orphans: 3 });
  });

  test('uploads in flight above an empty slot are no fault', async () => {
    const first = inTerm(4).length;
    store.overwrite(key(4, first + 2), store.peek(key(4, first - 1)));
    expect(await check(true)).toMatchObject({ faults: [], orphans: 0 });
  });

  test('goes on being written while it is checked', async () => {
    let writing: Promise<unknown> | null = null;
    const busy = new FaultyStore(store, (operation) => {
      if (operation === 'list' && writing === null) {
        fill();
        writing = ship();
      }
      return undefined;
    });
    expect(await verify(new ChunkReader({ ...archive, store: busy }), { deep: true, progress: silent })).toMatchObject({
      faults: [],
    });
    await writing;
  });

  test('a gap that was accepted is a warning', async () => {
    log.append();
    log.rotate();
    log.rotate();
    log.purge();
    await ship();
    expect(await check()).toMatchObject({
      faults: [],
      warnings: [{ object: key(5, 0), what: expect.stringContaining('gap that was accepted, between log.000001:') }],
    });
  });

  test('a stranger’s object is a warning, and hides the rest of its term', async () => {
    const end = inTerm(4).length;
    store.overwrite(key(4, end), store.peek(key(4, end - 1)));
    rewrite(key(4, end), (header) => ({ ...header, slot: end, claim: newClaim(), node: 'elsewhere' }));
    store.overwrite(key(4, end + 1), store.peek(inTerm(3).at(-1)!));
    const stray = { term: 4, slot: end + 1, claim: newClaim(), archive: 'another' };
    rewrite(key(4, end + 1), (header) => ({ ...header, ...stray }));
    expect(await check()).toMatchObject({
      faults: [],
      warnings: [
        { object: key(4, end), what: expect.stringContaining('by node elsewhere') },
        { object: key(4, end + 1), what: expect.stringContaining('by node') },
      ],
    });
  });
});

describe('near the end of an open term', () => {
  /** A term whose chunks were shipped one after the other, so that each says that the one before was durable. */
  beforeEach(async () => {
    fill(4);
    await shipTerm(archive, oneByOne(openFakeSource(log, { maxSliceBytes: 300 })));
    expect(inTerm(5)).toHaveLength(5);
  });

  const oneByOne = (source: LogSource): LogSource => ({
    ...source,
    async *read(from, signal) {
      for await (const slice of source.read(from, signal)) {
        const before = inTerm(5).length;
        yield slice;
        await until('it is settled', () => inTerm(5).length > before);
      }
    },
  });
  const lost = { object: key(5, 2), what: 'is missing, although term 5, slot 3 is there' };

  test('a chunk is lost that a later one says was durable', async () => {
    await store.delete([key(5, 2)]);
    expect(await check(true)).toMatchObject({ faults: [lost], warnings: [] });
    expect((await listArchive(archive, silent)).hole).toEqual({ at: { term: 5, slot: 2 }, next: { term: 5, slot: 3 } });
  });

  test('so it is where something else stands in its place', async () => {
    rewrite(key(5, 2), (header) => ({ ...header, archive: 'another' }));
    expect(await check(true)).toMatchObject({
      faults: [lost],
      warnings: [2, 3, 4].map((slot) => ({ object: key(5, slot) })),
    });
  });
});

describe('faults', () => {
  test('every damaged payload is named, not only the first', async () => {
    const damaged = [key(2, 3), key(2, 4), key(3, 7), key(4, 2)];
    damaged.forEach(damagePayload);
    store.overwrite(key(3, 2), store.peek(key(3, 2)).subarray(0, -1));
    expect((await check()).faults).toEqual([]);
    const { faults } = await check(true);
    expect(faults.map(({ object }) => object).sort()).toEqual([...damaged, key(3, 2)].sort());
    expect(faults[0]!.what).toMatch(/^is damaged: the SHA-256/);
  });

  test.each([
    ['in a sealed term', 2, 5],
    ['right after an opening', 3, 1],
    ['right before a seal', 3, -2],
    ['far from the end of the open term', 4, 3],
  ])('a chunk that is missing %s', async (_, term, at) => {
    const object = inTerm(term).at(at)!;
    await store.delete([object]);
    const { faults } = await check(true);
    expect(faults).toEqual([
      { object, what: expect.stringMatching(/^is missing, although term \d, slot \d+ is there$/) },
    ]);
  });

  test('an opening or a seal that is missing', async () => {
    const missing = [inTerm(2).at(-1)!, key(4, 0)];
    await store.delete(missing);
    const { faults } = await check();
    expect(faults.map(({ object }) => object)).toEqual(missing);
    expect(faults.every(({ what }) => what.startsWith('is missing'))).toBe(true);
  });

  test('one fault hides no other, whatever their kinds', async () => {
    store.overwrite(key(2, 3), Buffer.from('not an object of ours'));
    store.overwrite(key(2, 4), Buffer.alloc(0));
    rewrite(key(2, 9), (header) => ({ ...header, time: 'changed' }));
    await store.delete([key(3, 5), key(3, 6)]);
    damagePayload(key(3, 8));
    damagePayload(key(4, 8));
    const { faults } = await check(true);
    expect(faults.map(({ object, what }) => [object, what.slice(0, 20)])).toEqual([
      [key(2, 3), "can't be read as par"],
      [key(2, 4), "can't be read as par"],
      [key(2, 10), 'does not name the di'],
      [key(3, 5), 'is missing, although'],
      [key(3, 8), expect.stringContaining('is damaged')],
      [key(4, 8), expect.stringContaining('is damaged')],
    ]);
  });

  test('what is written behind one while it is looked for is not missing', async () => {
    const damaged = key(3, 2);
    store.overwrite(damaged, Buffer.from('not an object of ours'));
    const behind = key(3, 3);
    const bytes = store.peek(behind);
    await store.delete([behind]);
    let wasLookedFor = false;
    const busy = new FaultyStore(store, (operation, object) => {
      if (operation === 'head' && object === behind) wasLookedFor = true;
      if (operation === 'list' && wasLookedFor) store.overwrite(behind, bytes);
      return undefined;
    });
    const { faults } = await verify(new ChunkReader({ ...archive, store: busy }), { deep: false, progress: silent });
    expect(faults.map(({ object }) => object)).toEqual([damaged]);
  });

  test('a seal that can’t be read', async () => {
    const seal = inTerm(3).at(-1)!;
    store.overwrite(seal, Buffer.from('garbage garbage'));
    expect((await check(true)).faults).toEqual([{ object: seal, what: expect.stringContaining("can't be read") }]);
  });

  test('a chunk whose positions do not agree with its length', async () => {
    const last = inTerm(4).at(-1)!;
    rewrite(last, (header) => (header.kind === 'chunk' ? { ...header, length: header.length + 1 } : header));
    expect((await check()).faults).toEqual([{ object: last, what: expect.stringContaining('says that it has') }]);
  });

  test('a term that does not go on where the one before ended', async () => {
    const last = inTerm(4).length - 1;
    for (let slot = last; slot > 0; slot--) await store.delete([key(4, slot)]);
    rewrite(key(4, 0), (header) =>
      header.kind === 'opening' ? { ...header, at: { ...header.at!, offset: header.at!.offset + 100 } } : header,
    );
    expect((await check()).faults).toEqual([
      { object: key(4, 0), what: expect.stringContaining('does not go on where the archive ended') },
    ]);
  });

  test('a stream.json that can’t be read, or is another stream’s', async () => {
    store.overwrite('billing/stream.json', store.peek('orders/stream.json'));
    await expect(demandArchive(store, 'billing')).rejects.toBeInstanceOf(ArchiveNotWhole);
    store.overwrite('orders/stream.json', Buffer.from('{'));
    await expect(demandArchive(store, STREAM)).rejects.toBeInstanceOf(ArchiveNotWhole);
    await expect(demandArchive(store, 'nothing')).rejects.toMatchObject({ code: 'NO_ARCHIVE' });
  });
});

test('a store that does not answer is no fault of the archive', async () => {
  const down = new FaultyStore(store, (operation) => (operation === 'read' ? { kind: 'before' } : undefined));
  const failure = verify(new ChunkReader({ ...archive, store: down }), { deep: true, progress: silent });
  await expect(failure).rejects.toMatchObject({ code: 'STORE_FAILED' });
});

describe('a deep look that is interrupted', () => {
  let directory: string;
  const noteOf = (...of: string[]) => proofNote({ of: [STREAM, ...of], directory });
  const look = (from: Archive, note: ProofNote) =>
    verify(new ChunkReader(from), { deep: true, progress: silent, note });
  const chunkKeys = () => store.keys(termsPrefix(STREAM)).filter((each) => headerAt(each).header.kind === 'chunk');

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'shipmate-verify-'));
  });
  afterEach(() => rm(directory, { recursive: true }));

  /** Reads payloads until the store fails; returns which were read. */
  async function interrupted(note: ProofNote, most = 20): Promise<Set<string>> {
    const read = new Set<string>();
    const failing = new FaultyStore(store, (operation, object) => {
      if (operation !== 'read' || !object.includes('/terms/')) return undefined;
      if (read.size >= most) return { kind: 'before' };
      read.add(object);
      return undefined;
    });
    await expect(look({ ...archive, store: failing }, note)).rejects.toMatchObject({ code: 'STORE_FAILED' });
    return read;
  }

  async function goesOn(note: ProofNote): Promise<{ found: Verification; read: string[] }> {
    const read: string[] = [];
    const counting = new FaultyStore(store, (operation, object) => {
      if (operation === 'read' && object.includes('/terms/')) read.push(object);
      return undefined;
    });
    return { found: await look({ ...archive, store: counting }, note), read };
  }

  test('goes on where it was, and looks again at what was damaged', async () => {
    const all = chunkKeys();
    const [, damaged, mended] = all;
    for (const object of [damaged!, mended!]) damagePayload(object);
    await interrupted(noteOf());
    damagePayload(mended!); // back to what it was
    const { found, read } = await goesOn(noteOf());
    expect(found.faults.map(({ object }) => object)).toEqual([damaged]);
    expect(found.provenBefore).toBeGreaterThan(5);
    expect(read).toEqual(expect.arrayContaining([damaged, mended, ...all.slice(20)]));
    expect(read).toHaveLength(all.length - found.provenBefore);
    // It came to its end: the next one begins anew.
    expect((await goesOn(noteOf())).read).toHaveLength(all.length);
  });

  test('has not been there where the archive is another one, or was, or it was long ago', async () => {
    const all = chunkKeys();
    await interrupted(noteOf());
    expect((await goesOn(noteOf('elsewhere'))).read).toHaveLength(all.length);
    const late = proofNote({ of: [STREAM], directory, nowMs: () => Date.now() + 8 * 86_400_000 });
    expect((await goesOn(late)).read).toHaveLength(all.length);
    await interrupted(noteOf());
    await writeFile(join(directory, (await readdir(directory))[0]!), '{');
    expect((await goesOn(noteOf())).read).toHaveLength(all.length);
  });
});
