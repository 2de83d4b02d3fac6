import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { mariadbFormat } from '../../src/source/mariadb/format.ts';
import { type MariadbSource, type MariadbSourceOptions, openMariadbSource } from '../../src/source/mariadb.ts';
import type { LogSlice } from '../../src/source/source.ts';
import { endOf, Shipping } from '../contract/source-shipping.ts';
import { asShipped } from '../helpers/binlog.ts';
import { type Mariadb, startMariadb } from '../helpers/mariadb.ts';
import { measured } from '../helpers/measured.ts';
import { until } from '../helpers/wait.ts';

const log = { debug() {}, info() {}, warn() {}, error() {} };

const opened: MariadbSource[] = [];
function open(server: Mariadb, options: Partial<MariadbSourceOptions> = {}): MariadbSource {
  const source = openMariadbSource({
    stream: 'orders',
    dir: server.dataDir,
    flavour: 'mariadb',
    busyPollMs: 20,
    log,
    ...options,
  });
  opened.push(source);
  return source;
}

afterEach(async () => {
  for (const each of opened.splice(0)) await each.close();
});

const namesIn = ({ dataDir }: Mariadb) =>
  readFileSync(join(dataDir, 'binlog.index'), 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line) => line.slice(2));
const contentsOf = (server: Mariadb) =>
  new Map(namesIn(server).map((name) => [name, asShipped(readFileSync(join(server.dataDir, name)))]));
const sameBytes = (shipped: Map<string, Buffer>, expected: Map<string, Buffer>) =>
  shipped.size === expected.size && [...expected].every(([name, bytes]) => shipped.get(name)?.equals(bytes));

describe('the binlogs of a real MariaDB', () => {
  let server: Mariadb;
  let shipping: Shipping;
  let copies: string;

  beforeAll(async () => {
    copies = mkdtempSync(join(tmpdir(), 'shipmate-copies-'));
    server = await startMariadb({ serverId: 7, args: ['--max-allowed-packet=64M', '--log-bin-compress=ON'] });
    await server.query('CREATE DATABASE shop');
    await server.query('CREATE TABLE shop.orders (id INT AUTO_INCREMENT PRIMARY KEY, note LONGBLOB) ENGINE=InnoDB');
    await server.query('CREATE TABLE shop.visits (id INT) ENGINE=MyISAM');
    shipping = new Shipping();
  });
  afterAll(async () => {
    await server.stop();
    rmSync(copies, { recursive: true, force: true });
  });

  /** Every kind of group that ends in its own way. */
  async function writeAllKinds(): Promise<void> {
    const run = async (...statements: string[]) => {
      for (const statement of statements) await server.query(statement);
    };
    const insert = "INSERT INTO shop.orders (note) VALUES ('a note')";
    for (const format of ['ROW', 'STATEMENT', 'MIXED']) {
      await run(`SET SESSION binlog_format = '${format}'`, insert, 'INSERT INTO shop.visits VALUES (1), (2)');
      await run('INSERT INTO shop.orders (note) VALUES (RAND())');
      await run(
        'BEGIN',
        'INSERT INTO shop.visits VALUES (3)',
        insert,
        'SAVEPOINT s',
        insert,
        'ROLLBACK TO SAVEPOINT s',
        'COMMIT',
      );
      await run('BEGIN', 'INSERT INTO shop.visits VALUES (4)', insert, 'ROLLBACK');
      await run(
        'CREATE TABLE shop.copy AS SELECT * FROM shop.orders',
        'TRUNCATE TABLE shop.copy',
        'DROP TABLE shop.copy',
      );
      await run("XA START 'a'", insert, "XA END 'a'", "XA PREPARE 'a'");
      await run("XA COMMIT 'a'", "XA START 'b'", insert, "XA END 'b'", "XA PREPARE 'b'", "XA ROLLBACK 'b'");
      await run("XA START 'c'", insert, "XA END 'c'", "XA COMMIT 'c' ONE PHASE");
      await run(
        'SET SESSION gtid_domain_id = 3',
        insert,
        'ANALYZE TABLE shop.orders',
        'SET SESSION gtid_domain_id = 0',
      );
      await run('SET SESSION binlog_alter_two_phase = 1', 'ALTER TABLE shop.visits ADD COLUMN more INT');
      await run('ALTER TABLE shop.visits DROP COLUMN more', 'SET SESSION binlog_alter_two_phase = 0');
      await server.rotate();
    }
    await run("SET SESSION binlog_format = 'ROW'");
    await run(`INSERT INTO shop.orders (note) VALUES (REPEAT('compressible ', 1000))`);
    await run(`INSERT INTO shop.orders (note) SELECT RANDOM_BYTES(1024) FROM shop.seq_1_to_3000`);
    await run(`INSERT INTO shop.orders (note) VALUES (REPEAT(SHA2(RAND(), 512), 40000))`);
    await run('SET GLOBAL binlog_checksum = NONE', insert, 'SET GLOBAL binlog_checksum = CRC32', insert);
    await server.rotate();
  }

  test('are shipped byte for byte while they are written; slices end where the server says', async () => {
    const stop = new AbortController();
    const boundaries: LogSlice['to'][] = [];
    const reading = endOf(open(server).read(null, stop.signal), (slice) => {
      shipping.add(slice);
      if (slice.boundary) boundaries.push(slice.to);
    });
    await writeAllKinds();
    const expected = contentsOf(server);
    await until('all is shipped', () => sameBytes(shipping.contents(), expected));
    stop.abort();
    await reading;

    const starts = new Map<string, Set<number>>();
    for (const name of namesIn(server)) {
      const events = await server.query(`SHOW BINLOG EVENTS IN '${name}'`);
      const outside = /^(Format_desc|Gtid|Gtid_list|Binlog_checkpoint|Rotate|Stop)$/;
      const groups = events.filter(({ Event_type }) => outside.test(String(Event_type))).map(({ Pos }) => Number(Pos));
      starts.set(name, new Set([...groups, expected.get(name)!.length]));
    }
    // How many there are goes by how quickly each was read; each file has one at least, its end.
    expect(boundaries.length).toBeGreaterThanOrEqual(starts.size);
    expect(boundaries.filter(({ segment, offset }) => !starts.get(segment)!.has(offset))).toEqual([]);
    for (const { segment, offset, id } of boundaries) {
      const [row] = await server.query('SELECT BINLOG_GTID_POS(?, ?) AS id', [segment, offset]);
      expect({ segment, offset, id: sorted(id) }).toEqual({ segment, offset, id: sorted(String(row!.id)) });
    }
  });

  const sorted = (gtids: string) => gtids.split(',').sort().join(',');

  test("can be read by the database's tools wherever they are cut", async () => {
    const format = mariadbFormat();
    const [first] = namesIn(server);
    const bytes = contentsOf(server).get(first!)!;
    const events = await server.query(`SHOW BINLOG EVENTS IN '${first}'`);
    const ids = events
      .filter(({ Event_type }) => Event_type === 'Gtid')
      .map(({ Info }) => /GTID ([\d-]+)/.exec(String(Info))![1]!);
    expect(ids.length).toBeGreaterThan(15);
    for (const id of ids) {
      const cutter = format.cutter({ kind: 'id', id });
      const kept = cutter.feed(first!, bytes);
      const path = join(copies, first!);
      writeFileSync(path, bytes.subarray(0, kept));
      const text = execFileSync('mariadb-binlog', ['--no-defaults', '--verify-binlog-checksum', path], {
        encoding: 'utf8',
      });
      expect(text.match(/\tGTID [\d-]+/g)!.at(-1)).toBe(`\tGTID ${id}`);
      expect(text).not.toMatch(/Warning|ERROR/);
    }
  });

  test('a commit is there to ship within milliseconds (timed)', async () => {
    const stop = new AbortController();
    let id = '';
    let seen = () => {};
    const reading = endOf(open(server).read(await open(server).end(), stop.signal), ({ to }) => {
      id = to.id;
      seen();
    });
    const latenciesMs: number[] = [];
    for (let i = 0; i < 40; i++) {
      await server.query("INSERT INTO shop.orders (note) VALUES ('quick')");
      const committedMs = performance.now();
      const [row] = await server.query('SELECT @@gtid_binlog_pos AS id');
      while (id !== row!.id) {
        await new Promise<void>((resolve) => {
          seen = resolve;
        });
      }
      latenciesMs.push(performance.now() - committedMs);
    }
    stop.abort();
    await reading;
    const median = latenciesMs.sort((a, b) => a - b)[20]!;
    measured('from a commit to bytes to ship, median', median, 50);
  });

  test('go on over kill -9 and restart', async () => {
    const source = open(server);
    await shipping.ship(source);
    const stop = new AbortController();
    const reading = endOf(source.read(shipping.position, stop.signal), (slice) => shipping.add(slice));
    for (let i = 0; i < 3; i++) {
      await server.query("INSERT INTO shop.orders (note) VALUES ('before the crash')");
      await server.kill9();
      await server.restart();
      await server.query("INSERT INTO shop.orders (note) VALUES ('after it')");
    }
    await until('all is shipped', () => sameBytes(shipping.contents(), contentsOf(server)));
    stop.abort();
    await reading;
    const [row] = await server.query('SELECT @@gtid_binlog_pos AS id');
    expect(sorted(shipping.position!.id)).toBe(sorted(String(row!.id)));
    expect(await open(server).locate(shipping.head())).toMatchObject({ result: 'resume', at: shipping.position });
  });

  test('an operator is told what the server has set', async () => {
    const asked = async () =>
      (await open(server, { url: server.url }).inspect()).map(({ level, message }) => `${level}: ${message}`);
    expect(await asked()).toEqual([
      expect.stringMatching(/^ok: \d+ binlogs/),
      'ok: events carry checksums',
      'warning: sync_binlog is 0: a power loss takes back commits that the server already reported',
      expect.stringMatching(/^ok: the server purges/),
      'ok: the server is writable, and replicates from no other',
    ]);
    await server.query(
      'SET GLOBAL sync_binlog = 1, GLOBAL binlog_expire_logs_seconds = 3600, GLOBAL binlog_checksum = NONE',
    );
    expect(await asked()).toEqual([
      expect.stringMatching(/^ok: \d+ binlogs/),
      expect.stringMatching(/^warning: events carry no checksums/),
      expect.stringMatching(/^warning: binlog_checksum is NONE/),
      'ok: sync_binlog is 1',
      expect.stringMatching(/^warning: the server purges binlogs after 3600 seconds/),
      'ok: the server is writable, and replicates from no other',
    ]);
    const socket = await open(server, { url: `mariadb://root@localhost/?socket=${server.socket}` }).inspect();
    expect(socket).toContainEqual({ level: 'ok', message: 'sync_binlog is 1' });
    await server.query("CREATE USER shipmate@127.0.0.1 IDENTIFIED BY 's3cret'");
    const limited = await open(server, { url: `mariadb://shipmate:s3cret@127.0.0.1:${server.port}` }).inspect();
    expect(limited.at(-1)).toMatchObject({ level: 'warning', hint: expect.stringContaining('GRANT REPLICA MONITOR') });
    const denied = await open(server, { url: `mariadb://nobody:s3cret@127.0.0.1:${server.port}` }).inspect();
    expect(denied.at(-1)).toMatchObject({ level: 'error', hint: expect.stringContaining('user and password') });
    expect(JSON.stringify(denied)).not.toContain('s3cret');
  });
});

describe('a replica', () => {
  let server: Mariadb;
  let replica: Mariadb;
  beforeAll(async () => {
    [server, replica] = await Promise.all([
      startMariadb({ serverId: 1 }),
      startMariadb({ serverId: 2, args: ['--relay-log=a-relay-bin', '--encrypt-binlog=OFF'] }),
    ]);
  });
  afterAll(async () => {
    await Promise.all([server?.stop(), replica?.stop()]);
  });

  test('has relay logs, which are not shipped, and is told that it must log its updates', async () => {
    await replica.query(
      `CHANGE MASTER TO master_host = '127.0.0.1', master_port = ${server.port}, master_user = 'root', master_use_gtid = slave_pos`,
    );
    await replica.query('START SLAVE');
    await server.query('CREATE DATABASE shop');
    await until('it is replicated', async () => (await replica.query("SHOW DATABASES LIKE 'shop'")).length > 0);
    const shipping = new Shipping();
    await shipping.ship(open(replica));
    expect([...shipping.contents().keys()]).toEqual(namesIn(replica));
    const findings = await open(replica, { url: replica.url }).inspect();
    expect(findings).toContainEqual(
      expect.objectContaining({ level: 'error', message: expect.stringContaining('log_slave_updates off') }),
    );
    expect(await open(server, { url: server.url }).inspect()).toContainEqual(
      expect.objectContaining({ level: 'warning', message: expect.stringContaining('server_id is 1') }),
    );
  });
});

describe('a server that encrypts its binlogs', () => {
  test('is refused with the setting that does it', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'shipmate-keys-'));
    const keys = join(dir, 'keys');
    writeFileSync(keys, `1;${'ab'.repeat(32)}\n`);
    const plugin = ['--plugin-load-add=file_key_management', `--file-key-management-filename=${keys}`];
    const server = await startMariadb({ args: [...plugin, '--encrypt-binlog=ON'] });
    try {
      await server.query('CREATE DATABASE shop');
      const source = open(server, { url: server.url });
      const { signal } = new AbortController();
      expect(await endOf(source.read(null, signal))).toMatchObject({ code: 'SOURCE_ENCRYPTED', verdict: 'retry' });
      const findings = await source.inspect();
      expect(findings.filter(({ level, message }) => level === 'error' && message.includes('encrypt'))).toHaveLength(2);
    } finally {
      await server.stop();
      rmSync(dir, { recursive: true, force: true });
    }
  });
});
