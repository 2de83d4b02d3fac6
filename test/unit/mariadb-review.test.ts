import { describe, expect, test } from '@jest/globals';
import { BinlogCutter } from '../../src/source/mariadb/cutter.ts';
import * as binlog from '../helpers/binlog.ts';
import { archiveOf, LIVING, REPLICA, server, twinAt } from '../helpers/server-twin.ts';

describe('a dead branch, while the living one has shipped nothing but what both share', () => {
  test('does not come back by itself, whatever its server says', async () => {
    const old = server(1);
    const archive = await archiveOf(old, ['0-1-1', '0-1-2', '0-1-3 0-1-4']);
    const promoted = server(2).apply('0-1-1 0-1-2 0-1-3 0-2-4');
    archive.open(await twinAt(promoted)(archive.head(), LIVING));
    expect(archive.position).toMatchObject({ origin: 'mariadb-2', id: '0-1-2' });
    for (const facts of [LIVING, { ...REPLICA, slavePosition: '0-1-4' }, null]) {
      const located = await twinAt(old)(archive.head(), facts);
      expect(located).toMatchObject({ result: 'fork', allowed: false, reason: expect.stringContaining('at 0-1-4') });
      expect(located).toMatchObject({ at: { origin: 'mariadb-1', id: '0-1-2' }, common: archive.position });
    }
  });

  test('is no reason to refuse another server of the living one', async () => {
    const archive = await archiveOf(server(1), ['0-1-1 1-1-1', '0-1-2 1-1-2', '0-1-3']);
    const promoted = server(2).apply('0-1-1 1-1-1 0-2-2');
    archive.open(await twinAt(promoted)(archive.head(), LIVING));
    const third = server(3).apply('0-1-1 1-1-1');
    expect(await twinAt(third)(archive.head(), LIVING)).toMatchObject({ result: 'move', allowed: true });
    third.apply('0-2-2');
    expect(await twinAt(third)(archive.head(), LIVING)).toMatchObject({ result: 'move', allowed: true });
  });
});

describe('a log that began anew (RESET MASTER)', () => {
  const JAN_1 = 1_767_225_600;

  test("is not followed by another server's log of before, whose GTIDs are the same", async () => {
    const seconds = JAN_1;
    const replica = server(1, { seconds }).apply('0-2-1 0-2-2 0-2-3 0-2-4 0-2-5');
    const primary = server(2, { seconds });
    const archive = await archiveOf(primary, ['0-2-1 0-2-2 0-2-3 0-2-4', '0-2-5']);
    const anew = server(2, { seconds: seconds + 3600 });
    const reset = await twinAt(anew)(archive.head(), LIVING);
    expect(reset).toMatchObject({ result: 'reset', allowed: true });
    archive.open(reset);
    await archiveOf(anew, ['0-2-1', '0-2-2'], archive);
    expect(archive.position).toMatchObject({ id: '0-2-2' });
    for (const facts of [LIVING, REPLICA, null]) {
      const located = await twinAt(replica)(archive.head(), facts);
      expect(located).toMatchObject({ allowed: false, reason: expect.stringContaining('RESET MASTER') });
    }
    const seeded = server(3, { seconds: seconds + 7200 }).apply('0-2-1 0-2-2 0-2-3');
    expect(await twinAt(seeded)(archive.head(), REPLICA)).toMatchObject({ result: 'move', allowed: true });
  });

  test('is not what a server is that was made anew from a backup of its successor', async () => {
    const archive = await archiveOf(server(2), ['0-2-1', '0-2-2']);
    const rebuilt = server(2, { seconds: JAN_1 });
    const neverReplica = { ...LIVING, slavePosition: '' };
    expect(await twinAt(rebuilt)(archive.head(), neverReplica)).toMatchObject({ result: 'reset', allowed: true });
    // Where its successor had lost a tail, a backup of that stands before the archive's end.
    for (const slavePosition of ['0-1-1', '0-1-1,7-1-1']) {
      const facts = { ...LIVING, slavePosition };
      expect(await twinAt(rebuilt)(archive.head(), facts)).toMatchObject({ allowed: false });
    }
    // Transactions 3 to 9 are nowhere here.
    const given = { ...LIVING, slavePosition: '0-1-9' };
    expect(await twinAt(rebuilt)(archive.head(), given)).toMatchObject({ allowed: false });
    rebuilt.apply('0-2-10');
    expect(await twinAt(rebuilt)(archive.head(), given)).toMatchObject({ result: 'gap', allowed: false });
  });
});

test('a fork is found where the log came on after the first look, by more chunks than one look remembers', async () => {
  const gtids = Array.from({ length: 40 }, (_, n) => `0-1-${n + 1}`);
  const archive = await archiveOf(server(1), gtids);
  const replica = server(2).apply('0-1-1');
  const twin = twinAt(replica);
  // Between its start and START SLAVE a replica looks like a living server.
  expect(await twin(archive.head(), LIVING)).toMatchObject({ result: 'behind', allowed: false });
  replica.apply(gtids.slice(1, 39).join(' ')).apply('0-2-40');
  expect(await twin(archive.head(), LIVING)).toMatchObject({ result: 'fork', allowed: true, common: { id: '0-1-39' } });
});

describe('a hole in the other server’s own log', () => {
  test('is a gap: filters left something out, or log_slave_updates was off for a while', async () => {
    const archive = await archiveOf(server(1), ['0-1-1', '0-1-2']);
    const here = server(2).apply('0-1-1 0-1-2').rotate().apply('0-1-6 0-1-7');
    expect(await twinAt(here)(archive.head(), LIVING)).toMatchObject({
      result: 'gap',
      allowed: false,
      reason: '0-1-6 follows 0-1-2 here: what is between them is not in these binlogs',
    });
  });

  test('is none before the archive’s end', async () => {
    const archive = await archiveOf(server(1), ['0-1-1', '0-1-6']);
    const here = server(2).apply('0-1-1 0-1-6 0-2-7');
    expect(await twinAt(here)(archive.head(), LIVING)).toMatchObject({ result: 'move', allowed: true });
  });
});

describe('a term that began inside a file and has no chunk yet', () => {
  test('is gone on with by its own twin after a restart, and by the other', async () => {
    const old = server(1);
    const archive = await archiveOf(old, ['0-1-1', '0-1-2']);
    const promoted = server(2).apply('0-1-1 0-1-2');
    const moved = await twinAt(promoted)(archive.head(), LIVING);
    expect(moved).toMatchObject({ result: 'move', allowed: true, at: { origin: 'mariadb-2', id: '0-1-2' } });
    archive.open(moved);
    expect(await twinAt(promoted)(archive.head(), LIVING)).toMatchObject({ allowed: true, at: moved.at });
    expect(await twinAt(old)(archive.head(), REPLICA)).toMatchObject({ result: 'move', at: { origin: 'mariadb-1' } });
    promoted.apply('0-2-3').rotate();
    const again = await twinAt(promoted)(archive.head(), LIVING);
    expect(again).toMatchObject({ allowed: true, at: moved.at });
    archive.open(again);
    await archiveOf(promoted, ['0-2-4'], archive);
    expect(archive.position).toMatchObject({ origin: 'mariadb-2', id: '0-2-4' });
  });

  test('is gone on with where it is the branch that a fork went to', async () => {
    const archive = await archiveOf(server(1), ['0-1-1', '0-1-2', '0-1-3']);
    const promoted = server(2).apply('0-1-1 0-1-2 0-2-3');
    const forked = await twinAt(promoted)(archive.head(), LIVING);
    expect(forked).toMatchObject({ result: 'fork', allowed: true });
    archive.open(forked);
    expect(await twinAt(promoted)(archive.head(), LIVING)).toMatchObject({ allowed: true, at: forked.at });
  });

  test('whose server then lost its end to a crash is not taken for what was shipped', async () => {
    const archive = await archiveOf(server(1), ['0-1-1', '0-1-2']);
    archive.open(await twinAt(server(2).apply('0-1-1 0-1-2'))(archive.head(), LIVING));
    const crashed = server(2).apply('0-1-1');
    expect(await twinAt(crashed)(archive.head(), LIVING)).toMatchObject({ result: 'behind', allowed: false });
    crashed.apply('0-2-2', { bytes: 5000 });
    expect(await twinAt(crashed)(archive.head(), LIVING)).toMatchObject({ result: 'fork', at: { id: '0-1-1' } });
  });
});

test("a MySQL log that begins inside a file is cut by what is new in it: the file's own list lacks what is before", () => {
  const transaction = (sequence: number) => [
    binlog.mysqlGtid({ sequence }),
    binlog.query('BEGIN'),
    binlog.rows(50),
    binlog.xid(),
  ];
  const start = [binlog.MAGIC, binlog.formatDescription({ flavour: 'mysql' }), binlog.previousGtids([])];
  const wanted = Buffer.concat(transaction(6));
  const cutter = new BinlogCutter({ kind: 'id', id: `${binlog.UUID}:1-6` }, `${binlog.UUID}:1-5`);
  cutter.feed('binlog.000001', Buffer.concat(start));
  expect(cutter.feed('binlog.000001', Buffer.concat([wanted, ...transaction(7)]))).toBe(wanted.length);
  expect(cutter.id).toBe(`${binlog.UUID}:1-6`);
});
