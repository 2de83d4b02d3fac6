import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { Archive } from '../../src/archive/walk.ts';
import type { Position } from '../../src/core/position.ts';
import { witnessDigest } from '../../src/core/witness.ts';
import { ChunkReader } from '../../src/restore/chunks.ts';
import { askDurable, type DurableAnswer, type DurableQuestion } from '../../src/restore/durable.ts';
import { walFiles } from '../../src/source/postgres/wal-files.ts';
import { FaultyStore } from '../fakes/faulty-store.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { createArchive, shipTerm } from '../helpers/shipped-archive.ts';
import { WalServer } from '../helpers/wal-servers.ts';

const files = walFiles();
const servers: WalServer[] = [];
let memory: MemoryStore;
let archive: Archive;
let end: Position | null;

beforeEach(async () => {
  memory = new MemoryStore();
  archive = await createArchive(memory, 'orders', 'postgres');
  end = null;
});
afterEach(() => {
  for (const server of servers.splice(0)) server.remove();
});

function made(server: WalServer): WalServer {
  servers.push(server);
  return server;
}

async function ship(server: WalServer): Promise<void> {
  const source = server.open();
  end = (await shipTerm(archive, source, { maxChunkBytes: 200_000 })).position;
  await source.close();
}

/** As the daemon beside that server answers; a twin that leads no term, unless told. */
async function isDurable(server: WalServer, name: string, more: Partial<DurableQuestion> = {}): Promise<boolean> {
  return (await answerOf(server, name, more)).durable;
}

function answerOf(server: WalServer, name: string, more: Partial<DurableQuestion> = {}): Promise<DurableAnswer> {
  const directory = join(server.dir, 'pg_wal');
  const chunks = new ChunkReader(archive);
  const inode = statSync(join(directory, name), { bigint: true, throwIfNoEntry: false })?.ino ?? 0n;
  return askDurable({ chunks, files, directory, name, inode, shipped: null, archiveEnd: end, ...more });
}

const segment = (timeline: number, number: number) =>
  `${timeline.toString(16).padStart(8, '0')}00000000${number.toString(16).padStart(8, '0')}`.toUpperCase();

function write(server: WalServer, segments: number): void {
  for (let n = 0; n < segments; n++) {
    server.transaction({ bytes: 300_000 });
    server.switchLog();
  }
  server.transaction();
}

test('whole segments are, once they are shipped: on the master’s host and on a twin’s', async () => {
  const server = made(WalServer.primary());
  write(server, 2);
  expect(await isDurable(server, segment(1, 1))).toBe(false);
  await ship(server);
  write(server, 1);
  const standby = made(server.standby());
  for (const host of [server, standby]) {
    expect(await isDurable(host, segment(1, 1))).toBe(true);
    expect(await isDurable(host, segment(1, 2))).toBe(true);
    expect(await isDurable(host, segment(1, 3))).toBe(false);
    expect(await isDurable(host, segment(1, 9))).toBe(false);
  }
});

test('one from before the archive began never will be: the server would wait for it until its disk is full', async () => {
  const server = made(WalServer.primary());
  write(server, 3);
  const standby = made(server.standby());
  standby.purge({ byForce: true });
  await ship(standby);
  const { durable, hint } = await answerOf(server, segment(1, 2));
  expect(durable).toBe(false);
  expect(hint).toContain(`mv pg_wal/archive_status/${segment(1, 2)}.ready `);
});

describe('what the master shipped itself', () => {
  const at = (id: string, timeline = 1): Position => ({
    origin: `postgres-1-${timeline}`,
    incarnation: '1',
    segment: segment(timeline, 4),
    offset: 0,
    id,
  });

  test('needs no look at the store; what lies before, or beyond, or on another timeline does', async () => {
    const server = made(WalServer.primary());
    write(server, 6);
    const store = new FaultyStore(memory, () => ({ kind: 'before' }));
    const chunks = new ChunkReader({ ...archive, store });
    const ask = (name: string, from: Position, to: Position) =>
      isDurable(server, name, { chunks, shipped: { from, to }, archiveEnd: to });
    expect(await ask(segment(1, 2), at('1/0/200000'), at('1/0/400000'))).toBe(true);
    expect(await ask(segment(1, 3), at('1/0/200000'), at('1/0/400000'))).toBe(true);
    await expect(ask(segment(1, 2), at('1/0/200001'), at('1/0/400000'))).rejects.toMatchObject({ verdict: 'retry' });
    expect(await ask(segment(1, 5), at('1/0/200000'), at('1/0/400000'))).toBe(false);
    await expect(ask(segment(1, 3), at('2/0/200000', 2), at('2/0/400000', 2))).rejects.toThrow();
    await expect(ask(segment(1, 3), at('1/0/200000'), at('2/0/400000', 2))).rejects.toThrow();
  });

  test('says nothing of the file that another server has under that name', async () => {
    const server = made(WalServer.primary());
    write(server, 3);
    const other = made(server.standby());
    const shipped = { from: at('1/0/100000'), to: at('1/0/400000') };
    const inode = statSync(other.path(segment(1, 2)), { bigint: true }).ino;
    expect(await isDurable(server, segment(1, 2), { shipped, archiveEnd: shipped.to })).toBe(true);
    const told = await answerOf(server, segment(1, 2), { shipped, archiveEnd: shipped.to, inode });
    expect(told).toMatchObject({ durable: false, isOther: true, reason: expect.stringContaining(server.dir) });
  });

  test('is the same file where it has another inode, by all of its bytes', async () => {
    const server = made(WalServer.primary());
    write(server, 3);
    const shipped = { from: at('1/0/100000'), to: at('1/0/400000') };
    const bytes = Buffer.from(server.contents().get(segment(1, 2))!);
    const ask = (witness: string) =>
      isDurable(server, segment(1, 2), { shipped, archiveEnd: shipped.to, inode: 1n, witness });
    expect(await ask(witnessDigest(bytes))).toBe(true);
    bytes[bytes.length - 1]! ^= 1;
    expect(await ask(witnessDigest(bytes))).toBe(false);
    expect(await ask('')).toBe(false);
  });

  test('is a file of the whole length', async () => {
    const server = made(WalServer.primary());
    write(server, 3);
    const shipped = { from: at('1/0/100000'), to: at('1/0/400000') };
    writeFileSync(server.path(segment(1, 2)), '');
    expect(await isDurable(server, segment(1, 2), { shipped, archiveEnd: shipped.to }).catch(() => false)).toBe(false);
  });
});

test('an old primary that writes on alone gets a yes for what the archive has of its timeline, and for no more', async () => {
  const old = made(WalServer.primary());
  write(old, 2);
  await ship(old);
  const standby = made(old.standby());
  standby.promote();
  write(standby, 4);
  await ship(standby);
  await ship(standby);
  write(old, 4);
  expect(await isDurable(old, segment(1, 1))).toBe(true);
  for (const number of [3, 4, 5, 6]) expect(await isDurable(old, segment(1, number))).toBe(false);
  expect(await isDurable(standby, segment(2, 3))).toBe(true);
  expect(await isDurable(standby, '00000002.history')).toBe(true);
});

test('other bytes under the same name are not', async () => {
  const server = made(WalServer.primary());
  write(server, 2);
  await ship(server);
  const other = made(server.standby());
  const bytes = Buffer.from(server.contents().get(segment(1, 1))!);
  bytes[bytes.length - 1]! ^= 1;
  writeFileSync(other.path(segment(1, 1)), bytes);
  expect(await isDurable(other, segment(1, 1))).toBe(false);
});

test('a history file that a later one begins with is not needed; of another promotion it is no proof', async () => {
  const first = made(WalServer.primary());
  write(first, 1);
  const second = made(first.standby());
  second.promote();
  write(second, 1);
  const third = made(second.standby());
  third.promote();
  write(third, 1);
  // An archive that begins on timeline 3.
  third.purge({ byForce: true });
  await ship(third);
  expect(await isDurable(third, '00000003.history')).toBe(true);
  expect(await isDurable(third, '00000002.history')).toBe(true);
  writeFileSync(third.path('00000002.history'), '1\t0/1234567\tanother promotion\n');
  expect(await isDurable(third, '00000002.history')).toBe(false);
});

test('what carries no WAL of its own is, and what is no file of the log is not', async () => {
  const server = made(WalServer.primary());
  mkdirSync(join(server.dir, 'pg_wal', segment(1, 7)));
  expect(await isDurable(server, `${segment(1, 1)}.partial`)).toBe(true);
  expect(await isDurable(server, `${segment(1, 1)}.00000028.backup`)).toBe(true);
  expect(await isDurable(server, 'x.partial')).toBe(false);
  expect(await isDurable(server, '../PG_VERSION')).toBe(false);
});
