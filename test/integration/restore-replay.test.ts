import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { stringify } from 'yaml';
import type { Archive } from '../../src/archive/walk.ts';
import type { Position } from '../../src/core/position.ts';
import { eventLength, MAGIC } from '../../src/source/mariadb/events.ts';
import { openMariadbSource } from '../../src/source/mariadb.ts';
import type { Located } from '../../src/source/source.ts';
import { openFileStore } from '../../src/store/file.ts';
import { checksums } from '../helpers/cluster.ts';
import { SHIPMATE, shipmate } from '../helpers/daemon.ts';
import { startLoad } from '../helpers/load.ts';
import { type Mariadb, startMariadb } from '../helpers/mariadb.ts';
import { createArchive, shipTerm } from '../helpers/shipped-archive.ts';
import { until } from '../helpers/wait.ts';

const run = promisify(execFile);
const REPLICA = ['--log-slave-updates', '--gtid-strict-mode=ON'];
const IN_USE_FLAG = 21;

let dir: string;
let config: string;
let archive: Archive;
/** The first primary, and the replica that takes over from it. */
let a: Mariadb;
let b: Mariadb;
let targets = 0;
const servers: Mariadb[] = [];

/** The tables at a moment. */
interface Moment {
  readonly id: string;
  readonly time: string;
  readonly sums: Record<string, number>;
}

/** At the end of the first run's first part, in the second run, and at the log's end. */
const moments = {} as Record<'inFirst' | 'inSecond' | 'atEnd', Moment>;
let backup: { dataDir: string; id: string };
let dump: { sql: string; id: string };
/** Where the dead tail of the second server begins, and the term that holds it. */
let fork: { common: Position; term: number };

const newTarget = () => join(dir, `restored-${++targets}`);
const restore = (to: string, ...args: string[]) => shipmate(config, 'restore', 'orders', '--to', to, ...args);
const replayTo = (server: Mariadb, to: string, ...args: string[]) =>
  restore(to, '--replay', '--socket', server.socket, '--user', 'root', ...args);

async function start(serverId: number, args: readonly string[] = [], dataDir?: string): Promise<Mariadb> {
  const server = await startMariadb({ serverId, args, ...(dataDir && { dataDir }) });
  servers.push(server);
  return server;
}

async function ship(server: Mariadb, located?: (source: ReturnType<typeof openMariadbSource>) => Promise<Located>) {
  const log = { debug() {}, info() {}, warn() {}, error() {} };
  const source = openMariadbSource({
    stream: 'orders',
    dir: server.dataDir,
    url: server.url,
    flavour: 'mariadb',
    busyPollMs: 5,
    log,
  });
  const found = await located?.(source);
  const shipped: typeof source = found ? Object.assign(Object.create(source), { locate: async () => found }) : source;
  try {
    return await shipTerm(archive, shipped, { maxChunkBytes: 16 * 1024 });
  } finally {
    await source.close();
  }
}

/** Transactions of both domains in turn: none can be applied twice, or left out, without leaving a trace. */
async function write(server: Mariadb, count: number, note: string, domains = [0, 1]): Promise<void> {
  const connection = await server.connect();
  for (let n = 0; n < count; n++) {
    for (const domain of domains) {
      await connection.query(`SET gtid_domain_id = ${domain}`);
      await connection.query('BEGIN');
      await connection.query(`INSERT INTO shop.d${domain} (note) VALUES (?)`, [note]);
      await connection.query(`UPDATE shop.count${domain} SET n = n * 3 % 1000003 + 1`);
      await connection.query('COMMIT');
    }
  }
  await connection.end();
}

/** Of the second server's file what the archive had of the first: those of domain 1 that had to wait there. */
const SKIPPED = ['1-1-6', '1-1-7', '1-1-8', '1-1-9', '1-1-10'];

/** What a printed command leaves out of the files that it reads. */
async function skippedGtids(command: string): Promise<string[]> {
  const gtids = async (reader: string) => {
    const { stdout } = await run('bash', ['-c', reader.replace(/\| mariadb .*\)$/, ')')], { maxBuffer: 1 << 26 });
    return [...stdout.matchAll(/GTID (\d+-\d+-\d+)/g)].map(([, gtid]) => gtid!);
  };
  const kept = new Set(await gtids(command));
  return (await gtids(command.replace(/--start-position=\S+/, ''))).filter((gtid) => !kept.has(gtid));
}

async function momentOf(server: Mariadb): Promise<Moment> {
  const [row] = await server.query('SELECT @@gtid_binlog_pos AS id, UNIX_TIMESTAMP() AS seconds');
  const sums = await checksums(server, 'shop');
  return { id: String(row!.id), time: new Date(Number(row!.seconds) * 1000).toISOString(), sums };
}

/** The log's times have seconds only: what is written next is of another one. */
const laterSecond = (server: Mariadb) => server.query('SELECT SLEEP(1.05)');

/** What makes a file of a binlog's bytes from its middle on: magic number, format description, list of GTIDs. */
async function fileStart(server: Mariadb, segment: string): Promise<string> {
  const bytes = await readFile(join(server.dataDir, segment));
  bytes[IN_USE_FLAG] = 0;
  const description = MAGIC.length + eventLength(bytes, MAGIC.length);
  return bytes.subarray(0, description + eventLength(bytes, description)).toString('base64');
}

/** Of a server under load: what mariadb-backup takes, and where it says that it stands. */
async function takeBackup(server: Mariadb): Promise<{ dataDir: string; id: string }> {
  const dataDir = join(dir, 'backup');
  const user = ['--no-defaults', '--user=root', `--socket=${server.socket}`];
  await run('mariadb-backup', [...user, '--backup', `--target-dir=${dataDir}`, `--datadir=${server.dataDir}`]);
  await run('mariadb-backup', ['--no-defaults', '--prepare', `--target-dir=${dataDir}`]);
  const info = await readFile(join(dataDir, 'xtrabackup_binlog_info'), 'utf8').catch(() =>
    readFile(join(dataDir, 'mariadb_backup_binlog_info'), 'utf8'),
  );
  return { dataDir, id: info.trim().split('\t')[2]! };
}

async function takeDump(server: Mariadb): Promise<{ sql: string; id: string }> {
  const options = ['--no-defaults', '--user=root', `--socket=${server.socket}`, '--single-transaction'];
  const program = ['--gtid', '--master-data=2', '--databases', 'shop'];
  const { stdout } = await run('mariadb-dump', [...options, ...program], { maxBuffer: 1 << 28 });
  return { sql: stdout, id: /gtid_slave_pos='([^']*)'/.exec(stdout)![1]! };
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'shipmate-replay-'));
  const storePath = join(dir, 'store');
  await mkdir(storePath);
  config = join(dir, 'shipmate.yaml');
  await writeFile(
    config,
    stringify({
      node: 'db-9',
      cluster: 'acme',
      stateDir: '/nowhere/state',
      coordination: { etcd: { endpoints: ['http://127.0.0.1:1'] } },
      stores: { main: { type: 'file', path: storePath } },
      streams: { orders: { source: { type: 'mariadb', dir: '/nowhere/mysql' }, store: 'main' } },
      admin: { listen: '127.0.0.1:1' },
    }),
  );
  archive = await createArchive(openFileStore({ name: 'main', path: storePath }), 'orders', 'mariadb');
  // A domain that waits must leave appliers to the other.
  [a, b] = await Promise.all([start(1, REPLICA), start(2, [...REPLICA, '--slave-domain-parallel-threads=2'])]);

  // The first run: a backup under load, a moment, and a tail that the replica gets in another order.
  const load = await startLoad(a, { commitsPerSecond: 300 });
  for (const domain of [0, 1]) {
    await a.query(`CREATE TABLE shop.d${domain} (id INT PRIMARY KEY AUTO_INCREMENT, note TEXT)`);
    await a.query(`CREATE TABLE shop.count${domain} (n INT)`);
    await a.query(`INSERT INTO shop.count${domain} VALUES (1)`);
  }
  await write(a, 5, 'early');
  backup = await takeBackup(a);
  await a.rotate();
  dump = await takeDump(a);
  await load.stop();
  moments.inFirst = await momentOf(a);
  await laterSecond(a);
  await b.replicateFrom(a, { from: '' });
  await b.waitFor(moments.inFirst.id);
  await b.stopReplica();
  await b.query('SET GLOBAL slave_parallel_threads = 4');
  await b.startReplica();
  const held = await b.connect();
  await held.query('BEGIN');
  await held.query('SELECT * FROM shop.count1 FOR UPDATE');
  await write(a, 5, 'shipped');
  await ship(a);
  await write(a, 5, 'not shipped');
  await until('the replica has all of domain 0', async () => (await rows(b, 'd0')) === 15, { withinMs: 30_000 });
  await held.query('ROLLBACK');
  await held.end();
  await b.waitFor(await a.gtids());

  // The second: the replica goes on, at first ahead of the archive in one domain only.
  await a.shutDown();
  await b.promote();
  await b.query('CREATE DATABASE trap');
  await write(b, 5, 'promoted');
  moments.inSecond = await momentOf(b);
  await laterSecond(b);
  await write(b, 5, 'more');
  const { position: common } = await ship(b);

  // The third: the old primary is back, and does not get what the second one writes then.
  await a.restart();
  await a.replicateFrom(b, { from: await gtidsOf(a) });
  await a.waitFor(await gtidsOf(b));
  await a.promote();
  await write(b, 3, 'dead', [0]);
  const dead = await ship(b);
  fork = { common: common!, term: dead.term };
  await ship(a, async (source) => {
    const at = (await source.end())!;
    const evidence = { fileStart: await fileStart(a, at.segment) };
    await write(a, 4, 'living');
    return { result: 'fork', at, common: common!, allowed: true, reason: 'a test', evidence };
  });
  moments.atEnd = await momentOf(a);
}, 120_000);

afterAll(async () => {
  await Promise.all(servers.map((server) => server.stop()));
  await rm(dir, { recursive: true, force: true });
});

async function gtidsOf(server: Mariadb): Promise<string> {
  return String((await server.query('SELECT @@gtid_binlog_pos AS id'))[0]!.id);
}

async function rows(server: Mariadb, table: string): Promise<number> {
  return Number((await server.query(`SELECT COUNT(*) AS n FROM shop.${table}`))[0]!.n);
}

describe('what three servers wrote, one after the other', () => {
  test('replays into an empty server, stopped by an error and by a kill, to the living server’s tables', async () => {
    const c = await start(3, ['--skip-log-bin']);
    const to = newTarget();
    const unlogged = await replayTo(c, to);
    expect(unlogged).toMatchObject({ code: 1 });
    expect(unlogged.stderr).toMatch(/keeps no binlog.*\nhint: .*--log-bin/);
    await c.shutDown();
    await c.restart({ args: ['--log-bin=binlog'] });

    await withoutLog(c, 'CREATE DATABASE trap');
    const failed = await replayTo(c, to);
    expect(failed.code).toBe(1);
    expect(failed.stderr).toMatch(/error: mariadb failed: ERROR 1007 .*'trap'.*\nhint: .*same command/);
    await withoutLog(c, 'DROP DATABASE trap');

    const held = await c.connect();
    await held.query('BEGIN');
    await held.query('SELECT * FROM shop.count0 FOR UPDATE');
    const args = ['restore', 'orders', '--to', to, '--replay', '--socket', c.socket, '--user', 'root', '-c', config];
    const killed = spawn(SHIPMATE, args, { stdio: 'ignore' });
    const gone = once(killed, 'exit');
    await until('the replay waits for the row', () => waitsForRow(c), { withinMs: 30_000 });
    killed.kill('SIGKILL');
    await gone;
    const busy = await replayTo(c, to);
    expect(busy.stderr).toMatch(/another replay into this server is under way/);
    await held.query('ROLLBACK');
    await held.end();
    await until('its client is gone', () => lockIsFree(c), { withinMs: 30_000 });

    const { code, stderr } = await replayTo(c, to);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(await checksums(c, 'shop')).toEqual(moments.atEnd.sums);
    expect(await gtidsOf(c)).toBe(moments.atEnd.id);

    const again = await replayTo(c, newTarget());
    expect(again.code).toBe(0);
    expect(await gtidsOf(c)).toBe(moments.atEnd.id);
    const short = await replayTo(c, newTarget(), '--until', moments.inSecond.id);
    expect(short.code).toBe(1);
    expect(short.stderr).toMatch(/has transactions that what is restored lacks/);
    await c.query('CREATE DATABASE own');
    const errant = await replayTo(c, newTarget());
    expect(errant.code).toBe(1);
    expect(errant.stderr).toMatch(/transaction/);
  }, 120_000);

  test('--until a GTID or a time, in the first run and in the second, by the commands that are printed', async () => {
    const d = await start(4);
    for (const [moment, target] of [
      [moments.inFirst, moments.inFirst.id],
      [moments.inSecond, moments.inSecond.time],
    ] as const) {
      const to = newTarget();
      const restored = await restore(to, '--until', target, '--socket', d.socket, '--user', 'root', '--json');
      expect(restored.code).toBe(0);
      const plan = JSON.parse(restored.stdout);
      expect(plan.end.id).toBe(moment.id);
      // The second time the server has the first part already: only an empty one takes them all.
      await d.query('DROP DATABASE IF EXISTS shop');
      await d.query('DROP DATABASE IF EXISTS trap');
      for (const command of plan.replay) await run('bash', ['-c', command]);
      for (const command of plan.replay.slice(1)) expect(await skippedGtids(command)).toEqual(SKIPPED);
      expect(await checksums(d, 'shop')).toEqual(moment.sums);
    }
    const ends = await Promise.all(
      [moments.inFirst.time, moments.inSecond.id].map(async (target) => {
        const { stdout } = await restore(newTarget(), '--until', target, '--dry-run', '--json');
        return JSON.parse(stdout).end.id;
      }),
    );
    expect(ends).toEqual([moments.inFirst.id, moments.inSecond.id]);
  }, 120_000);

  test('a mariadb-backup of the loaded server, with its GTID position, comes to a later moment', async () => {
    const e = await start(5, [], backup.dataDir);
    const to = newTarget();
    const { code, stdout, stderr } = await replayTo(e, to, '--from', backup.id, '--until', moments.inFirst.id);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/replayed/);
    expect(await checksums(e, 'shop')).toEqual(moments.inFirst.sums);
    const rest = await replayTo(e, newTarget(), '--from', backup.id);
    expect(rest.code).toBe(0);
    expect(await checksums(e, 'shop')).toEqual(moments.atEnd.sums);
  }, 120_000);

  test('so does a dump of it, loaded without a trace in the new server’s own binlog', async () => {
    const f = await start(6);
    const loading = run('mariadb', ['--no-defaults', '--user=root', `--socket=${f.socket}`]);
    loading.child.stdin!.end(`SET sql_log_bin = 0;\n${dump.sql}`);
    await loading;
    const { code, stderr } = await replayTo(f, newTarget(), '--from', dump.id, '--until', moments.inFirst.id);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(await checksums(f, 'shop')).toEqual(moments.inFirst.sums);
  }, 120_000);

  test('by hand, with the script of docs/restore.md, gives the same files', async () => {
    const [to, byHand] = [newTarget(), newTarget()];
    const { code, stdout } = await restore(to, '--json');
    expect(code).toBe(0);
    const doc = await readFile(new URL('../../docs/restore.md', import.meta.url), 'utf8');
    const script = /```bash\n(#!\/bin\/bash\n.*?)```/s.exec(doc)![1]!;
    await run('bash', ['-euc', script, 'by-hand', join(dir, 'store', 'orders'), byHand]);
    const directories = [`${byHand}.1`, `${byHand}.2`, byHand];
    for (const [index, { directory, segments }] of JSON.parse(stdout).runs.entries()) {
      for (const { name } of segments) {
        const restored = await readFile(join(to, directory, name));
        expect(restored.equals(await readFile(join(directories[index]!, name)))).toBe(true);
      }
    }
  }, 120_000);

  test('a position in the dead tail is refused; the tail itself can be read', async () => {
    const deadId = fork.common.id.replace(/^0-2-(\d+)/, (_, n) => `0-2-${Number(n) + 3}`);
    for (const option of ['--from', '--until']) {
      const refused = await restore(newTarget(), option, deadId);
      expect(refused.code).toBe(1);
      expect(refused.stderr).toMatch(/is not in the log: the transaction with this number is 0-1-/);
    }
    const to = newTarget();
    const dead = await restore(to, '--through-term', String(fork.term), '--from', fork.common.id, '--json');
    expect(dead.code).toBe(0);
    const [command] = JSON.parse(dead.stdout).replay;
    const { stdout } = await run('bash', ['-c', command.replace(/\| mariadb .*\)$/, ')')]);
    expect(stdout.match(/GTID 0-2-\d+/g)).toHaveLength(3);
    expect(stdout.match(/INSERT INTO shop.d\d \(note\) VALUES \('\w+'\)/g)).toEqual(
      Array(3).fill("INSERT INTO shop.d0 (note) VALUES ('dead')"),
    );
  }, 120_000);
});

async function withoutLog(server: Mariadb, sql: string): Promise<void> {
  const connection = await server.connect();
  await connection.query('SET sql_log_bin = 0');
  await connection.query(sql);
  await connection.end();
}

async function waitsForRow(server: Mariadb): Promise<boolean> {
  const [row] = await server.query("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'");
  return Number(row!.Value) > 0;
}

async function lockIsFree(server: Mariadb): Promise<boolean> {
  const [row] = await server.query("SELECT IS_FREE_LOCK('shipmate_replay') AS free");
  return Number(row!.free) === 1;
}
