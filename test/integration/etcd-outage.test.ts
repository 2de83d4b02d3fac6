import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { Coordination, Cursor, Leadership } from '../../src/coordination/coordination.ts';
import { type EtcdOptions, openEtcd } from '../../src/coordination/etcd.ts';
import { Deposed } from '../../src/errors.ts';
import { cursorAt, twinOf } from '../contract/coordination.contract.ts';
import { type Etcd, type EtcdNode, startEtcd } from '../helpers/etcd.ts';
import { measured } from '../helpers/measured.ts';
import { type Proxy as NetworkProxy, startProxy } from '../helpers/proxy.ts';
import { recordedLog } from '../helpers/recorded-log.ts';
import { until } from '../helpers/wait.ts';

const TTL_MS = 2_000;
const never = new AbortController().signal;

let clusters = 0;
let cluster: string;
let opened: Coordination[];
beforeEach(() => {
  cluster = `outage-${clusters++}`;
  opened = [];
});
afterEach(() => Promise.all(opened.map((coordination) => coordination.close())));

type Means = Pick<EtcdOptions, 'endpoints'> & Partial<EtcdOptions>;

async function open(node: string, means: Means): Promise<Coordination> {
  const options = { cluster, node, ttlMs: TTL_MS, onEtcdLoss: 'continue', log: recordedLog(), ...means } as const;
  const coordination = await openEtcd(options);
  opened.push(coordination);
  return coordination;
}

const lead = (coordination: Coordination) => coordination.elector('orders').campaign(never);

async function isDeposed({ signal }: Leadership): Promise<void> {
  await until('the leadership ends', () => signal.aborted);
  expect(signal.reason).toBeInstanceOf(Deposed);
}

/** Resolves with the time, by performance.now(), at which the leadership stops being confirmed. */
async function unconfirmed(leadership: Leadership): Promise<number> {
  await until('the lease runs out', () => !leadership.confirmed(), { everyMs: 2 });
  return performance.now();
}

describe('one of three nodes lost (timed)', () => {
  const LEASE_MS = 3_000;
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await startEtcd({ nodes: 3 });
  });
  afterAll(() => etcd?.stop());

  /** The node that leads etcd itself: losing it hurts most. On a busy machine etcd may be between two leaders. */
  function leadingNode(): Promise<EtcdNode> {
    return until('etcd has a leader', async () => {
      const statuses: EtcdStatus[] = JSON.parse(await etcd.ctl('endpoint', 'status', '-w', 'json'));
      const leading = statuses.find(({ Status }) => Status.leader === Status.header.member_id);
      return etcd.nodes.find(({ endpoint }) => endpoint === leading?.Endpoint);
    });
  }
  interface EtcdStatus {
    readonly Endpoint: string;
    readonly Status: { readonly leader: number; readonly header: { readonly member_id: number } };
  }

  test.each(['frozen', 'killed'] as const)('%s: the leader stays confirmed, and soon saves again', async (how) => {
    const node = await leadingNode();
    // The lost node is the one that every call went to.
    const endpoints = [node.endpoint, ...etcd.endpoints.filter((endpoint) => endpoint !== node.endpoint)];
    const a = await open('a', { endpoints, ttlMs: LEASE_MS });
    const leadership = await lead(a);
    await a.cursors.save(cursorAt(1), leadership);

    const lostMs = performance.now();
    if (how === 'frozen') node.freeze();
    else await node.kill('SIGKILL');
    await until('a cursor is saved again', () => a.cursors.save(cursorAt(2), leadership).then(() => true));
    measured(`saved again after the node that led etcd was ${how}`, performance.now() - lostMs, 4_000);
    while (performance.now() - lostMs < LEASE_MS + 2_000) {
      expect(leadership.confirmed()).toBe(true);
      await delay(10);
    }
    if (how === 'frozen') node.thaw();
    else await node.restart();
  });
});

describe('cut off from etcd (timed)', () => {
  let etcd: Etcd;
  let proxy: NetworkProxy;
  beforeAll(async () => {
    etcd = await startEtcd();
  });
  afterAll(() => etcd?.stop());
  beforeEach(async () => {
    proxy = await startProxy(etcd.endpoints[0]!);
  });
  afterEach(() => proxy?.stop());

  test('a leader knows when its lease ends, before its twin leads; it learns of that when it is back', async () => {
    const a = await open('a', { endpoints: [proxy.endpoint] });
    const b = await open('b', { endpoints: etcd.endpoints });
    const old = await lead(a);
    await a.twins.publish(twinOf('a', 'master'));
    const next = lead(b).then((leadership) => ({ leadership, atMs: performance.now() }));

    proxy.cut();
    const cutMs = performance.now();
    expect(old.confirmed()).toBe(true);
    expect(old.remainingMs()).toBeGreaterThan(TTL_MS / 2);
    const ranOutMs = await unconfirmed(old);
    const { leadership, atMs } = await next;
    measured('known to have run out after the cut', ranOutMs - cutMs, TTL_MS + 50);
    expect(ranOutMs).toBeLessThan(atMs);
    measured('the twin elected after the cut', atMs - cutMs, TTL_MS + 1_000);
    expect(old.signal.aborted).toBe(false); // nothing is proven yet
    await expect(a.overview()).rejects.toMatchObject({ code: 'ETCD_UNREACHABLE', verdict: 'retry' });
    expect(a.health().reachable).toBe(false);

    proxy.heal();
    await isDeposed(old);
    await expect(a.cursors.save(cursorAt(1), old)).rejects.toThrow(Deposed);
    const again = lead(a);
    await until('the twin is seen again', async () => (await b.twins.read()).length === 1);
    await leadership.resign();
    expect((await again).confirmed()).toBe(true);
  });

  test('a leader that resigns, unheard, does not hold the stream up once etcd hears it again', async () => {
    const a = await open('a', { endpoints: [proxy.endpoint] });
    const b = await open('b', { endpoints: etcd.endpoints });
    const old = await lead(a);
    proxy.cut();
    const next = lead(b);
    const resigning = performance.now();
    await old.resign();
    measured('resigning, unheard', performance.now() - resigning, 1_500);
    proxy.heal();
    expect((await next).confirmed()).toBe(true);
  });

  test('with onEtcdLoss: stop the leadership ends when the lease runs out', async () => {
    const a = await open('a', { endpoints: [proxy.endpoint], onEtcdLoss: 'stop' });
    const old = await lead(a);
    proxy.cut();
    const [ranOutMs] = await Promise.all([unconfirmed(old), until('it ends', () => old.signal.aborted)]);
    measured('the leadership ended after the lease had run out', performance.now() - ranOutMs, 200);
    expect(old.signal.reason).toMatchObject({ code: 'LEASE_RAN_OUT', verdict: 'retry' });

    const again = lead(a);
    proxy.heal();
    const leadership = await again;
    expect(leadership.revision).toBeGreaterThan(old.revision);
    expect(leadership.signal.aborted).toBe(false);
    await expect(a.cursors.save(cursorAt(1), old)).rejects.toThrow(Deposed);
    await a.cursors.save(cursorAt(2), leadership);
  });

  test('a watch that was away while etcd compacted its history gives the newest cursor', async () => {
    const a = await open('a', { endpoints: etcd.endpoints });
    const away = await open('b', { endpoints: [proxy.endpoint] });
    const leadership = await lead(a);
    await a.cursors.save(cursorAt(1), leadership);
    const seen: Cursor[] = [];
    const stop = new AbortController();
    const watching = (async () => {
      for await (const cursor of away.cursors.watch('orders', stop.signal)) seen.push(cursor);
    })();
    await until('it sees the first', () => seen.length === 1);

    proxy.cut();
    for (let slot = 2; slot <= 9; slot++) await a.cursors.save(cursorAt(slot), leadership);
    const [status] = JSON.parse(await etcd.ctl('endpoint', 'status', '-w', 'json'));
    await etcd.ctl('compact', String(status.Status.header.revision));
    proxy.reset();
    proxy.heal();
    await until('it sees the last', () => seen.at(-1)?.slot === 9);
    // And the watch lives again: this one comes by itself, not by the next poll.
    await delay(1_200);
    await a.cursors.save(cursorAt(10), leadership);
    const savedMs = performance.now();
    await until('it sees one more', () => seen.at(-1)?.slot === 10, { everyMs: 5 });
    measured('a cursor seen after it was saved', performance.now() - savedMs, 300);
    stop.abort();
    await watching;
  });
});

describe('etcd itself', () => {
  let etcd: Etcd;
  beforeEach(async () => {
    etcd = await startEtcd();
  });
  afterEach(() => etcd?.stop());
  const openDirect = (node: string) => open(node, { endpoints: etcd.endpoints });

  test('not there at the start: calls say so, and a campaign waits for it', async () => {
    const node = etcd.nodes[0]!;
    await node.stop();
    const a = await open('a', { endpoints: etcd.endpoints });
    const error = await a.cursors.load('orders').catch((caught: unknown) => caught);
    expect(error).toMatchObject({
      code: 'ETCD_UNREACHABLE',
      verdict: 'retry',
      message: `etcd can't be reached at ${node.endpoint} (nothing listens there)`,
    });
    await expect(a.twins.publish(twinOf('a'))).rejects.toMatchObject({ code: 'ETCD_UNREACHABLE' });
    const elected = lead(a);
    await node.restart();
    expect((await elected).confirmed()).toBe(true);
  });

  test('down for longer than the lease, then back with its data: the leader leads on', async () => {
    const [a, b] = [await openDirect('a'), await openDirect('b')];
    const leadership = await lead(a);
    const waiting = new AbortController();
    const queued = b.elector('orders').campaign(waiting.signal);
    queued.catch(() => {});
    await etcd.nodes[0]!.stop();
    await unconfirmed(leadership);
    await etcd.nodes[0]!.restart();
    await until('it is confirmed again', () => leadership.confirmed());
    await a.cursors.save(cursorAt(1), leadership);
    expect((await b.overview()).streams[0]).toMatchObject({ master: 'a', cursor: cursorAt(1) });
    waiting.abort(new Error('done'));
    await expect(queued).rejects.toThrow('done');
  });

  test('wiped: the leader is deposed, one of the twins leads, and both are seen again', async () => {
    const [a, b] = [await openDirect('a'), await openDirect('b')];
    for (let n = 0; n < 20; n++) await etcd.ctl('put', 'so that', 'revisions go far beyond where they start over');
    const old = await lead(a);
    const next = lead(b);
    await Promise.all([a.twins.publish(twinOf('a')), b.twins.publish(twinOf('b'))]);
    await a.cursors.save(cursorAt(1), old);
    const seen: number[] = [];
    const stop = new AbortController();
    const watching = (async () => {
      for await (const { slot } of b.cursors.watch('orders', stop.signal)) seen.push(slot);
    })();

    await etcd.nodes[0]!.restart({ wipe: true });
    await isDeposed(old);
    await expect(a.cursors.save(cursorAt(2), old)).rejects.toThrow(Deposed);
    expect(await b.cursors.load('orders')).toBeNull();
    const leadership = await Promise.race([next, lead(a)]);
    expect(leadership.revision).toBeLessThan(old.revision);
    const master = (await b.overview()).streams[0]!.master === 'a' ? a : b;
    await master.cursors.save(cursorAt(3), leadership);
    await until('the watch sees it', () => seen.at(-1) === 3);
    await until('both are seen', async () => (await b.twins.read()).length === 2);
    stop.abort();
    await watching;
  });

  test('put back to before the election: the leader is deposed, and an old key holds nobody up', async () => {
    const [a, b] = [await openDirect('a'), await openDirect('b')];
    const older = await lead(b);
    const copy = await etcd.nodes[0]!.copyData();
    await until('etcd is back', () => b.overview());
    await older.resign();
    const old = await lead(a);
    await a.cursors.save(cursorAt(1), old);

    await etcd.nodes[0]!.restart({ from: copy });
    await isDeposed(old);
    await expect(a.cursors.save(cursorAt(2), old)).rejects.toThrow(Deposed);
    await expect(b.cursors.save(cursorAt(2), older)).rejects.toThrow(Deposed);
    const leadership = await lead(a);
    await a.cursors.save(cursorAt(3), leadership);
    expect((await b.overview()).streams[0]).toMatchObject({ master: 'a', cursor: cursorAt(3) });
  });
});

test('full: the leader leads on and may resign, and is told what to do about it', async () => {
  const etcd = await startEtcd({ quotaBytes: 2 << 20 });
  try {
    const a = await open('a', { endpoints: etcd.endpoints });
    const leadership = await lead(a);
    await a.cursors.save(cursorAt(1), leadership);
    const filling = async () => {
      for (let n = 0; n < 100; n++) await etcd.ctl('put', `junk-${n}`, 'x'.repeat(100_000));
    };
    await expect(filling()).rejects.toThrow('database space exceeded');
    await expect(a.cursors.save(cursorAt(2), leadership)).rejects.toMatchObject({
      code: 'ETCD_FULL',
      verdict: 'retry',
      hint: expect.stringContaining('etcdctl alarm disarm'),
    });
    await delay(TTL_MS);
    expect(leadership.confirmed()).toBe(true);
    await leadership.resign();
    expect((await a.overview()).streams).toMatchObject([{ master: null, cursor: cursorAt(1) }]);
  } finally {
    await etcd.stop();
  }
});
