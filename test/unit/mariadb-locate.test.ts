import { appendFileSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import type { Position } from '../../src/core/position.ts';
import { Discontinuity } from '../../src/errors.ts';
import type { Head, Witness } from '../../src/source/source.ts';
import { endOf } from '../contract/source-shipping.ts';
import * as binlog from '../helpers/binlog.ts';
import { BinlogDir } from '../helpers/binlog.ts';
import { benchOfBinlogs } from '../helpers/binlog-source.ts';
import { headWith } from '../helpers/head.ts';

const bench = benchOfBinlogs();

const locate = (head: Head = bench.shipping.head()) => bench.open().locate(head);
const sizeOf = (name: string) => readFileSync(join(bench.binlogs.dir, name)).length;

/** Ships every transaction as a chunk of its own. */
async function shipTransactions(count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    bench.binlogs.transaction({ bytes: 300 });
    await bench.shipping.ship(bench.source);
  }
}

function headAt(position: Position, chunks: readonly Witness[]): Head {
  return headWith({ position, chunks: chunks.toReversed() });
}

describe('finding the place in the binlogs', () => {
  test('gives readers what they need to start there', async () => {
    await shipTransactions(2);
    const { evidence } = await locate();
    expect(evidence).toMatchObject({ binlogs: 1, oldest: 'binlog.000001', newest: 'binlog.000001', gtids: '0-1-2' });
    const description = Buffer.from(String(evidence.formatDescription), 'base64');
    expect(description).toEqual(
      bench.binlogs
        .contents()
        .get('binlog.000001')!
        .subarray(4, 4 + description.length),
    );
  });

  test('resume: at the start of a file of which nothing was shipped yet', async () => {
    await shipTransactions(1);
    await bench.binlogs.rotate();
    await bench.shipping.ship(bench.source);
    const start = bench.shipping.chunks.find(({ from }) => from.segment === 'binlog.000002')!.from;
    const before = bench.shipping.chunks.filter(({ to }) => to.segment === 'binlog.000001');
    expect(await locate(headAt(start, before))).toMatchObject({ result: 'resume', at: start, allowed: true });
  });

  test('truncate: to the newest chunk that is wholly there, where the file ends inside the next one', async () => {
    await shipTransactions(3);
    const [, second, third] = bench.shipping.chunks;
    const size = sizeOf('binlog.000001');
    // The crash takes half of the last transaction.
    bench.binlogs.crash({ loseBytes: Math.floor((size - third!.from.offset) / 2) });
    const located = await locate();
    expect(located).toMatchObject({ result: 'truncate', allowed: true, at: second!.to });
    bench.shipping.open(located);
    await bench.shipping.ship(bench.open());
    expect(bench.shipping.contents()).toEqual(bench.binlogs.contents());
  });

  test('truncate: bytes of the same length are other bytes', async () => {
    await shipTransactions(2);
    const [first] = bench.shipping.chunks;
    const path = join(bench.binlogs.dir, 'binlog.000001');
    const whole = readFileSync(path);
    // The lost transaction's GTID is used again, by another transaction of the same length.
    const other = [binlog.gtid({ sequence: 2 }, 4, { seconds: 5 }), binlog.tableMap(), binlog.rows(300), binlog.xid()];
    writeFileSync(path, Buffer.concat([whole.subarray(0, first!.to.offset), ...other]));
    expect(sizeOf('binlog.000001')).toBe(bench.shipping.position!.offset);
    const located = await locate();
    expect(located).toMatchObject({ result: 'truncate', allowed: true, at: first!.to });
    bench.shipping.open(located);
    await bench.shipping.ship(bench.open());
    expect(bench.shipping.contents()).toEqual(bench.binlogs.contents());
  });

  test('what a truncation cut off is dead: it is neither the witness nor a place to go back to', async () => {
    await shipTransactions(3);
    const [before, first] = bench.shipping.chunks;
    const head = headAt(first!.to, [before!, first!]);
    // What was cut off is here again.
    expect(await locate(head)).toMatchObject({ result: 'resume', at: first!.to });
    truncateSync(join(bench.binlogs.dir, 'binlog.000001'), first!.to.offset - 1);
    expect(await locate(head)).toMatchObject({ result: 'truncate', at: before!.to });
  });

  test('nothing in common in a file that looks the same is never guessed at', async () => {
    await shipTransactions(1);
    truncateSync(join(bench.binlogs.dir, 'binlog.000001'), 200);
    expect(await locate()).toMatchObject({
      result: 'gap',
      allowed: false,
      at: { segment: 'binlog.000001', offset: 0 },
      reason: expect.stringContaining('differs'),
    });
  });

  test("another server's binlogs are refused while they lack what was shipped, even where they have just begun", async () => {
    await shipTransactions(1);
    bench.use(new BinlogDir({ serverId: 2 }));
    const reason = '1 transaction behind in domain 0: nothing here, 0-1-1 in the archive';
    expect(await locate()).toMatchObject({ result: 'behind', allowed: false, reason });
  });

  test('a log that starts again, but with a past, is refused', async () => {
    await shipTransactions(1);
    bench.use(new BinlogDir());
    const header = [
      binlog.MAGIC,
      binlog.formatDescription({ seconds: 1_800_000_000 }),
      binlog.gtidList([{ sequence: 9 }]),
    ];
    writeFileSync(bench.binlogs.newest, Buffer.concat(header));
    expect(await locate()).toMatchObject({
      result: 'gap',
      allowed: false,
      reason: expect.stringContaining('nothing in common'),
    });
  });

  test('reset: the history is not searched beyond what could be there', async () => {
    await shipTransactions(1);
    const chunks = bench.shipping.chunks;
    const position = bench.shipping.position!;
    bench.use(new BinlogDir({ seconds: 1 }));
    const header = [binlog.MAGIC, binlog.formatDescription({ seconds: 1_800_000_000 }), binlog.gtidList([])];
    writeFileSync(bench.binlogs.newest, Buffer.concat(header));
    let asked = 0;
    const head: Head = {
      ...headWith({ position, chunks }),
      async *history() {
        for (;;) {
          asked++;
          yield chunks.at(-1)!;
        }
      },
    };
    expect(await locate(head)).toMatchObject({
      result: 'reset',
      allowed: true,
      at: { segment: 'binlog.000001', offset: 0 },
    });
    expect(asked).toBeLessThan(3);
  });

  test("gap: a log that was begun before the archive's last file is no new one, but another server's of the same id", async () => {
    await bench.binlogs.rotate();
    await shipTransactions(1);
    bench.use(new BinlogDir());
    bench.binlogs.transaction();
    expect(await locate()).toMatchObject({
      result: 'gap',
      allowed: false,
      reason: expect.stringContaining('do two servers have server_id 1?'),
    });
  });

  test('gap: a log that was given another name began anew as well, but the old one may have more than was shipped', async () => {
    await shipTransactions(1);
    bench.use(new BinlogDir());
    writeFileSync(join(bench.binlogs.dir, 'mysql-bin.000001'), readFileSync(bench.binlogs.newest));
    writeFileSync(bench.binlogs.index, './mysql-bin.000001\n');
    expect(await locate()).toMatchObject({
      result: 'gap',
      allowed: false,
      at: { segment: 'mysql-bin.000001', offset: 0 },
      reason: expect.stringContaining('binlog.000001 may have more than was shipped'),
    });
  });

  test('gap: tells how much is missing', async () => {
    await shipTransactions(1);
    for (let i = 0; i < 4; i++) {
      bench.binlogs.transaction();
      await bench.binlogs.rotate();
    }
    bench.binlogs.purge();
    expect(await locate()).toMatchObject({
      result: 'gap',
      allowed: false,
      reason: 'binlog.000001 and 3 more are gone: the oldest binlog here is binlog.000005',
    });
  });

  test('gap: a file was taken from between what was shipped and the rest', async () => {
    await shipTransactions(1);
    bench.binlogs.transaction();
    await bench.binlogs.rotate();
    bench.binlogs.transaction();
    await bench.binlogs.rotate();
    rmSync(join(bench.binlogs.dir, 'binlog.000002'));
    const before = bench.open();
    expect(await before.locate(bench.shipping.head())).toMatchObject({ result: 'resume' });
    const ending = await bench.follow({ by: before });
    expect(ending).toBeInstanceOf(Discontinuity);
    expect(await locate()).toMatchObject({
      result: 'gap',
      allowed: false,
      at: { segment: 'binlog.000003', offset: 0 },
      reason: 'what followed binlog.000001 is gone: the next binlog here is binlog.000003',
    });
  });

  test('gap: the direct successor is no proof while a transaction is open, or starts with another ID', async () => {
    await shipTransactions(1);
    bench.binlogs.transaction();
    await bench.binlogs.rotate();
    bench.binlogs.purge();
    expect(await locate()).toMatchObject({
      result: 'gap',
      allowed: false,
      reason: 'the end of binlog.000001 is gone: the oldest binlog here is binlog.000002',
    });
    const position = { ...bench.shipping.position!, id: '0-1-2' };
    const open = { ...bench.shipping.chunks.at(-1)!, to: position, openTransaction: true };
    expect(await locate(headAt(position, [open]))).toMatchObject({ result: 'gap', allowed: false });
    expect(await locate(headAt(position, [{ ...open, openTransaction: false }]))).toMatchObject({ result: 'resume' });
  });

  test('behind: an archive, but no binlogs here', async () => {
    await shipTransactions(1);
    bench.use(new BinlogDir(), { start: false });
    expect(await locate()).toMatchObject({ result: 'behind', allowed: false, at: null });
  });

  test('a position that is not here is a break to the reader, too', async () => {
    await shipTransactions(1);
    const position = bench.shipping.position!;
    bench.binlogs.transaction();
    for (const change of [
      { incarnation: 'other' },
      { segment: 'binlog.000009' },
      { origin: 'mariadb-2' },
      { offset: 99_999 },
    ]) {
      const slices = bench.open().read({ ...position, ...change }, bench.stop.signal);
      expect(await endOf(slices)).toBeInstanceOf(Discontinuity);
    }
  });
});

describe("MySQL's binlogs without GTIDs", () => {
  const transaction = () => [binlog.anonymousGtid(), binlog.query('BEGIN'), binlog.rows(50), binlog.xid()];

  test('have places as IDs, and no successor is proven by them', async () => {
    bench.use(new BinlogDir({ flavour: 'mysql' }));
    bench.binlogs.write(...transaction());
    await bench.shipping.ship(bench.source);
    const size = sizeOf('binlog.000001');
    expect(bench.shipping.position).toMatchObject({ origin: 'mysql-1', id: `binlog.000001:${size}` });
    await bench.binlogs.rotate();
    expect(await locate()).toMatchObject({ result: 'resume', at: bench.shipping.position });
    bench.binlogs.purge();
    expect(await locate()).toMatchObject({ result: 'gap', allowed: false });
    expect((await bench.open().locate(null)).at).toMatchObject({ id: 'binlog.000002:0' });
  });

  test('among some with GTIDs: equal IDs are no proof that nothing was purged before it was shipped', async () => {
    bench.use(new BinlogDir({ flavour: 'mysql' }));
    bench.binlogs.transaction();
    await bench.shipping.ship(bench.source);
    bench.binlogs.write(...transaction());
    await bench.binlogs.rotate();
    bench.binlogs.purge();
    expect(await bench.open().locate(bench.shipping.head())).toMatchObject({ result: 'gap', allowed: false });
  });

  test('of every shape of group end where they end', async () => {
    bench.use(new BinlogDir({ flavour: 'mysql' }));
    const groups = [
      transaction(),
      [binlog.mysqlGtid({ sequence: 1 }), binlog.query('CREATE TABLE t (id INT)')],
      [binlog.mysqlGtid({ sequence: 2 }), binlog.query('BEGIN'), binlog.query('INSERT'), binlog.query('COMMIT')],
      [binlog.mysqlGtid({ sequence: 3 }), binlog.event(40, Buffer.alloc(300))],
      [binlog.mysqlGtid({ sequence: 4 }), binlog.query("XA START X'61',X'',1"), binlog.rows(20), binlog.xaPrepare()],
      [binlog.mysqlGtid({ sequence: 5 }), binlog.query("XA COMMIT X'61',X'',1")],
      [binlog.taggedGtid({ tag: 'billing', sequence: 1 }), binlog.query('BEGIN'), binlog.rows(20), binlog.xid()],
    ];
    const ids = [1, 2, 3, 4, 5].map((last) => (last === 1 ? `${binlog.UUID}:1` : `${binlog.UUID}:1-${last}`));
    const expected = [/^binlog.000001:\d+$/, ...ids, `${binlog.UUID}:1-5:billing:1`];
    await bench.shipping.ship(bench.source);
    for (const [i, events] of groups.entries()) {
      for (const event of events.slice(0, -1)) {
        appendFileSync(bench.binlogs.newest, event);
        expect(await bench.source.end()).toEqual(bench.shipping.position);
      }
      appendFileSync(bench.binlogs.newest, events.at(-1)!);
      await bench.shipping.ship(bench.source);
      expect(bench.shipping.position!.id).toEqual(
        typeof expected[i] === 'string' ? expected[i] : expect.stringMatching(expected[i]!),
      );
      expect(await bench.source.end()).toEqual(bench.shipping.position);
    }
    rmSync(bench.binlogs.index);
  });
});

describe('files replaced under a running daemon', () => {
  test('in place, by others of the same name and size: noticed by standby and reader', async () => {
    await shipTransactions(1);
    for (let i = 0; i < 3; i++) await bench.binlogs.rotate();
    await bench.shipping.ship(bench.source);
    expect(await bench.source.locate(bench.shipping.head())).toMatchObject({ result: 'resume' });
    const reading = bench.follow();

    const other = new BinlogDir({ serverId: 9 });
    other.start();
    for (let i = 0; i < 3; i++) await other.rotate();
    other.write(binlog.gtid({ server: 9, sequence: 1 }, 4), binlog.tableMap(), binlog.rows(100), binlog.xid());
    const copyAll = () => {
      for (const name of [...other.names, 'binlog.index']) {
        writeFileSync(join(bench.binlogs.dir, name), readFileSync(join(other.dir, name)));
      }
    };
    copyAll();
    expect(await reading).toBeInstanceOf(Discontinuity);
    expect(await bench.source.locate(bench.shipping.head())).toMatchObject({
      result: 'gap',
      allowed: false,
      reason: expect.stringContaining('has come to 0-9-1 in domain 0 without 0-1-1'),
    });
    other.remove();
  });
});
