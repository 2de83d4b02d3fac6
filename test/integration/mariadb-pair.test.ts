import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { Discontinuity } from '../../src/errors.ts';
import { type MariadbSource, openMariadbSource } from '../../src/source/mariadb.ts';
import type { Located, LogSource } from '../../src/source/source.ts';
import { endOf, Shipping } from '../contract/source-shipping.ts';
import { type Mariadb, startMariadb } from '../helpers/mariadb.ts';
import { startProxy } from '../helpers/proxy.ts';
import { until } from '../helpers/wait.ts';

const log = { debug() {}, info() {}, warn() {}, error() {} };
const ARGS = ['--log-slave-updates', '--slave-parallel-mode=optimistic', '--sync-binlog=0'];

const opened: MariadbSource[] = [];
const open = ({ dataDir: dir, url }: Pick<Mariadb, 'dataDir' | 'url'>, { sql = true } = {}): MariadbSource => {
  const source = openMariadbSource({
    ...{ stream: 'orders', dir, flavour: 'mariadb', busyPollMs: 20, log },
    ...(sql && { url }),
  });
  opened.push(source);
  return source;
};

let servers: [Mariadb, Mariadb];
beforeAll(async () => {
  servers = await Promise.all([startMariadb({ serverId: 1, args: ARGS }), startMariadb({ serverId: 2, args: ARGS })]);
});
afterAll(() => Promise.all(servers.map((server) => server.stop())));
afterEach(async () => {
  for (const source of opened.splice(0)) await source.close();
});

/** Both servers as if new, the second a replica of the first; and an empty archive. */
async function begin({ parallelThreads = 0 } = {}): Promise<{ a: Mariadb; b: Mariadb; shipping: Shipping }> {
  const [a, b] = servers;
  for (const server of servers) await server.promote();
  for (const server of servers) {
    // A replica that has gone is listed until its server has something to send, which RESET MASTER prevents.
    const dumps = "SELECT id FROM information_schema.processlist WHERE command = 'Binlog Dump'";
    for (const { id } of await server.query(dumps)) await server.query(`KILL ${id}`).catch(() => {});
    await until('no replica is listed', async () => (await server.query('SHOW SLAVE HOSTS')).length === 0);
    await server.query('DROP DATABASE IF EXISTS shop');
    await server.query('RESET MASTER');
    await server.query("SET GLOBAL gtid_slave_pos = ''");
  }
  await b.replicateFrom(a, { parallelThreads });
  await a.query('CREATE DATABASE shop');
  await a.query('CREATE TABLE shop.orders (id INT AUTO_INCREMENT PRIMARY KEY, note TEXT) ENGINE=InnoDB');
  await write(a, 3);
  await b.waitFor(await a.gtids());
  return { a, b, shipping: new Shipping() };
}

async function write(server: Mariadb, count: number, { domain = 0 } = {}): Promise<void> {
  await server.query(`SET SESSION gtid_domain_id = ${domain}`);
  for (let n = 0; n < count; n++) await server.query("INSERT INTO shop.orders (note) VALUES ('a note')");
  await server.query('SET SESSION gtid_domain_id = 0');
}

const move = async (shipping: Shipping, to: LogSource): Promise<Located> => {
  const located = await to.locate(shipping.head());
  expect(located).toMatchObject({ result: 'move', allowed: true });
  shipping.open(located);
  return located;
};

/** A term in each log in turn; the IDs that the archive ends with. */
describe('two servers in replication', () => {
  test('the archive goes from one log to the other and back, with the failover', async () => {
    const { a, b, shipping } = await begin();
    await shipping.ship(open(a));
    await write(a, 2);
    await b.waitFor(await a.gtids());
    await move(shipping, open(b));
    await shipping.ship(open(b));
    expect(shipping.position).toMatchObject({ origin: 'mariadb-2', id: await a.gtids() });

    await b.promote();
    await write(b, 2);
    await a.replicateFrom(b);
    await a.waitFor(await b.gtids());
    await shipping.ship(open(b));
    await write(b, 1);
    await a.waitFor(await b.gtids());
    // What it wrote itself as the primary is no errant write.
    await move(shipping, open(a));
    await shipping.ship(open(a));
    expect(shipping.position).toMatchObject({ origin: 'mariadb-1', id: await b.gtids() });
    expect((await open(b).backlog(shipping.position)).bytes).toBe(0);
  });

  test('domains that parallel appliers end in another order: every transaction once, in its domain order', async () => {
    const { a, b, shipping } = await begin({ parallelThreads: 4 });
    const writers = [1, 2, 3].map(async (domain) => {
      const connection = await a.connect();
      await connection.query(`SET SESSION gtid_domain_id = ${domain}`);
      for (let n = 0; n < 40; n++) await connection.query(`INSERT INTO shop.orders (note) VALUES ('${domain}')`);
      await connection.end();
    });
    const source = open(a);
    await shipping.ship(source);
    await Promise.all(writers);
    await shipping.ship(source);
    await b.waitFor(await a.gtids());
    // From wherever the archive of the one ends, the other goes on with all that is missing.
    const ends = shipping.chunks.filter((chunk) => !chunk.openTransaction).map(({ to }) => to);
    const there = open(b);
    for (const position of ends.filter((_, i) => i % Math.ceil(ends.length / 8) === 0)) {
      const rest = new Shipping();
      const located = await there.locate({ ...shipping.head(), position });
      expect(located).toMatchObject({ result: 'move', allowed: true });
      rest.open(located);
      await rest.ship(open(b));
      expect(rest.position!.id).toBe(await a.gtids());
    }
  });

  test('a replica that lags is behind, by so much, and ready once it has caught up', async () => {
    const { a, b, shipping } = await begin();
    await b.stopReplica({ applierOnly: true });
    await write(a, 4);
    await shipping.ship(open(a));
    const twin = open(b);
    expect(await twin.locate(shipping.head())).toMatchObject({
      result: 'behind',
      allowed: false,
      reason: '4 transactions behind in domain 0: 0-1-5 here, 0-1-9 in the archive',
    });
    await b.startReplica();
    await until('caught up', async () => (await twin.locate(shipping.head())).result === 'move');
  });

  test('a promoted replica without the tail forks; the old primary, alone, never does', async () => {
    const { a, b, shipping } = await begin();
    const source = open(a);
    await shipping.ship(source);
    await b.stopReplica();
    await write(a, 2);
    await shipping.ship(source);
    const twin = open(b);
    expect(await twin.locate(shipping.head())).toMatchObject({ result: 'behind', allowed: false });
    await b.promote();
    await write(b, 1);
    const located = await until('fork', async () => {
      const answer = await twin.locate(shipping.head());
      return answer.allowed && answer;
    });
    expect(located).toMatchObject({ result: 'fork', common: { id: '0-1-5' }, at: { id: '0-1-5' } });
    expect((await open(b, { sql: false }).locate(shipping.head())).allowed).toBe(false);
    // A busy server always takes longer than a question is waited for at first.
    const slow = await startProxy(b.url);
    slow.delayMs = 250;
    const beside = open({ dataDir: b.dataDir, url: b.url.replace(/:\d+$/, `:${slow.port}`) });
    await until('fork, of a slow server', async () => (await beside.locate(shipping.head())).allowed, { everyMs: 400 });
    await slow.stop();
    shipping.open(located);
    await shipping.ship(open(b));
    expect(shipping.position!.id).toBe('0-2-6');

    await write(a, 5);
    expect(await open(a).locate(shipping.head())).toMatchObject({ result: 'fork', allowed: false });
    // As a replica it has its own rows where the new primary's belong, and stands still.
    await a.replicateFrom(b, { from: '0-1-5' });
    await until('its applier failed', async () => {
      const [status] = await a.query('SHOW SLAVE STATUS');
      return Number(status!.Last_SQL_Errno) !== 0;
    });
    expect(await open(a).locate(shipping.head())).toMatchObject({ result: 'fork', allowed: false });
  }, 120_000);

  test('an errant write on the replica is told, not shipped, and ends a term before it', async () => {
    const { a, b, shipping } = await begin();
    await shipping.ship(open(a));
    const twin = open(b);
    await move(shipping, twin);
    const stop = new AbortController();
    const seen: string[] = [];
    const ending = endOf(twin.read(shipping.position, stop.signal), (slice) => {
      shipping.add(slice);
      seen.push(slice.to.id);
    });
    await write(a, 1);
    await until('shipped', () => seen.at(-1) === '0-1-6');
    await write(b, 1);
    const error = await ending;
    expect(error).toBeInstanceOf(Discontinuity);
    expect(String(error)).toContain('0-2-7');
    expect(shipping.position!.id).toBe('0-1-6');
    expect(await twin.locate(shipping.head())).toMatchObject({
      result: 'fork',
      allowed: false,
      reason: expect.stringContaining('0-2-7 was written on this server, which is a replica'),
    });
    // The primary's own log goes on.
    await write(a, 1);
    expect(await open(a).locate(shipping.head())).toMatchObject({ result: 'move', allowed: true });
    stop.abort();
  });

  test('an errant write is not shipped either while the server is too busy to say that it is still a replica', async () => {
    const { a, b, shipping } = await begin();
    await shipping.ship(open(a));
    const twin = open(b);
    await move(shipping, twin);
    const stop = new AbortController();
    const ending = endOf(twin.read(shipping.position, stop.signal), (slice) => shipping.add(slice));
    await write(a, 1);
    await until('shipped', () => shipping.position?.id === '0-1-6');
    await write(b, 1);
    process.kill(b.pid, 'SIGSTOP');
    try {
      const error = await ending;
      expect(error).toBeInstanceOf(Discontinuity);
      expect(String(error)).toContain('0-2-7');
      expect(await twin.locate(shipping.head())).toMatchObject({ result: 'fork', allowed: false });
      // Nor by a daemon that starts now, and never heard that it is one.
      expect(await open(b).locate(shipping.head())).toMatchObject({ result: 'fork', allowed: false });
    } finally {
      process.kill(b.pid, 'SIGCONT');
    }
    expect(shipping.position!.id).toBe('0-1-6');
    stop.abort();
  });

  test('a promotion is seen while reading: what the new primary writes is shipped', async () => {
    const { a, b, shipping } = await begin();
    await shipping.ship(open(a));
    const twin = open(b);
    await move(shipping, twin);
    const stop = new AbortController();
    const ending = endOf(twin.read(shipping.position, stop.signal), (slice) => shipping.add(slice));
    await delay(600); // polled as a replica
    await b.promote();
    await write(b, 2);
    await until('shipped', () => shipping.position!.id === '0-2-7');
    stop.abort(new Error('enough'));
    await ending;
  });

  test('servers that replicate from each other may both write', async () => {
    const { a, b, shipping } = await begin();
    await a.replicateFrom(b);
    await b.query('SET GLOBAL read_only = OFF');
    await shipping.ship(open(a));
    await write(b, 1);
    await a.waitFor(await b.gtids());
    const twin = open(b);
    await until('allowed', async () => (await twin.locate(shipping.head())).allowed);
  });

  test('a server that does not answer is unknown: nothing is proven by it, and shipping goes on', async () => {
    const { a, b, shipping } = await begin();
    await shipping.ship(open(a));
    const source = openMariadbSource({
      ...{ stream: 'orders', dir: b.dataDir, flavour: 'mariadb', busyPollMs: 20, log },
      url: 'mariadb://root:s3cret@127.0.0.1:1',
    });
    opened.push(source);
    await write(a, 1);
    await b.waitFor(await a.gtids());
    expect(await source.locate(shipping.head())).toMatchObject({ result: 'move', evidence: { server: null } });
    shipping.open(await source.locate(shipping.head()));
    await shipping.ship(source);
    expect(shipping.position!.id).toBe('0-1-6');
  });
});
