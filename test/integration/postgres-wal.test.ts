import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, jest, test } from '@jest/globals';
import { parseLsn } from '../../src/source/postgres/lsn.ts';
import { parseWalName, segmentStart } from '../../src/source/postgres/wal-name.ts';
import { type WalEvent, WalScanner } from '../../src/source/postgres/wal-records.ts';
import { type Postgres, startPostgres } from '../helpers/postgres.ts';
import { until } from '../helpers/wait.ts';

jest.setTimeout(60_000);

const MIB = 1 << 20;
const PAGE_BYTES = 8192;
const NAME = 'vor dem Löschen';

let server: Postgres;
beforeAll(async () => {
  server = await startPostgres({ settings: { wal_keep_size: '512MB', max_prepared_transactions: 10 } });
});
afterAll(() => server?.stop());

/** Each way in which WAL tells a time, in small records and in ones of many pages, before and behind a log switch. */
async function write(): Promise<void> {
  await server.initPgbench();
  await server.pgbench({ clients: 4, transactions: 300 });
  await server.sql('CREATE TABLE t (n int, text text)');
  for (const end of ['COMMIT', 'ROLLBACK']) {
    await server.sql(`BEGIN; INSERT INTO t VALUES (1, 'prepared'); PREPARE TRANSACTION 'p'`);
    await server.sql(`${end} PREPARED 'p'`);
  }
  await server.sql(`SELECT pg_create_restore_point('${NAME}')`);
  await server.sql('BEGIN; INSERT INTO t VALUES (2, $$rolled back$$); ROLLBACK');
  await server.sql('SELECT pg_switch_wal()');
  await server.sql(`DO $$ BEGIN FOR n IN 1..3000 LOOP BEGIN INSERT INTO t VALUES (n, 'sub'); EXCEPTION
    WHEN OTHERS THEN NULL; END; END LOOP; END $$`);
  await server.sql("SELECT pg_logical_emit_message(true, 'test', repeat('x', 3000000))");
  await server.pgbench({ clients: 4, transactions: 100 });
}

/** Each segment's first LSN, and its bytes as far as they are flushed. */
async function* flushed(): AsyncGenerator<[bigint, Buffer]> {
  const folder = join(server.dataDir, 'pg_wal');
  const end = parseLsn(await server.lsn());
  for (const name of (await readdir(folder)).sort()) {
    const segment = parseWalName(name);
    if (segment?.kind !== 'segment') continue;
    const start = segmentStart(segment, MIB);
    const bytes = await readFile(join(folder, name));
    yield [start, bytes.subarray(0, Math.max(0, Number(end - start)))];
  }
}

async function scanned(): Promise<WalEvent[]> {
  const events: WalEvent[] = [];
  const scanner = new WalScanner((event) => events.push(event));
  for await (const [start, bytes] of flushed()) scanner.feed(start, bytes);
  expect(scanner.blankAt).toBeNull();
  return events;
}

/** By its own program: each record's LSN and time, in microseconds. */
async function dumped(manager: string, first: string): Promise<Map<bigint, string>> {
  const folder = join(server.dataDir, 'pg_wal');
  const args = ['-p', folder, '-s', first, '-e', await server.lsn(), '-r', manager];
  const lines = (await server.program('pg_waldump', ...args)).split('\n');
  return new Map(
    lines.flatMap((line) => {
      const [, lsn, what] = /lsn: ([0-9A-F/]+), .*desc: (.*)/.exec(line) ?? [];
      return lsn === undefined || what === undefined ? [] : [[parseLsn(lsn), what] as const];
    }),
  );
}

const micros = (what: string) => {
  const [, date, clock, fraction] = /(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)\.(\d{6}) UTC/.exec(what) ?? [];
  return date === undefined ? null : Date.parse(`${date}T${clock}Z`) * 1000 + Number(fraction);
};

test('the scanner finds each transaction’s end, and its time, where pg_waldump does', async () => {
  await write();
  const events = await scanned();
  const first = '0/1000028';
  const transactions = [...(await dumped('Transaction', first))].filter(([, what]) => micros(what) !== null);
  const ends = events.filter(({ kind, start }) => kind !== 'restorePoint' && start >= parseLsn(first));
  expect(transactions.length).toBeGreaterThan(1_600);
  expect(ends.map(({ start, micros: at }) => [start, at])).toEqual(
    transactions.map(([lsn, what]) => [lsn, micros(what)]),
  );
  expect(new Set(ends.map(({ kind }) => kind))).toEqual(new Set(['commit', 'abort', 'prepare']));

  const [point] = [...(await dumped('XLOG', first))].filter(([, what]) => what.startsWith('RESTORE_POINT'));
  expect(events.filter(({ kind }) => kind === 'restorePoint')).toMatchObject([{ start: point![0], name: NAME }]);
});

test('wherever it begins, it never takes what a server has flushed for zeros, though that crashed inside large records', async () => {
  for (let crash = 0; crash < 6; crash++) {
    const [large, small] = await Promise.all([server.connect(), server.connect()]);
    const writes = [
      large.query(
        `DO $$ BEGIN LOOP PERFORM pg_logical_emit_message(false, 'x', repeat('y', 5000000)); END LOOP; END $$`,
      ),
      small.query(`DO $$ BEGIN LOOP INSERT INTO t VALUES (1, 'small'); COMMIT; END LOOP; END $$`),
    ];
    const ended = Promise.allSettled(writes);
    const before = await server.lsn();
    await until('megabytes are written', async () => parseLsn(await server.lsn()) - parseLsn(before) > 3_000_000n);
    await server.end('kill');
    await ended;
    await server.start();
    await server.sql('SELECT pg_switch_wal()');
  }
  let pages = 0;
  for await (const [start, bytes] of flushed()) {
    for (let at = 0; at < bytes.length; at += PAGE_BYTES) {
      pages++;
      const scanner = new WalScanner();
      for (const [from, to] of [
        [0, 1000],
        [1000, 3 * PAGE_BYTES],
      ] as const) {
        scanner.feed(start + BigInt(at + from), bytes.subarray(at + from, at + to));
      }
      if (scanner.blankAt !== null) throw new Error(`zeros at ${scanner.blankAt}`);
    }
  }
  expect(pages).toBeGreaterThan(3_000);
});
