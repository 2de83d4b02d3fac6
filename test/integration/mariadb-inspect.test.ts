import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { openMariadbSource } from '../../src/source/mariadb.ts';
import type { LogSource } from '../../src/source/source.ts';
import { type Mariadb, startMariadb } from '../helpers/mariadb.ts';
import { until } from '../helpers/wait.ts';

jest.setTimeout(60_000);

/** What `check` says to whoever runs a pair of servers, and what keeps a replica's twin from taking over. */
const ARGS = ['--log-slave-updates', '--gtid-strict-mode=ON', '--sync-binlog=1'];
let primary: Mariadb;
let replica: Mariadb;
beforeAll(async () => {
  [primary, replica] = await Promise.all(
    [11, 12].map((serverId) => startMariadb({ serverId, args: ARGS })) as [Promise<Mariadb>, Promise<Mariadb>],
  );
  await replica.replicateFrom(primary);
  await primary.query('CREATE DATABASE shop');
  await replica.waitFor(await primary.gtids());
});
afterAll(async () => {
  await Promise.all(sources.map((source) => source.close()));
  await Promise.all([primary?.stop(), replica?.stop()]);
});

const sources: LogSource[] = [];
const open = (server: Mariadb, url = server.url) => {
  const source = openMariadbSource({
    stream: 'orders',
    dir: server.dataDir,
    url,
    flavour: 'mariadb',
    busyPollMs: 20,
    log: { debug() {}, info() {}, warn() {}, error() {} },
  });
  sources.push(source);
  return source;
};

/** Warnings and errors, each with what to do about it. */
async function wrongAt(server: Mariadb, url?: string): Promise<string[]> {
  const findings = await open(server, url).inspect();
  return findings
    .filter(({ level }) => level !== 'ok')
    .map(({ level, message, hint = 'NO HINT' }) => `${level}: ${message} | ${hint}`);
}

const says = (...parts: string[]) => expect.stringMatching(new RegExp(parts.join('.*')));

async function semiSync(state: 'ON' | 'OFF'): Promise<void> {
  for (const server of [primary, replica]) {
    await server.query(
      `SET GLOBAL rpl_semi_sync_master_enabled = ${state}, GLOBAL rpl_semi_sync_slave_enabled = ${state}`,
    );
  }
  await replica.query('STOP SLAVE');
  await replica.query('START SLAVE');
}

describe('a pair that is set up well', () => {
  test('has nothing to mend', async () => {
    await semiSync('ON');
    await until('nothing is left to say', async () => {
      const wrong = [...(await wrongAt(primary)), ...(await wrongAt(replica))];
      if (wrong.length > 0) throw new Error(wrong.join('\n'));
      return true;
    });
    expect(await open(replica).inspect()).toContainEqual({
      level: 'ok',
      message: 'the server is a replica, and logs what it replicates',
    });
    expect((await open(replica).locate(null)).allowed).toBe(true);
  });
});

describe('an operator is told, with what to run,', () => {
  test('that semi-sync is off, and what that may cost', async () => {
    await semiSync('OFF');
    const off = says(
      '^warning: semi-sync replication is off',
      'acknowledged',
      'dead tail of a fork',
      'SET GLOBAL rpl_semi_sync',
    );
    await until('the replica is connected again', async () => (await wrongAt(primary)).length > 0);
    expect(await wrongAt(primary)).toEqual([off]);
    expect(await wrongAt(replica)).toEqual([off]);
  });

  test('that errant writes are possible, and would go unseen', async () => {
    for (const server of [primary, replica]) await server.query('SET GLOBAL gtid_strict_mode = OFF');
    await replica.query('SET GLOBAL read_only = OFF');
    expect(await wrongAt(primary)).toContainEqual(
      says('^warning: gtid_strict_mode is off', 'SET GLOBAL gtid_strict_mode = ON'),
    );
    expect(await wrongAt(replica)).toEqual(
      expect.arrayContaining([
        says('^warning: gtid_strict_mode is off'),
        says('^warning: .*replica that can be written to', 'SET GLOBAL read_only = ON'),
      ]),
    );
    for (const server of [primary, replica]) await server.query('SET GLOBAL gtid_strict_mode = ON');
    await replica.query('SET GLOBAL read_only = ON');
  });

  test('that replication goes by offset, or stands still', async () => {
    await replica.query('STOP SLAVE');
    await replica.query('CHANGE MASTER TO MASTER_USE_GTID = no');
    const wrong = await wrongAt(replica);
    expect(wrong).toContainEqual(
      says('^warning: replication from server 127.0.0.1:', 'file and offset', 'MASTER_USE_GTID'),
    );
    expect(wrong).toContainEqual(says('^warning: replication from server 127.0.0.1:', 'stands still', 'START SLAVE'));
    await replica.query('CHANGE MASTER TO MASTER_USE_GTID = slave_pos');
    await replica.query('START SLAVE');
  });

  test('that statements are logged, and that binlogs are purged before a take-over could need them', async () => {
    await replica.query("SET GLOBAL binlog_format = 'STATEMENT', GLOBAL binlog_expire_logs_seconds = 2");
    await primary.query('CREATE TABLE shop.aged (n INT)');
    await replica.waitFor(await primary.gtids());
    const source = open(replica);
    const { at } = await source.locate(null);
    const aged = await until('what is not shipped grows old', async () => {
      const findings = await source.inspect(at!);
      return findings.find(({ level, message }) => level === 'error' && message.includes('a take-over now would need'));
    });
    expect(aged.hint).toContain('binlog_expire_logs_seconds');
    expect(await open(replica).retention?.()).toEqual({ bytes: null, seconds: 2 });
    expect(await wrongAt(replica)).toContainEqual(says('^warning: binlog_format is STATEMENT'));
    await replica.query("SET GLOBAL binlog_format = 'MIXED', GLOBAL binlog_expire_logs_seconds = 0");
  });

  test('that the URL leads to another server than the one whose binlogs are read', async () => {
    expect(await wrongAt(primary, replica.url)).toEqual([
      says(
        '^error: the server at .* is mariadb-12, but the newest binlog here was written by mariadb-11',
        'never to an address',
      ),
    ]);
  });

  test('that the server writes its binlogs elsewhere since it was restarted', async () => {
    const elsewhere = mkdtempSync(join(tmpdir(), 'shipmate-log-bin-'));
    const server = await startMariadb({ serverId: 13 });
    try {
      const source = open(server);
      const told = async () =>
        (await source.inspect()).filter(({ message }) => message.includes('nothing new is shipped'));
      for (let i = 0; i < 3; i++) {
        await server.query('FLUSH BINARY LOGS');
        expect(await told()).toEqual([]);
      }
      await server.shutDown();
      await server.restart({ args: [`--log-bin=${elsewhere}/binlog`] });
      expect(await told()).toMatchObject([
        {
          level: 'error',
          message:
            'the server writes binlog.000001 now, but the newest binlog here is binlog.000004: nothing new is shipped',
          hint: expect.stringContaining('log_bin'),
        },
      ]);
    } finally {
      await server.stop();
      rmSync(elsewhere, { recursive: true });
    }
  });

  test('which rights the user of "url:" lacks', async () => {
    await primary.query("CREATE USER shipmate@127.0.0.1 IDENTIFIED BY 's3cret'");
    const url = `mariadb://shipmate:s3cret@127.0.0.1:${primary.port}`;
    expect(await wrongAt(primary, url)).toContainEqual(
      says('^warning: .*may not see', 'GRANT REPLICA MONITOR, BINLOG MONITOR'),
    );
    await primary.query('GRANT REPLICA MONITOR, BINLOG MONITOR ON *.* TO shipmate@127.0.0.1');
    expect((await wrongAt(primary, url)).join('\n')).not.toContain('may not see');
  });
});

describe('a replica whose binlogs lack something', () => {
  test('never takes over: it filters', async () => {
    await replica.query('STOP SLAVE');
    await replica.query("SET GLOBAL replicate_ignore_db = 'scratch'");
    await replica.query('START SLAVE');
    expect(await wrongAt(replica)).toContainEqual(
      says('^error: .*replica that filters', 'Replicate_Ignore_DB = scratch', 'build the replica anew'),
    );
    expect(await open(replica).locate(null)).toMatchObject({
      allowed: false,
      reason: expect.stringContaining('filters'),
    });
    await replica.query('STOP SLAVE');
    await replica.query("SET GLOBAL replicate_ignore_db = ''");
    await replica.query('START SLAVE');
    expect((await open(replica).locate(null)).allowed).toBe(true);
  });

  test('never takes over: it does not log what it replicates', async () => {
    await replica.shutDown();
    await replica.restart({ args: ['--skip-log-slave-updates'] });
    expect(await wrongAt(replica)).toContainEqual(says('^error: .*log_slave_updates off', 'log_slave_updates = ON'));
    expect(await open(replica).locate(null)).toMatchObject({
      allowed: false,
      reason: expect.stringContaining('log_slave_updates off'),
    });
  });

  test('takes over all the same once it is no replica any more: its binlogs are all there is', async () => {
    await replica.promote();
    expect((await open(replica).locate(null)).allowed).toBe(true);
  });
});

test('binlogs that leave databases out are an error', async () => {
  await primary.shutDown();
  await primary.restart({ args: ['--binlog-ignore-db=scratch'] });
  expect(await wrongAt(primary)).toContainEqual(
    says('^error: the binlogs leave databases out', 'Binlog_Ignore_DB = scratch'),
  );
});
