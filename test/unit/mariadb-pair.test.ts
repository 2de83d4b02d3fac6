import { afterEach, describe, expect, test } from '@jest/globals';
import type { Position } from '../../src/core/position.ts';
import { type MariadbSource, openMariadbSource } from '../../src/source/mariadb.ts';
import { Shipping } from '../contract/source-shipping.ts';
import { BinlogDir, UUID } from '../helpers/binlog.ts';
import { headWith } from '../helpers/head.ts';
import { ServerLog } from '../helpers/server-log.ts';

const log = { debug() {}, info() {}, warn() {}, error() {} };
const logs: { remove(): void }[] = [];
const opened: MariadbSource[] = [];

afterEach(async () => {
  for (const source of opened.splice(0)) await source.close();
  for (const each of logs.splice(0)) each.remove();
});

function server(id: number, options?: { state?: string }): ServerLog {
  const made = new ServerLog(id, options);
  logs.push(made);
  return made;
}

function open({ dir }: ServerLog): MariadbSource {
  const source = openMariadbSource({ stream: 'orders', dir, flavour: 'mariadb', busyPollMs: 5, log });
  opened.push(source);
  return source;
}

/** An archive's end in the log of another server, of which only the ID matters here. */
const headAt = (id: string): Position => ({
  origin: 'mariadb-99',
  incarnation: 'of another server',
  segment: 'binlog.000042',
  offset: 4711,
  id,
});
const locate = (here: ServerLog, id: string) => open(here).locate(headWith({ position: headAt(id) }));

/** The GTIDs that a reader from there on meets. */
async function shippedFrom(here: ServerLog, at: Position | null): Promise<string[]> {
  const shipping = new Shipping();
  shipping.open({ result: 'move', at, allowed: true, reason: '', evidence: {} });
  await shipping.ship(open(here));
  return shipping.chunks.map(({ to }) => to.id);
}

describe("moving to another server's log", () => {
  test('goes on before the first transaction that the archive has not', async () => {
    const here = server(2).apply('0-1-1 0-1-2').rotate().apply('0-1-3 0-1-4 0-1-5');
    const located = await locate(here, '0-1-3');
    expect(located).toMatchObject({
      result: 'move',
      allowed: true,
      at: { origin: 'mariadb-2', segment: 'binlog.000002', id: '0-1-3' },
      evidence: { gtids: '0-1-3', fileStart: expect.any(String) },
    });
    expect(await shippedFrom(here, located.at)).toEqual(['0-1-5']);
  });

  test('goes on at the end of a log that has no more, and is no distance away from it', async () => {
    const here = server(2).apply('0-1-1 0-1-2');
    const located = await locate(here, '0-1-2');
    expect(located).toMatchObject({ result: 'move', allowed: true, at: { id: '0-1-2' } });
    const source = open(here);
    expect(located.at).toEqual(await source.end());
    expect(await source.backlog(headAt('0-1-2'))).toEqual({ bytes: 0, oldestMs: null });
    here.rotate();
    expect(await source.backlog(headAt('0-1-2'))).toEqual({ bytes: 0, oldestMs: null });
    here.apply('0-1-3');
    const before = (await source.locate(headWith({ position: headAt('0-1-2') }))).at!;
    expect(before).toMatchObject({ segment: 'binlog.000002', offset: 0 });
    expect((await source.backlog(headAt('0-1-2'))).bytes).toBeGreaterThan(0);
    expect((await source.backlog(headAt('0-1-2'))).bytes).toBeLessThan((await source.backlog(before)).bytes);
  });

  test('a file of which nothing was shipped is shipped from its first byte', async () => {
    const here = server(2).apply('0-1-1').rotate().apply('0-1-2');
    const { at, evidence } = await locate(here, '0-1-1');
    expect(at).toMatchObject({ segment: 'binlog.000002', offset: 0, id: '0-1-1' });
    expect(evidence.fileStart).toBeUndefined();
  });

  test('domains that ended in another order here: nothing is skipped', async () => {
    const here = server(2).apply('0-1-1 1-1-1 1-1-2 1-1-3 0-1-2 0-1-3 1-1-4');
    const located = await locate(here, '0-1-3,1-1-1');
    expect(located).toMatchObject({ result: 'move', allowed: true, at: { id: '0-1-1,1-1-1' } });
    expect((await locate(here, '0-1-1,1-1-3')).at).toMatchObject({ id: '0-1-1,1-1-3' });
  });

  test('an earlier transaction of another server in the same domain is found by the lists, and in the files', async () => {
    const here = server(2, { state: '0-1-4,0-3-6' }).apply('0-2-7 0-2-8').rotate().apply('0-1-9 0-2-10');
    expect(await locate(here, '0-3-6')).toMatchObject({ result: 'move', at: { segment: 'binlog.000001', offset: 0 } });
    expect(await locate(here, '0-2-7')).toMatchObject({ result: 'move', at: { id: '0-2-7' } });
    expect(await locate(here, '0-2-8')).toMatchObject({ result: 'move', at: { segment: 'binlog.000002', offset: 0 } });
    expect(await locate(here, '0-1-9')).toMatchObject({ result: 'move', at: { id: '0-1-9' } });
    for (const never of ['0-1-8', '0-3-7']) expect((await locate(here, never)).allowed).toBe(false);
  });

  test('an archive of a log without transactions goes on from the start', async () => {
    expect(await locate(server(2).apply('0-1-1'), '')).toMatchObject({ result: 'move', at: { offset: 0, id: '' } });
  });

  test('a transaction that is not whole here is not here', async () => {
    const here = server(2).apply('0-1-1').begin('0-1-2');
    expect(await locate(here, '0-1-2')).toMatchObject({ result: 'behind', allowed: false });
    expect(await locate(here, '0-1-1')).toMatchObject({ result: 'move', at: { id: '0-1-1' } });
  });

  test('the place follows a log that grows, over files and large transactions', async () => {
    const here = server(2);
    const source = open(here);
    for (let n = 1; n <= 60; n++) {
      here.apply(`0-1-${n}`, { bytes: n % 20 === 0 ? 1_500_000 : 40_000 });
      if (n % 25 === 0) here.rotate();
      const { result, at } = await source.locate(headWith({ position: headAt(`0-1-${Math.max(1, n - 7)}`) }));
      expect([result, at?.id]).toEqual(['move', `0-1-${Math.max(1, n - 7)}`]);
    }
  });
});

describe('behind', () => {
  test('tells by how much in each domain', async () => {
    const here = server(2).apply('0-1-40 1-1-7');
    expect(await locate(here, '0-1-52,1-1-8,2-1-3')).toMatchObject({
      result: 'behind',
      allowed: false,
      at: null,
      reason:
        '12 transactions behind in domain 0: 0-1-40 here, 0-1-52 in the archive; ' +
        '1 transaction behind in domain 1: 1-1-7 here, 1-1-8 in the archive; ' +
        '3 transactions behind in domain 2: nothing here, 2-1-3 in the archive',
    });
    expect(await open(here).backlog(headAt('0-1-52'))).toMatchObject({ bytes: expect.any(Number) });
  });

  test('one domain behind keeps a log from going on, though another is ahead', async () => {
    const here = server(2).apply('0-1-1 0-1-2 1-1-1');
    expect(await locate(here, '0-1-1,1-1-2')).toMatchObject({ result: 'behind', allowed: false });
  });
});

describe('what is missing here', () => {
  test('was purged: the gap is named', async () => {
    const here = server(2).apply('0-1-1 0-1-2 1-1-1').rotate().apply('0-1-3').purge();
    expect(await locate(here, '0-1-1')).toMatchObject({
      result: 'gap',
      allowed: false,
      at: { segment: 'binlog.000002', offset: 0 },
      reason: 'transactions 2 to 2 of domain 0, transactions 1 to 1 of domain 1 are not in the binlogs here any more',
    });
    expect(await locate(here, '0-1-2,1-1-1')).toMatchObject({ result: 'move', allowed: true });
  });

  test('came with a backup, not through the log: neither move nor fork', async () => {
    const here = server(2).apply('0-1-53 0-1-54');
    expect(await locate(here, '0-1-40')).toMatchObject({
      result: 'gap',
      allowed: false,
      reason: 'the binlogs here begin with 0-1-53 in domain 0, the archive ends with 0-1-40',
    });
    expect(await locate(here, '0-3-52')).toMatchObject({ result: 'gap', allowed: false });
    // The same server's very next transaction: nothing can be between.
    expect(await locate(here, '0-1-52')).toMatchObject({ result: 'move', allowed: true, at: { offset: 0 } });
    expect(await locate(here, '0-1-53')).toMatchObject({ result: 'move', allowed: true, at: { id: '0-1-53' } });
  });

  test('a domain that the archive knows nothing of must begin with its first transaction', async () => {
    expect(await locate(server(2).apply('0-1-1 5-1-1'), '0-1-1')).toMatchObject({ result: 'move', allowed: true });
    expect(await locate(server(2).apply('0-1-1 5-1-9'), '0-1-1')).toMatchObject({ result: 'gap', allowed: false });
  });

  test('IDs that are places or of another kind say nothing here', async () => {
    const here = server(2).apply('0-1-1');
    for (const id of ['binlog.000001:1500', '3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5']) {
      expect(await locate(here, id)).toMatchObject({ result: 'gap', allowed: false });
    }
  });
});

describe('going back and forth between two servers', () => {
  test("another server's chunks between are no reason to go back to one's own older ones", async () => {
    const own = server(1).apply('0-1-1 0-1-2');
    const shipping = new Shipping();
    await shipping.ship(open(own));
    const other = server(2).apply('0-1-1 0-1-2 0-2-3 0-2-4');
    shipping.open(await open(other).locate(shipping.head()));
    await shipping.ship(open(other));
    expect(shipping.position).toMatchObject({ origin: 'mariadb-2', id: '0-2-4' });
    // As a replica that lags, then as one that has caught up.
    expect(await open(own).locate(shipping.head())).toMatchObject({ result: 'behind', allowed: false });
    own.apply('0-2-3 0-2-4');
    const back = await open(own).locate(shipping.head());
    expect(back).toMatchObject({ result: 'move', allowed: true, at: { origin: 'mariadb-1', id: '0-2-4' } });
    shipping.open(back);
    own.apply('0-1-5');
    await shipping.ship(open(own));
    expect(shipping.position!.id).toBe('0-1-5');
  });
});

describe("MySQL's sets of GTIDs", () => {
  test('move by inclusion: what is purged, missing or of another way is told', async () => {
    const binlogs = new BinlogDir({ flavour: 'mysql', serverId: 2 });
    logs.push(binlogs);
    binlogs.start();
    for (let n = 0; n < 3; n++) binlogs.transaction();
    await binlogs.rotate();
    binlogs.transaction();
    const source = openMariadbSource({ stream: 'orders', dir: binlogs.dir, flavour: 'mysql', busyPollMs: 5, log });
    opened.push(source);
    const locateSet = (id: string) => source.locate(headWith({ position: { ...headAt(id), origin: 'mysql-99' } }));
    expect(await locateSet(`${UUID}:1-2`)).toMatchObject({ result: 'move', allowed: true, at: { id: `${UUID}:1-2` } });
    expect(await locateSet(`${UUID}:1-4`)).toMatchObject({ result: 'move', at: { id: `${UUID}:1-4` } });
    expect(await locateSet(`${UUID}:1-9`)).toMatchObject({
      result: 'behind',
      allowed: false,
      reason: `5 transactions behind: ${UUID}:5-9 are not here yet`,
    });
    const other = UUID.replace('3e11', '4e11');
    const apart = await locateSet(`${UUID}:1-2,${other}:1`);
    expect([apart.result, apart.allowed]).toEqual(['gap', false]);
    expect(apart.reason).toContain(`has ${UUID}:3-4 which the archive has not, and lacks ${other}:1`);
    expect(await locateSet('binlog.000001:1500')).toMatchObject({ result: 'gap', allowed: false });
    binlogs.purge();
    expect(await locateSet(`${UUID}:1-2`)).toMatchObject({
      result: 'gap',
      reason: `${UUID}:3 are not in the binlogs here any more`,
    });
    expect(await locateSet(`${UUID}:1-3`)).toMatchObject({ result: 'move', at: { offset: 0 } });
  });
});
