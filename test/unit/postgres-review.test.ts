import { writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { Archive } from '../../src/archive/walk.ts';
import { placeKey } from '../../src/core/keys.ts';
import { Discontinuity } from '../../src/errors.ts';
import { ChunkReader } from '../../src/restore/chunks.ts';
import { findFile } from '../../src/restore/fetch-find.ts';
import { walFiles } from '../../src/source/postgres/wal-files.ts';
import { endOf, Shipping } from '../contract/source-shipping.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { createArchive, shipTerm } from '../helpers/shipped-archive.ts';
import { WalServer } from '../helpers/wal-servers.ts';
import { reign } from '../helpers/wal-shipping.ts';

const servers: WalServer[] = [];

function made(server: WalServer): WalServer {
  servers.push(server);
  return server;
}

function primary(): WalServer {
  const server = made(WalServer.primary());
  for (let i = 0; i < 3; i++) server.transaction({ bytes: 500_000 });
  return server;
}

afterEach(() => {
  for (const server of servers.splice(0)) server.remove();
});

/** The same cluster, recovered to an earlier time: what PostgreSQL then says in the new timeline's history file. */
function recovered(from: WalServer, upTo: bigint, timeline?: number): WalServer {
  const server = made(from.standby(upTo));
  server.promote(timeline);
  const history = server.line.history!.replace('no recovery target specified', 'before 2026-01-01 12:00:00+00\n');
  server.line = { ...server.line, history };
  writeFileSync(server.path(`${server.line.wal.timeline.toString().padStart(8, '0')}.history`), history);
  return server;
}

describe('a cluster that was recovered to an earlier time', () => {
  test('never turns the archive back by itself, and does when an operator says so', async () => {
    const [a, shipping] = [primary(), new Shipping()];
    const before = a.flushed;
    a.transaction({ bytes: 2_400_000 });
    await reign(a.open(), shipping);
    const past = recovered(a, before);
    past.transaction({ bytes: 1_200_000 });
    const twin = past.open();
    const located = await twin.locate(shipping.head());
    expect(located).toMatchObject({ result: 'fork', allowed: false });
    expect(located.reason).toContain('before 2026-01-01');
    expect(await a.open().locate(shipping.head())).toMatchObject({ result: 'resume', allowed: true });
    shipping.open(located);
    await shipping.ship(twin).catch((error) => expect(error).toBeInstanceOf(Discontinuity));
    await reign(twin, shipping);
    for (const [name, bytes] of past.contents()) {
      if (name.startsWith('00000002')) expect(shipping.contents().get(name)?.equals(bytes)).toBe(true);
    }
    expect(await a.open().locate(shipping.head())).toMatchObject({ result: 'fork', allowed: false });
  });

  test('takes nothing away from a timeline of a higher number that it knew of', async () => {
    const [a, shipping] = [primary(), new Shipping()];
    const before = a.flushed;
    a.transaction({ bytes: 1_600_000 });
    await reign(a.open(), shipping);
    const b = made(a.standby());
    b.promote();
    b.transaction({ bytes: 1_600_000 });
    await reign(b.open(), shipping);
    const past = recovered(a, before, 3);
    past.transaction();
    expect(await past.open().locate(shipping.head())).toMatchObject({ result: 'fork', allowed: false });
    expect(await b.open().locate(shipping.head())).toMatchObject({ result: 'resume', allowed: true });
  });
});

test('a later promotion of a clone, which had other bytes before it, does not take the archive', async () => {
  const [a, shipping] = [primary(), new Shipping()];
  const before = a.flushed;
  a.transaction({ bytes: 2_000_000 });
  await reign(a.open({ maxSliceBytes: 1 << 16 }), shipping);
  const b = made(a.standby());
  b.promote();
  b.transaction();
  await reign(b.open(), shipping);
  const clone = made(a.standby(before));
  clone.line = { ...clone.line, wal: clone.line.wal.branch(1, before) };
  clone.isInRecovery = false;
  for (const bytes of [1000, 300_000]) clone.transaction({ bytes });
  clone.promote(3);
  expect(await clone.open().locate(shipping.head())).toMatchObject({ result: 'fork', allowed: false });
});

test('a server that was proven by what both timelines copied of their parent proves nothing', async () => {
  const [a, shipping] = [primary(), new Shipping()];
  await reign(a.open(), shipping);
  const [b, c] = [made(a.standby()), made(a.standby())];
  for (const server of [b, c]) server.promote();
  expect(c.line.history).toBe(b.line.history);
  const [slow, theirs] = [b.open({ maxSliceBytes: 1 << 16 }), c.open()];
  shipping.open(await slow.locate(shipping.head()));
  const stop = new AbortController();
  for await (const slice of slow.read(shipping.position, stop.signal)) {
    shipping.add(slice);
    if (slice.to.offset > 200_000) break;
  }
  expect(await theirs.locate(shipping.head())).toMatchObject({ result: 'resume', allowed: true });
  for (const server of [b, c]) server.transaction({ bytes: 1000 });
  await reign(b.open(), shipping);
  for (const server of [b, c]) server.idle();
  await reign(b.open(), shipping);
  expect(await theirs.locate(shipping.head())).toMatchObject({ result: 'fork', allowed: false });
});

test('a server that comes back with other bytes is not read on from where it was left', async () => {
  const [a, shipping] = [primary(), new Shipping()];
  const before = a.flushed;
  a.transaction({ bytes: 1000 });
  const twin = a.open();
  await reign(twin, shipping);
  // Its disk is put back to an earlier time, and it writes on, on the same timeline.
  a.line = { ...a.line, wal: a.line.wal.branch(1, before) };
  a.transaction({ bytes: 5000 });
  const stop = new AbortController();
  const ending = await endOf(twin.read(shipping.position, stop.signal), () => stop.abort(new Error('it was read')));
  expect(ending).toBeInstanceOf(Discontinuity);
});

test('the segment in which the archive ends is kept: it is the witness of the next start', async () => {
  const [a, shipping] = [primary(), new Shipping()];
  a.switchLog();
  await reign(a.open(), shipping);
  a.idle();
  a.purge();
  expect(a.segments()).toContain(shipping.position!.segment);
});

describe('fetch', () => {
  const files = walFiles();
  let memory: MemoryStore;
  let archive: Archive;

  beforeEach(async () => {
    memory = new MemoryStore();
    archive = await createArchive(memory, 'orders', 'postgres');
  });

  /** One term, by a twin of the server; an operator accepts what needs one. */
  async function ship(server: WalServer): Promise<void> {
    const source = server.open({ maxSliceBytes: 1 << 16 });
    try {
      await shipTerm(archive, source, { maxChunkBytes: 100_000 });
    } catch (error) {
      if (!(error instanceof Discontinuity)) throw error;
      await shipTerm(archive, source, { maxChunkBytes: 100_000 });
    } finally {
      await source.close();
    }
  }

  const find = (name: string) => findFile(new ChunkReader(archive), name, files);
  const isThere = async (name: string) => {
    const found = await find(name);
    return 'absent' in found ? (found.isPassed ?? false) : true;
  };

  /** As a recovery looks for the newest timeline. */
  async function newestTimeline(from: number): Promise<number> {
    for (let timeline = from; ; timeline++) {
      const name = `${(timeline + 1).toString(16).padStart(8, '0').toUpperCase()}.history`;
      if (!(await isThere(name))) return timeline;
    }
  }

  test('leads recovery to the log that an operator went back to, not to the timeline that was left', async () => {
    const a = primary();
    const b = made(a.standby());
    await ship(a);
    b.promote();
    b.transaction();
    await ship(b);
    a.transaction({ bytes: 1_600_000 });
    await ship(a);
    expect(await newestTimeline(1)).toBe(1);
  });

  test('leads recovery to the newest timeline, whatever numbers before it were never shipped', async () => {
    const a = primary();
    const b = made(a.standby());
    await ship(a);
    b.promote();
    b.transaction();
    await ship(b);
    const c = made(b.standby());
    c.promote(5);
    c.transaction();
    await ship(c);
    expect(await newestTimeline(1)).toBe(5);
    expect(await newestTimeline(5)).toBe(5);
  });

  test('does not let recovery end inside what a new timeline has copied so far, whoever ships it', async () => {
    const a = primary();
    const b = made(a.standby());
    a.transaction();
    await ship(a);
    b.promote();
    b.transaction();
    for (const term of [3, 4]) {
      await ship(b);
      const upTo = placeKey('orders', { term, slot: term === 3 ? 2 : 1 });
      for await (const { key } of memory.list('orders/terms/', { after: upTo })) await memory.delete([key]);
    }
    const [segment] = [...b.contents().keys()].filter((name) => name.startsWith('00000002'));
    expect(await isThere('00000002.history')).toBe(true);
    await expect(find(segment!)).rejects.toMatchObject({ code: 'ARCHIVE_NOT_WHOLE' });
  });

  test('serves what the archive holds, though it ends with a history file that a second master went on from', async () => {
    const a = primary();
    const b = made(a.standby());
    a.transaction();
    await ship(a);
    b.promote();
    for (const [term, slot] of [
      [3, 1],
      [4, 0],
    ] as const) {
      await ship(b);
      const upTo = placeKey('orders', { term, slot });
      for await (const { key } of memory.list('orders/terms/', { after: upTo })) await memory.delete([key]);
    }
    const [segment] = a.contents().keys();
    expect(await isThere(segment!)).toBe(true);
  });
});
