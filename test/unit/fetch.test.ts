import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { buffer, text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { stringify } from 'yaml';
import type { Archive } from '../../src/archive/walk.ts';
import { decodeHeader } from '../../src/core/header.ts';
import { placeKey, termPrefix } from '../../src/core/keys.ts';
import { ArchiveNotWhole } from '../../src/errors.ts';
import { ChunkReader } from '../../src/restore/chunks.ts';
import { findFile } from '../../src/restore/fetch-find.ts';
import { dropIfOwn, sweepPartials, writeFound } from '../../src/restore/fetch-write.ts';
import { walFiles } from '../../src/source/postgres/wal-files.ts';
import { FaultyStore } from '../fakes/faulty-store.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { SHIPMATE } from '../helpers/daemon.ts';
import { createArchive, shipTerm } from '../helpers/shipped-archive.ts';
import { WalServer } from '../helpers/wal-servers.ts';

const MIB = 1 << 20;
const files = walFiles();

let memory: MemoryStore;
let archive: Archive;
let chunks: ChunkReader;
let dir: string;
const servers: WalServer[] = [];

beforeEach(async () => {
  memory = new MemoryStore();
  archive = await createArchive(memory, 'orders', 'postgres');
  chunks = new ChunkReader(archive);
  dir = mkdtempSync(join(tmpdir(), 'shipmate-fetch-'));
});

afterEach(() => {
  for (const server of servers.splice(0)) server.remove();
  rmSync(dir, { recursive: true });
});

function made(server: WalServer): WalServer {
  servers.push(server);
  return server;
}

const primary = () => made(WalServer.primary());

async function ship(server: WalServer, { maxChunkBytes = 200_000, maxSliceBytes = 1 << 20 } = {}): Promise<void> {
  const source = server.open({ maxSliceBytes });
  try {
    await shipTerm(archive, source, { maxChunkBytes });
  } finally {
    await source.close();
  }
}

/** Whole segments, so many, and the beginning of another one. */
function write(server: WalServer, segments: number): void {
  for (let n = 0; n < segments; n++) {
    server.transaction({ bytes: 300_000 });
    server.switchLog();
  }
  server.transaction({ bytes: 100_000 });
}

/** As a recovering server gets it: the file's bytes, or why it is not in the archive. */
async function fetched(name: string): Promise<Buffer | string> {
  const found = await findFile(chunks, name, files);
  if ('absent' in found) return found.absent;
  const path = join(dir, 'RECOVERYXLOG');
  await writeFound(chunks, found, path, `${path}.part`);
  expect(await readdir(dir)).toEqual(['RECOVERYXLOG']);
  return readFileSync(path);
}

/** The archive as the command reads it. */
async function onDisk(): Promise<{ path: string; config: string }> {
  const [path, config] = [join(dir, 'store'), join(dir, 'shipmate.yaml')];
  for await (const { key } of memory.list('')) {
    mkdirSync(dirname(join(path, key)), { recursive: true });
    writeFileSync(join(path, key), await buffer(await memory.read(key)));
  }
  const streams = { orders: { source: { type: 'postgres', dir: '/none', url: 'postgresql://none' }, store: 'main' } };
  const stores = { main: { type: 'file', path } };
  writeFileSync(config, stringify({ cluster: 'acme', coordination: 'solo', stores, streams }));
  return { path, config };
}

const whole = (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc(MIB - bytes.length)]);

/** Each segment that the server wrote on its timeline comes back as it is, the last one with zeros at its end. */
async function expectAll(server: WalServer): Promise<void> {
  const prefix = server.line.wal.timeline.toString(16).padStart(8, '0');
  for (const [name, bytes] of server.contents()) {
    if (name.startsWith(prefix)) expect(whole(bytes).equals((await fetched(name)) as Buffer)).toBe(true);
  }
}

const segment = (timeline: number, number: number) =>
  `${timeline.toString(16).padStart(8, '0')}00000000${number.toString(16).padStart(8, '0')}`.toUpperCase();

const isGap = { code: 'ARCHIVE_NOT_WHOLE' };

test('gives each segment back, and pads the last one with zeros to its whole length', async () => {
  const server = primary();
  write(server, 3);
  await ship(server);
  expect(server.contents().size).toBe(4);
  await expectAll(server);
});

test('goes on over the ends of terms, inside segments and between them', async () => {
  const server = primary();
  for (let term = 0; term < 6; term++) {
    server.transaction({ bytes: 200_000 });
    if (term % 2) server.switchLog();
    await ship(server, { maxChunkBytes: 50_000 });
  }
  await expectAll(server);
});

test('what lies beyond the head, before the start, or on a timeline that never was is not in the archive', async () => {
  const server = primary();
  write(server, 2);
  server.purge({ byForce: true });
  await ship(server);
  expect(await fetched(segment(1, 4))).toMatch(/ends at 1\/0\/3/);
  expect(await fetched(segment(1, 2))).toMatch(/before the archive’s start/);
  expect(await fetched(segment(2, 3))).toMatch(/ends at/);
  expect(await fetched('00000002.history')).toMatch(/ends at/);
});

test('an archive without a byte has nothing, and an ended segment no next one', async () => {
  expect(await fetched(segment(1, 1))).toMatch(/nothing was shipped/);
  const server = primary();
  server.switchLog();
  await ship(server);
  expect(await fetched(segment(1, 2))).toMatch(/ends at/);
  await expectAll(server);
});

describe('a promotion', () => {
  test('gives the history file, both timelines’ segments, and none from before the new one', async () => {
    const old = primary();
    write(old, 2);
    const standby = made(old.standby());
    old.transaction({ bytes: 50_000 });
    await ship(old);
    standby.promote();
    write(standby, 2);
    await ship(standby);
    await ship(standby);
    expect(await fetched('00000002.history')).toEqual(readFileSync(standby.path('00000002.history')));
    await expectAll(standby);
    // Of what the old timeline had beyond the switch point nothing is lost.
    await expectAll(old);
    expect(await fetched(segment(2, 2))).toMatch(/its timeline/);
    expect(await fetched(segment(1, 4))).toMatch(/its timeline/);
    expect(await fetched('00000003.history')).toMatch(/ends at/);
  });

  /** An archive that ends with segment 2, and a server that was promoted inside segment 3. */
  async function left({ shipped = 0 } = {}): Promise<{ old: WalServer; standby: WalServer; upTo: Buffer }> {
    const old = primary();
    for (let n = 0; n < 2; n++) {
      old.transaction({ bytes: 300_000 });
      old.switchLog();
    }
    if (shipped > 0) old.transaction({ bytes: shipped });
    await ship(old);
    old.transaction({ bytes: 170_000 });
    const upTo = old.contents().get(segment(1, 3))!;
    const standby = made(old.standby());
    old.transaction({ bytes: 50_000 });
    standby.promote();
    return { old, standby, upTo };
  }

  test.each([
    { title: 'nothing', shipped: 0 },
    { title: 'a part', shipped: 60_000 },
  ])(
    'of a timeline’s last segment of which it has $title, what comes before the switch is served',
    async ({ shipped }) => {
      const { standby, upTo } = await left({ shipped });
      write(standby, 2);
      await ship(standby, { maxChunkBytes: 50_000 });
      expect(((await fetched(segment(1, 3))) as Buffer).equals(whole(upTo))).toBe(true);
      await expectAll(standby);
      expect(await fetched(segment(1, 4))).toMatch(/its timeline/);
      expect(await fetched(segment(2, 2))).toMatch(/its timeline/);
    },
  );

  test('of a timeline that was left inside its first segment too', async () => {
    const { standby, upTo } = await left();
    standby.transaction({ bytes: 80_000 });
    const next = made(standby.standby());
    const upToNext = standby.contents().get(segment(2, 3))!;
    next.promote();
    write(next, 2);
    for (let term = 0; term < 3; term++) await ship(next).catch(() => {}); // a term ends with each timeline
    expect(((await fetched(segment(1, 3))) as Buffer).equals(whole(upTo))).toBe(true);
    expect(((await fetched(segment(2, 3))) as Buffer).equals(whole(upToNext))).toBe(true);
    await expectAll(next);
  });

  test.each([0, 1, 2, 3])(
    'but it is an error while that is not there: with %d chunks of the next timeline',
    async (slots) => {
      const { standby } = await left();
      await ship(standby, { maxChunkBytes: 1 << 16, maxSliceBytes: 1 << 16 });
      for await (const { key } of memory.list('orders/terms/', { after: placeKey('orders', { term: 3, slot: slots }) }))
        await memory.delete([key]);
      await expect(fetched(segment(1, 3))).rejects.toMatchObject({
        ...isGap,
        message: expect.stringContaining('going over to another timeline'),
        // What to do where no daemon is left: the log as it was before.
        hint: expect.stringContaining('--through-term 2'),
      });
      expect(await fetched(segment(1, 2))).toHaveLength(MIB);
    },
  );

  test('and fetch waits for that: a standby that lives by the archive alone would end with the error', async () => {
    const { standby, upTo } = await left();
    await ship(standby, { maxChunkBytes: 1 << 16, maxSliceBytes: 1 << 16 });
    const to = join(dir, 'RECOVERYXLOG');
    const { path, config } = await onDisk();
    const term = join(path, dirname(placeKey('orders', { term: 3, slot: 0 })));
    const late = (await readdir(term)).sort().slice(2);
    mkdirSync(join(dir, 'late'));
    for (const name of late) renameSync(join(term, name), join(dir, 'late', name));
    const fetching = spawn(SHIPMATE, ['fetch', 'orders', segment(1, 3), to, '-c', config]);
    fetching.stderr.once('data', () => {
      for (const name of late) renameSync(join(dir, 'late', name), join(term, name));
    });
    const [said, [code]] = await Promise.all([text(fetching.stderr), once(fetching, 'exit')]);
    expect(said).toMatch(/^warning: the archive of stream orders is going over .*; waiting for it\n$/);
    expect(code).toBe(0);
    expect(readFileSync(to).equals(whole(upTo))).toBe(true);
  });

  test('before its WAL is there, nothing lets recovery go on along the timeline that is left', async () => {
    const old = primary();
    write(old, 2);
    const standby = made(old.standby());
    old.transaction({ bytes: 50_000 });
    await ship(old);
    standby.promote();
    await ship(standby); // in term 3
    const upTo = placeKey('orders', { term: 3, slot: 1 });
    for await (const { key } of memory.list('orders/terms/', { after: upTo })) await memory.delete([key]);
    expect((await fetched('00000002.history')).length).toBeGreaterThan(0);
    await expect(fetched(segment(1, 3))).rejects.toMatchObject(isGap);
    expect(whole(old.contents().get(segment(1, 2))!).equals((await fetched(segment(1, 2))) as Buffer)).toBe(true);
  });
});

describe('what is missing', () => {
  test('a segment before a gap is served, one inside it, or torn by it, is an error', async () => {
    const server = primary();
    write(server, 2);
    await ship(server);
    write(server, 3);
    server.purge({ byForce: true });
    await ship(server);
    expect(await fetched(segment(1, 1))).toHaveLength(MIB);
    expect(await fetched(segment(1, 2))).toHaveLength(MIB);
    for (const inGap of [3, 4, 5]) await expect(fetched(segment(1, inGap))).rejects.toMatchObject(isGap);
    expect(await fetched(segment(1, 6))).toHaveLength(MIB);
    expect(await fetched(segment(1, 7))).toMatch(/ends at/);
  });

  test('a hole in the chain is never taken for its end', async () => {
    const server = primary();
    write(server, 14);
    await ship(server);
    await memory.delete([placeKey('orders', { term: 2, slot: 3 })]);
    const answers = await Promise.all(
      [1, 2, 3, 4, 14, 15].map((number) =>
        findFile(chunks, segment(1, number), files).then(
          (found) => ('absent' in found ? 'absent' : 'found'),
          (error) => error instanceof ArchiveNotWhole && 'error',
        ),
      ),
    );
    expect(answers[0]).toBe('found');
    expect(answers).not.toContain('absent');
    expect(answers).toContain('error');
  });

  test('nor is one near its end, where a later chunk says that what is missing was durable', async () => {
    const server = primary();
    write(server, 2);
    await ship(server);
    const last = memory.keys(termPrefix('orders', 2)).at(-1)!;
    const { header } = decodeHeader(memory.peek(last), last);
    const lost = { term: 2, slot: (header.kind === 'chunk' ? header.settled! : 0) - 1 };
    await memory.delete([placeKey('orders', lost)]);
    await expect(findFile(new ChunkReader(archive), segment(1, 3), files)).rejects.toBeInstanceOf(ArchiveNotWhole);
  });

  test('a damaged chunk is an error, and leaves no file', async () => {
    const server = primary();
    write(server, 1);
    await ship(server);
    const key = placeKey('orders', { term: 2, slot: 1 });
    const bytes = Buffer.from(await memory.readStart(key, 1 << 24));
    bytes[bytes.length - 3]! ^= 1;
    memory.overwrite(key, bytes);
    await expect(fetched(segment(1, 1))).rejects.toMatchObject(isGap);
    expect(await readdir(dir)).toEqual([]);
  });

  test('a store that fails is no end of the archive', async () => {
    const server = primary();
    write(server, 1);
    await ship(server);
    const store = new FaultyStore(memory, () => ({ kind: 'before' }));
    chunks = new ChunkReader({ ...archive, store });
    await expect(fetched(segment(1, 9))).rejects.toMatchObject({ verdict: 'retry' });
  });
});

describe('the server’s own files', () => {
  const wanted = () => join(dir, 'RECOVERYXLOG');

  /** As a server asks that has these bytes under the segment's name, beside what it asks for: whether it keeps its own. */
  async function keepsOwn(name: string, own: Uint8Array | null): Promise<boolean> {
    if (own !== null) writeFileSync(join(dir, name), own);
    const found = await findFile(chunks, name, files);
    if ('absent' in found) throw new Error(found.absent);
    await writeFound(chunks, found, wanted(), `${wanted()}.part`);
    const isKept = await dropIfOwn(found, wanted());
    expect((await readdir(dir)).includes('RECOVERYXLOG')).toBe(!isKept);
    return isKept;
  }

  test('a segment of which it has as much as the archive, or more, is left to it; all else is handed over', async () => {
    const server = primary();
    write(server, 1);
    await ship(server);
    const archived = server.contents().get(segment(1, 2))!;
    server.transaction({ bytes: 50_000 });
    const more = server.contents().get(segment(1, 2))!;
    expect(more.length).toBeGreaterThan(archived.length);
    expect(await keepsOwn(segment(1, 2), null)).toBe(false);
    expect(await keepsOwn(segment(1, 2), whole(more))).toBe(true);
    expect(await keepsOwn(segment(1, 2), whole(archived))).toBe(true);
    // It has less: zeros, or what a recycled file held before; or another log.
    expect(await keepsOwn(segment(1, 2), archived.subarray(0, -1))).toBe(false);
    expect(await keepsOwn(segment(1, 2), whole(archived.subarray(0, 50_000)))).toBe(false);
    expect(await keepsOwn(segment(1, 2), whole(more).fill(7, 100, 101))).toBe(false);
    // One that the archive has to its end.
    expect(await keepsOwn(segment(1, 1), server.contents().get(segment(1, 1))!)).toBe(false);
  });

  test('a history file that was never shipped stands in for none that it has', async () => {
    const first = primary();
    write(first, 1);
    const second = made(first.standby());
    second.promote(3);
    write(second, 1);
    second.purge({ byForce: true });
    await ship(second);
    const { config } = await onDisk();
    const ask = () =>
      spawnSync(SHIPMATE, ['fetch', 'orders', '00000002.history', 'RECOVERYHISTORY', '-c', config], { cwd: dir })
        .status;
    expect(ask()).toBe(0);
    expect(readFileSync(join(dir, 'RECOVERYHISTORY'), 'utf8')).toMatch(/^# Nothing of this timeline/);
    rmSync(join(dir, 'RECOVERYHISTORY'));
    writeFileSync(join(dir, '00000002.history'), '1\t0/1234567\tno recovery target specified\n');
    expect(ask()).toBe(1);
    expect(await readdir(dir)).not.toContain('RECOVERYHISTORY');
  });

  test.each([
    ['077', 0o600],
    ['027', 0o640],
  ])('with the umask %s that the server has, its group may read as in the rest of the cluster', async (umask, mode) => {
    const server = primary();
    write(server, 1);
    await ship(server);
    const before = process.umask(umask);
    try {
      await fetched(segment(1, 1));
    } finally {
      process.umask(before);
    }
    expect(statSync(wanted()).mode & 0o777).toBe(mode);
  });

  test('what was killed in the middle is removed by the next one, what is being written is not', async () => {
    const { pid: dead } = spawnSync('true');
    const [left, living] = [`${wanted()}.shipmate-${dead}`, `${wanted()}.shipmate-${process.pid}`];
    const others = ['RECOVERYXLOG', segment(1, 1), 'RECOVERYHISTORY.shipmate-1x', 'RECOVERYXLOG.shipmate-'];
    for (const path of [left, living, ...others.map((name) => join(dir, name))]) writeFileSync(path, 'x');
    await sweepPartials(wanted());
    expect((await readdir(dir)).sort()).toEqual([basename(living), ...others].sort());
  });
});

describe('names', () => {
  test.each([
    [segment(1, 5), 'segment'],
    ['00000002.history', 'history'],
    [`${segment(1, 5)}.partial`, 'never'],
    [`${segment(1, 5)}.00000028.backup`, 'never'],
    ['pg_wal/RECOVERYXLOG', null],
    ['RECOVERYXLOG', null],
    ['../00000002.history', null],
    ['', null],
  ])('%s: %s', (name, kind) => expect(files.kindOf(name)).toBe(kind));
});
