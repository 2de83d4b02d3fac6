import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { Archive } from '../../src/archive/walk.ts';
import { decodeHeader } from '../../src/core/header.ts';
import { termsPrefix } from '../../src/core/keys.ts';
import { ArchiveNotWhole, Discontinuity, UsageError } from '../../src/errors.ts';
import { ChunkReader } from '../../src/restore/chunks.ts';
import { planRestore, type RestorePlan } from '../../src/restore/plan.ts';
import { silent } from '../../src/restore/progress.ts';
import { restore } from '../../src/restore/restore.ts';
import type { LogFormat, Until } from '../../src/source/source.ts';
import { fakeFormat, writeMs } from '../fakes/fake-format.ts';
import { FakeLog } from '../fakes/fake-log.ts';
import { openFakeSource } from '../fakes/fake-source.ts';
import { FaultyStore } from '../fakes/faulty-store.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { createArchive, shipTerm } from '../helpers/shipped-archive.ts';

const STREAM = 'orders';
const latest: Until = { kind: 'latest' };

let dir: string;
let store: MemoryStore;
let archive: Archive;
let log: FakeLog;

beforeEach(async () => {
  dir = join(await mkdtemp(join(tmpdir(), 'shipmate-restore-')), 'restored');
  store = new MemoryStore('main');
  archive = await createArchive(store, STREAM);
  log = new FakeLog();
  log.append();
});

afterEach(() => rm(join(dir, '..'), { recursive: true }));

const ship = (maxSliceBytes = 300) => shipTerm(archive, openFakeSource(log, { maxSliceBytes }));

interface Asked {
  until?: Until;
  afterGap?: boolean;
  format?: LogFormat;
  from?: Archive;
  into?: string;
}

async function plan({ until = latest, afterGap = false, format = fakeFormat(), from = archive }: Asked = {}) {
  return planRestore({ chunks: new ChunkReader(from), format, until, afterGap, progress: silent });
}

/** Returns the plan and how many bytes were written. */
async function restored(asked: Asked = {}): Promise<{ plan: RestorePlan; wroteBytes: number }> {
  const { format = fakeFormat(), from = archive, into = dir } = asked;
  const planned = await plan(asked);
  const wroteBytes = await restore(planned, {
    chunks: new ChunkReader(from),
    format,
    directory: into,
    progress: silent,
  });
  return { plan: planned, wroteBytes };
}

/** Files below the directory, by their paths in it. */
async function files(below = dir): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const entry of await readdir(below, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    found.set(path.slice(below.length + 1), await readFile(path, 'latin1'));
  }
  return new Map([...found].sort());
}

/** As a user whose rights count, who owns the directory and the one above it. */
async function asNobody(directory: string, work: () => Promise<void>): Promise<void> {
  const NOBODY = 65_534;
  if (process.geteuid?.() !== 0) return work();
  for (const path of [directory, join(directory, '..')]) await chown(path, NOBODY, NOBODY);
  process.seteuid?.(NOBODY);
  await work().finally(() => process.seteuid?.(0));
}

/** What the log's files are, and the index beside them. */
function expected(of: FakeLog = log): Map<string, string> {
  const contents = [...of.contents()].map(([name, bytes]): [string, string] => [name, bytes.toString('latin1')]);
  return new Map(
    [['log.index', contents.map(([name]) => `./${name}\n`).join('')], ...contents].sort() as [string, string][],
  );
}

function chunkKeys(): string[] {
  return store.keys(termsPrefix(STREAM)).filter((key) => decodeHeader(store.peek(key), key).header.kind === 'chunk');
}

function shippedBytes(origin: string): number {
  return chunkKeys()
    .map((key) => decodeHeader(store.peek(key), key).header)
    .reduce((sum, header) => (header.kind === 'chunk' && header.from.origin === origin ? sum + header.length : sum), 0);
}

function fill(transactions = 20): void {
  for (let i = 0; i < transactions; i++) {
    log.append({ bytes: 60 + ((i * 37) % 200) });
    if (i % 7 === 6) log.rotate();
  }
}

describe('restoring everything', () => {
  test('gives back every file byte for byte, over any number of terms', async () => {
    for (let term = 0; term < 4; term++) {
      fill(9);
      await ship();
    }
    const { plan: planned } = await restored();
    expect(await files()).toEqual(expected());
    expect(planned).toMatchObject({ bytes: log.sizeBytes, end: { id: '0-1-37' }, beyondArchive: false });
  });

  test('keeps a transaction whose end is not shipped yet: the files are the server’s', async () => {
    await ship();
    log.append({ bytes: 5000 });
    await ship(300);
    await restored();
    expect(await files()).toEqual(expected());
  });

  test('leaves out what a crash took back', async () => {
    fill();
    await ship();
    log.truncate(900);
    fill(5);
    await ship();
    await restored();
    expect(await files()).toEqual(expected());
  });

  test('writes one directory a run once the log was started again', async () => {
    fill();
    await ship();
    const before = expected();
    log.reset();
    fill(8);
    await ship();
    const { plan: planned } = await restored();
    const found = await files();
    const of = (directory: string) =>
      new Map(
        [...found].filter(([path]) => path.startsWith(`${directory}/`)).map(([path, text]) => [path.slice(10), text]),
      );
    expect(planned.runs.map(({ directory }) => directory)).toEqual(['01-fake-1', '02-fake-1']);
    expect(of('01-fake-1')).toEqual(before);
    expect(of('02-fake-1')).toEqual(expected());
    expect(found.size).toBe(of('01-fake-1').size + of('02-fake-1').size);
  });

  test('works while a daemon writes', async () => {
    await ship();
    const planned = await plan();
    const atPlanning = expected();
    log.append();
    await ship();
    await restore(planned, {
      chunks: new ChunkReader(archive),
      format: fakeFormat(),
      directory: dir,
      progress: silent,
    });
    expect(await files()).toEqual(atPlanning);
  });

  test('what follows a gap is not asked for where there is none', async () => {
    await ship();
    await expect(plan({ afterGap: true })).rejects.toBeInstanceOf(UsageError);
  });

  test('an archive without a byte is told from an empty log', async () => {
    await expect(plan()).rejects.toMatchObject({ code: 'NOTHING_SHIPPED' });
  });
});

describe('restoring up to a target', () => {
  beforeEach(async () => {
    fill(30);
    await ship();
    log.truncate(100);
    fill(3);
    await ship();
  });

  /** The log as it was right after the last of its first writes that all `belong`. */
  function cutAt(belongs: (boundary: { id: string; ms: number }) => boolean): Map<string, string> {
    const kept = new Map<string, string>();
    for (const segment of log.segments) {
      const past = segment.boundaries.findIndex((boundary) => !belongs(boundary));
      const end = past === -1 ? segment.bytes.length : (segment.boundaries[past - 1]?.offset ?? 0);
      if (end > 0) kept.set(segment.name, segment.bytes.toString('latin1', 0, end));
      if (past !== -1) break;
    }
    return new Map(
      [['log.index', [...kept.keys()].map((name) => `./${name}\n`).join('')], ...kept].sort() as [string, string][],
    );
  }

  test.each([
    ['told apart by the format', true],
    ['scanned from the start', false],
  ])('an ID is included, and nothing after it (segments %s)', async (_, covers) => {
    for (const target of [1, 6, 7, 8, 15, 22, 31]) {
      const into = join(dir, String(target));
      const { plan: planned } = await restored({
        until: { kind: 'id', id: `0-1-${target}` },
        format: fakeFormat({ covers }),
        into,
      });
      let found = false;
      const upToTarget = ({ id }: { id: string }) => {
        const belongs = !found;
        found ||= id === `0-1-${target}`;
        return belongs;
      };
      expect(await files(into)).toEqual(cutAt(upToTarget));
      expect(planned.end.id).toBe(`0-1-${target}`);
    }
  });

  test('a time is included, and nothing after it', async () => {
    const times = log.segments.flatMap(({ boundaries }) => boundaries.map(({ ms }) => ms));
    for (const ms of [times[3]!, times[9]! + 500, times.at(-2)!]) {
      const into = join(dir, String(ms));
      const { plan: planned } = await restored({ until: { kind: 'time', ms }, into });
      expect(await files(into)).toEqual(cutAt((boundary) => boundary.ms <= ms));
      expect(planned.beyondArchive).toBe(false);
    }
  });

  test('a time after all events restores everything, and says so', async () => {
    const { plan: planned } = await restored({ until: { kind: 'time', ms: Date.UTC(2040, 1) } });
    expect(await files()).toEqual(expected());
    expect(planned).toMatchObject({ beyondArchive: true, end: { timeMs: log.segments.at(-1)!.boundaries.at(-1)!.ms } });
  });

  test('an ID that is not there is refused before anything is written, and the range is told', async () => {
    await expect(plan({ until: { kind: 'id', id: '0-1-999' } })).rejects.toMatchObject({
      code: 'NOT_IN_ARCHIVE',
      message: expect.stringMatching(/0-1-999 is not in the archive of stream orders.*to 0-1-\d+ \(2026-01-01T/),
    });
  });

  test('a time before the first event is refused', async () => {
    const until: Until = { kind: 'time', ms: writeMs(0) };
    await expect(plan({ until })).rejects.toMatchObject({ code: 'NOT_IN_ARCHIVE' });
  });
});

test('where another server’s log goes on, the old one is cut after its last whole transaction', async () => {
  fill(5);
  const whole = expected();
  log.append({ bytes: 5000 });
  const cutShort = openFakeSource(log, { maxSliceBytes: 300 });
  await shipTerm(archive, {
    ...cutShort,
    async *read(from, signal) {
      for await (const slice of cutShort.read(from, signal)) {
        yield slice;
        if (!slice.boundary && slice.to.offset > log.segments.at(-1)!.bytes.length - 3000) break;
      }
      throw new Discontinuity('the host is gone');
    },
  }).catch(() => {});
  const other = new FakeLog({ origin: 'fake-2' });
  for (let i = 0; i < 8; i++) other.append();
  const moved = openFakeSource(other, { maxSliceBytes: 300 });
  const at = {
    origin: 'fake-2',
    incarnation: other.segments[0]!.incarnation,
    segment: 'log.000001',
    offset: 0,
    id: '',
  };
  await shipTerm(archive, {
    ...moved,
    locate: async () => ({ result: 'move', at, allowed: true, reason: 'found there', evidence: {} }),
  });
  const { plan: planned } = await restored();
  expect(planned.runs[0]!.bytes).toBeLessThan(shippedBytes('fake-1'));
  expect(await files(join(dir, '01-fake-1'))).toEqual(whole);
  expect(await files(join(dir, '02-fake-2'))).toEqual(expected(other));
});

describe('a gap', () => {
  let before: Map<string, string>;
  let lastBefore: string;

  beforeEach(async () => {
    fill(5);
    before = expected();
    lastBefore = (await ship()).position!.id;
    log.append();
    log.rotate();
    log.rotate();
    log.purge();
    log.append();
    await ship();
  });

  test('is never crossed: the error says where it is, and what reaches just before it', async () => {
    const refusal = plan();
    await expect(refusal).rejects.toBeInstanceOf(ArchiveNotWhole);
    await expect(refusal).rejects.toMatchObject({
      message: expect.stringMatching(/gap: bytes are missing between log\.000001:\d+ \(0-1-6\) and log\.000003:0/),
      hint: expect.stringContaining(`--until ${lastBefore} restores everything before it`),
    });
    await restored({ until: { kind: 'id', id: lastBefore } });
    expect(await files()).toEqual(before);
  });

  test('is not crossed for a target that may lie in it or after it', async () => {
    for (const until of [
      { kind: 'id', id: '0-1-7' },
      { kind: 'id', id: '0-1-999' },
      { kind: 'time', ms: Date.UTC(2040, 1) },
    ] as const) {
      await expect(plan({ until })).rejects.toBeInstanceOf(ArchiveNotWhole);
    }
  });

  test('what follows it is restored on request', async () => {
    await restored({ afterGap: true });
    expect(await files()).toEqual(expected());
  });
});

describe('a damaged archive', () => {
  beforeEach(async () => {
    fill();
    await ship();
  });

  test.each([
    ['flipped', (bytes: Buffer) => bytes.fill(bytes.at(-9)! ^ 1, bytes.length - 9, bytes.length - 8)],
    ['cut short', (bytes: Buffer) => bytes.subarray(0, -1)],
    ['longer', (bytes: Buffer) => Buffer.concat([bytes, Buffer.from('x')])],
  ])('an object that is %s is named, and is no success', async (_, damage) => {
    const key = chunkKeys()[4]!;
    store.overwrite(key, damage(Buffer.from(store.peek(key))));
    const failure = restored();
    await expect(failure).rejects.toBeInstanceOf(ArchiveNotWhole);
    await expect(failure).rejects.toMatchObject({ message: expect.stringContaining(key) });
    expect(await readdir(dir)).toContain('.shipmate-restore.json');
  });

  test('another chunk in an object’s place is not taken for it', async () => {
    const planned = await plan();
    const [first, second] = chunkKeys();
    store.overwrite(first!, store.peek(second!));
    const options = { chunks: new ChunkReader(archive), format: fakeFormat(), directory: dir, progress: silent };
    await expect(restore(planned, options)).rejects.toBeInstanceOf(ArchiveNotWhole);
  });

  test.each(['open', 'sealed'])(
    'an object that is gone from a term that is %s is a hole, not the end',
    async (state) => {
      if (state === 'sealed') await ship();
      await store.delete([chunkKeys()[1]!]);
      const refusal = plan();
      await expect(refusal).rejects.toBeInstanceOf(ArchiveNotWhole);
      await expect(refusal).rejects.toMatchObject({
        message: expect.stringMatching(/term 2, slot 2 is missing, although the one at term [23], slot [03]/),
      });
    },
  );
});

describe('an interrupted restore', () => {
  let into: Archive;
  let reads = 0;

  beforeEach(async () => {
    fill(40);
    await ship();
    reads = 0;
  });

  /** Fails for good at the given read of a chunk's body. */
  async function interrupted(atRead: number): Promise<void> {
    const planned = await plan();
    const faulty = new FaultyStore(store, (operation) =>
      operation === 'read' && ++reads === atRead
        ? { kind: 'before', error: new Error('the host lost power') }
        : undefined,
    );
    into = { ...archive, store: faulty };
    const options = { chunks: new ChunkReader(into), format: fakeFormat(), directory: dir, progress: silent };
    await expect(restore(planned, options)).rejects.toThrow('the host lost power');
    faulty.faults = () => undefined;
  }

  test('goes on where it stopped, keeping what is there', async () => {
    await interrupted(20);
    const kept = (await files()).size;
    expect(kept).toBeGreaterThan(2);
    const { wroteBytes } = await restored();
    expect(wroteBytes).toBeLessThan(log.sizeBytes / 2 + 2000);
    expect(await files()).toEqual(expected());
  });

  test('does not trust what is there: a byte that is wrong is written again', async () => {
    await interrupted(20);
    const path = join(dir, log.segments[0]!.name);
    const bytes = await readFile(path);
    bytes[10]! ^= 1;
    await writeFile(path, bytes);
    await truncate(join(dir, log.segments[1]!.name), 55);
    await restored();
    expect(await files()).toEqual(expected());
  });

  test('follows the archive, which went on meanwhile', async () => {
    await interrupted(20);
    log.truncate(700);
    fill(10);
    await ship();
    await restored();
    expect(await files()).toEqual(expected());
  });

  test('follows the archive into directories once the log was started again', async () => {
    await interrupted(20);
    log.reset();
    log.append();
    await ship();
    await restored();
    expect([...(await files()).keys()].every((path) => /^0[12]-fake-1\//.test(path))).toBe(true);
  });

  test('is not mixed with another one', async () => {
    await interrupted(5);
    await expect(restored({ until: { kind: 'id', id: '0-1-9' } })).rejects.toMatchObject({
      message: expect.stringContaining('unfinished restore of stream orders until latest'),
      hint: expect.stringContaining('another directory'),
    });
  });
});

describe('the target directory', () => {
  beforeEach(() => ship());

  test('is refused when it holds anything else, which stays untouched', async () => {
    await restored();
    await writeFile(join(dir, 'notes.txt'), 'mine');
    const before = await files();
    await expect(restored()).rejects.toBeInstanceOf(UsageError);
    expect(await files()).toEqual(before);
  });

  test('may be a new one below others, or an empty one', async () => {
    await restored({ into: join(dir, 'a', 'b') });
    expect(await files(join(dir, 'a', 'b'))).toEqual(expected());
  });

  test('must be a directory', async () => {
    await writeFile(dir, '');
    await expect(restored()).rejects.toBeInstanceOf(UsageError);
    await expect(restored({ into: join(dir, 'below') })).rejects.toBeInstanceOf(UsageError);
  });

  test('that nobody can make is an error, not an attempt without an end', async () => {
    await expect(restored({ into: '/proc/restored' })).rejects.toThrow('the restore to /proc/restored failed: ENOENT');
  });

  test('may lie in one that can be entered, and not read', async () => {
    await mkdir(dir);
    await asNobody(dir, async () => {
      await chmod(join(dir, '..'), 0o311);
      await restored().finally(() => chmod(join(dir, '..'), 0o700));
    });
    expect(await files()).toEqual(expected());
  });

  test('is of one restore at a time: nobody takes back what the other is done with', async () => {
    const options = { chunks: new ChunkReader(archive), format: fakeFormat(), directory: dir, progress: silent };
    const afterwards = () => restored().then(() => {});
    const refused = { code: 'RESTORE_RUNNING' };
    await expect(restore(await plan(), { ...options, afterwards })).rejects.toMatchObject(refused);
    await restored(); // the first one has ended
    expect(await files()).toEqual(expected());
  });

  test('is not filled half-way when there is not enough room', async () => {
    const planned = await plan();
    const [run] = planned.runs;
    const [segment] = run!.segments;
    const huge = { ...planned, runs: [{ ...run!, segments: [{ ...segment!, length: 2 ** 60 }] }] };
    const options = { chunks: new ChunkReader(archive), format: fakeFormat(), directory: dir, progress: silent };
    await expect(restore(huge, options)).rejects.toMatchObject({ code: 'RESTORE_NO_ROOM' });
  });

  test('keeps the database’s data from other users', async () => {
    await restored();
    expect((await stat(join(dir, 'log.000001'))).mode & 0o007).toBe(0);
  });
});

test('a segment’s name never leads out of the directory', async () => {
  log.segments[0]!.next = null;
  Object.assign(log.segments[0]!, { name: '../outside' });
  await ship();
  await expect(plan()).rejects.toMatchObject({ code: 'BAD_SEGMENT_NAME' });
});
