import { renameSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import type { Position } from '../../src/core/position.ts';
import { Discontinuity, ShipmateError } from '../../src/errors.ts';
import type { LogSlice } from '../../src/source/source.ts';
import { endOf, Shipping } from '../contract/source-shipping.ts';
import { until } from '../helpers/wait.ts';
import { WalServer } from '../helpers/wal-servers.ts';
import { reign } from '../helpers/wal-shipping.ts';

let server: WalServer;
let shipping: Shipping;
let stop: AbortController;
const others: WalServer[] = [];

beforeEach(() => {
  server = WalServer.primary();
  shipping = new Shipping();
  stop = new AbortController();
});

afterEach(() => {
  stop.abort();
  server.remove();
  for (const other of others.splice(0)) other.remove();
});

const SEGMENT = '000000010000000000000001';
const pageOf = (lsn: bigint) => Number(lsn % BigInt(server.segmentBytes)) & ~8191;

/** Follows the log beside the test, which reads what came; `ended` resolves to the error that ends it. */
function follow(from: Position | null = shipping.position) {
  const slices: Omit<LogSlice, 'bytes'>[] = [];
  const ended = endOf(server.open().read(from, stop.signal), ({ bytes: _, ...slice }) => slices.push(slice));
  const end = () => slices.at(-1)?.to.id;
  return { slices, ended, end };
}

const codeOf = (error: unknown) => (error instanceof ShipmateError ? error.code : error);

/** Overwrites a part of the segment's file, and says that so much is flushed. */
async function endWith(bytes: Buffer, offset: number, flushed: bigint): Promise<unknown> {
  const { open } = await import('node:fs/promises');
  const file = await open(server.path(SEGMENT), 'r+');
  await file.write(bytes, 0, bytes.length, offset);
  await file.close();
  server.flushed = flushed;
  return follow().ended;
}

test('ships no byte that the server has not flushed, though it stands in the file', async () => {
  await reign(server.open(), shipping);
  const flushed = server.flushed;
  server.transaction({ bytes: 50_000 });
  const written = server.flushed;
  server.flushed = flushed;
  expect(await server.open().backlog(shipping.position)).toEqual({ bytes: 0, oldestMs: null });
  const { slices, end } = follow();
  server.flushed = flushed + 1000n;
  await until('as much as is flushed came', () => end() === `1/0/${(flushed + 1000n).toString(16).toUpperCase()}`);
  expect(slices.reduce((sum, { from, to }) => sum + to.offset - from.offset, 0)).toBe(1000);
  server.flushed = written;
  await until('the rest came', () => end() === `1/0/${written.toString(16).toUpperCase()}`);
});

test('tells the times of commits, wherever it is cut', async () => {
  const start = shipping.position;
  const lsns = [server.flushed];
  for (let i = 0; i < 3; i++) lsns.push(server.transaction({ bytes: 10_000 }));
  const all = follow(start);
  await until('all came', () => all.slices.at(-1)?.to.offset === Number(lsns.at(-1)! % BigInt(server.segmentBytes)));
  const times: number[] = [];
  for (const [i, lsn] of lsns.slice(1).entries()) {
    server.flushed = lsn;
    const located = { ...all.slices.at(-1)!.to };
    const from = { ...located, offset: Number(lsns[i]! % BigInt(server.segmentBytes)) };
    const { slices } = follow(from);
    await until('the transaction came', () => slices.at(-1)?.to.offset === Number(lsn % BigInt(server.segmentBytes)));
    const known = slices
      .flatMap(({ firstEventMs, lastEventMs }) => [firstEventMs, lastEventMs])
      .filter((ms) => ms !== null);
    expect(new Set(known).size).toBe(1);
    times.push(known[0]!);
  }
  expect(times).toEqual([times[0], times[0]! + 1234, times[0]! + 2468]);
});

test('goes on inside the zeros behind a log switch', async () => {
  server.transaction({ bytes: 30_000 });
  server.switchLog();
  const whole = server.flushed;
  server.flushed = whole - 300_000n;
  await reign(server.open(), shipping);
  server.flushed = whole;
  await reign(server.open(), shipping);
  expect([...shipping.contents()].map(([, bytes]) => bytes.length)).toEqual([server.segmentBytes]);
});

test('takes zeros for damage where no log switch stands before them', async () => {
  server.transaction({ bytes: 30_000 });
  await reign(server.open(), shipping);
  const next = server.flushed + 20_000n;
  expect(codeOf(await endWith(Buffer.alloc(20_000), Number(server.flushed) % server.segmentBytes, next))).toBe(
    'SOURCE_CORRUPT',
  );
});

test('takes zeros inside a page for damage too: a file that was put in the place of the server’s own had less', async () => {
  server.transaction({ bytes: 2_000 });
  await reign(server.open(), shipping);
  const at = Number(server.flushed) % server.segmentBytes;
  expect(at % 8192).toBeLessThan(8000);
  expect(codeOf(await endWith(Buffer.alloc(100), at, server.flushed + 100n))).toBe('SOURCE_CORRUPT');
  expect(codeOf(await follow(null).ended)).toBe('SOURCE_CORRUPT');
});

test('takes a page of which nothing but the header is there for damage', async () => {
  server.transaction({ bytes: 2_000 });
  expect(codeOf(await endWith(Buffer.alloc(2_000), 40, server.flushed))).toBe('SOURCE_CORRUPT');
});

test('takes pages of another place or timeline for damage: a file that the server uses again', async () => {
  server.transaction({ bytes: 30_000 });
  await reign(server.open(), shipping);
  const before = server.flushed;
  server.transaction({ bytes: 30_000 });
  const page = Buffer.from(
    [...server.contents().values()][0]!.subarray(pageOf(server.flushed) - 8192).subarray(0, 8192),
  );
  const [address, timeline] = [Buffer.from(page), Buffer.from(page)];
  address.writeBigUInt64LE(page.readBigUInt64LE(8) - 0x100000n, 8);
  timeline.writeUInt32LE(2, 4);
  for (const other of [address, timeline]) {
    expect(codeOf(await endWith(other, pageOf(server.flushed) - 8192, server.flushed))).toBe('SOURCE_CORRUPT');
    expect(server.flushed > before).toBe(true);
  }
});

test('ends where the segment was removed before it was read, and says what may keep it', async () => {
  await reign(server.open(), shipping);
  for (let i = 0; i < 3; i++) server.transaction({ bytes: 700_000 });
  renameSync(server.path(SEGMENT), server.path('000000010000000000000009'));
  const error = await follow().ended;
  expect(error).toBeInstanceOf(Discontinuity);
  expect((error as Discontinuity).hint).toContain('slot');
});

test('waits while the server does not answer: what it read says so, and it never ships unasked', async () => {
  await reign(server.open(), shipping);
  server.failure = new ShipmateError('no answer', { code: 'SERVER_UNREACHABLE', verdict: 'retry' });
  server.transaction();
  const { slices, ended } = follow();
  expect(codeOf(await ended)).toBe('SERVER_UNREACHABLE');
  expect(slices).toEqual([]);
});

test('ends on a primary that has lost WAL which was shipped; a standby only waits', async () => {
  const before = server.flushed;
  server.transaction();
  await reign(server.open(), shipping);
  server.flushed = before;
  expect(await follow().ended).toBeInstanceOf(Discontinuity);
  server.isInRecovery = true;
  const { slices, end } = follow();
  const lsn = server.transaction();
  await until('it goes on', () => end()?.endsWith(lsn.toString(16).toUpperCase()));
  expect(slices[0]!.from).toEqual(shipping.position);
});

test('makes a slot when it reads or is told what is safe, never for a look; and holds what the child still needs', async () => {
  const source = server.open();
  await source.locate(null);
  await source.inspect();
  await source.backlog(null);
  expect(server.slotAt).toBeNull();
  await reign(source, shipping);
  const standby = server.standby();
  others.push(standby);
  server.transaction({ bytes: 3_000_000 });
  await reign(source, shipping);
  expect(server.slotAt).toBe(server.flushed);

  const twin = standby.open();
  const located = await twin.locate(shipping.head());
  expect(located.result).toBe('behind');
  expect(standby.slotAt).toBeNull();
  await twin.acknowledge(located.at!);
  expect(standby.slotAt).not.toBeNull();

  // The archive is ahead on the old timeline: the new one's first segment is needed from its beginning.
  standby.promote();
  for (const at of [twin, standby.open()]) {
    standby.slotAt = null;
    await at.acknowledge(shipping.position!);
    expect(standby.slotAt!).toBeLessThanOrEqual(standby.line.begin);
  }
});

test('says what is wrong where the history file of its timeline is not there', async () => {
  const standby = server.standby();
  others.push(standby);
  standby.promote();
  renameSync(standby.path('00000002.history'), standby.path('moved'));
  const source = standby.open();
  await expect(source.locate(null)).rejects.toMatchObject({ code: 'SOURCE_NO_HISTORY', verdict: 'retry' });
  writeFileSync(standby.path('00000002.history'), 'not a history\n');
  await expect(source.locate(null)).rejects.toMatchObject({ code: 'SOURCE_NO_HISTORY' });
  renameSync(standby.path('moved'), standby.path('00000002.history'));
  expect(await source.locate(null)).toMatchObject({ result: 'start', allowed: true });
});
