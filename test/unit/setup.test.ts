import { describe, expect, test } from '@jest/globals';
import { parse } from 'yaml';
import { setupText } from '../../src/cli/setup-text.ts';
import { UsageError } from '../../src/errors.ts';
import type { Database } from '../../src/setup/databases.ts';
import { joinConfig } from '../../src/setup/join.ts';
import { configOf, type Names, preparationOf, sourceOf, storeOf } from '../../src/setup/plan.ts';
import { mountsIn } from '../../src/setup/surroundings.ts';
import { unitPreparationOf } from '../../src/setup/unit.ts';

const MYSQL = { uid: 101, gid: 102 };
const names: Names = {
  user: (uid) => (uid === 101 ? 'mysql' : 'root'),
  group: (gid) => (gid === 102 ? 'mysql' : 'root'),
};
const database = (given: Partial<Database> = {}): Database => ({
  type: 'mariadb',
  dir: '/var/lib/mysql',
  socket: '/run/mysqld/mysqld.sock',
  port: 3306,
  owner: MYSQL,
  isGroupReadable: true,
  problem: null,
  ...given,
});
const prepared = (given: Partial<Database>, user = 'shipmate') =>
  preparationOf({ name: 'orders', database: database(given) }, { user }, names);

describe('where the archive goes', () => {
  test.each([
    ['/mnt/backup', { type: 'file', path: '/mnt/backup' }],
    ['gs://acme-logs', { type: 'gcs', bucket: 'acme-logs' }],
    ['gs://acme-logs/prod/db/', { type: 'gcs', bucket: 'acme-logs', prefix: 'prod/db' }],
    ['s3://acme-logs/prod', { type: 's3', bucket: 'acme-logs', prefix: 'prod' }],
    ['az://acme/logs/prod', { type: 'azure', account: 'acme', container: 'logs', prefix: 'prod' }],
  ])('%s', (place, store) => expect(storeOf(place)).toEqual(store));

  test.each(['backup', 'http://acme', 'az://acme', 'gs://', ''])('not "%s"', (place) =>
    expect(() => storeOf(place)).toThrow(UsageError),
  );

  test('other hosts’ mounts are offered first, then disks of their own; never the system’s', () => {
    const line = (path: string, type: string) => `36 35 98:0 / ${path} rw - ${type} src rw`;
    const mounts = [
      line('/', 'ext4'),
      line('/proc', 'proc'),
      line('/srv/disk', 'xfs'),
      line('/home', 'ext4'),
      line('/mnt/nas\\040two', 'nfs4'),
    ];
    expect(mountsIn(mounts.join('\n'))).toEqual(['/mnt/nas two', '/srv/disk']);
  });
});

describe('least rights', () => {
  test('MariaDB knows the daemon by its socket: no password anywhere', () => {
    expect(sourceOf(database(), 'shipmate').url).toBe('mariadb://shipmate@localhost/?socket=/run/mysqld/mysqld.sock');
    expect(prepared({})).toMatchObject({
      sql: [
        "CREATE USER IF NOT EXISTS 'shipmate'@'localhost' IDENTIFIED VIA unix_socket;",
        "GRANT REPLICA MONITOR, BINLOG MONITOR ON *.* TO 'shipmate'@'localhost';",
      ],
      shell: ['usermod -aG mysql shipmate'],
      notes: [],
    });
  });

  test('a password where it must be is the environment’s, and the SQL can’t be run with its stand-in', () => {
    const variable = '$'.concat('{SHIPMATE_DB_PASSWORD}');
    expect(sourceOf(database(), 'mysql').url).toBe(
      `mariadb://shipmate:${variable}@localhost/?socket=/run/mysqld/mysqld.sock`,
    );
    expect(sourceOf(database({ socket: null }), 'shipmate').url).toBe(`mariadb://shipmate:${variable}@127.0.0.1:3306`);
    const { sql, notes } = prepared({ socket: null });
    expect(sql[0]).toMatch(/IDENTIFIED BY <.*>;$/);
    expect(notes.join()).toContain('/etc/default/shipmate');
  });

  test('MySQL names the system user that its socket is to know', () => {
    expect(prepared({ type: 'mysql' }, 'mysql').sql).toEqual([
      "CREATE USER IF NOT EXISTS 'shipmate'@'localhost' IDENTIFIED WITH auth_socket AS 'mysql';",
      "GRANT REPLICATION CLIENT ON *.* TO 'shipmate'@'localhost';",
    ]);
  });

  test('a log that its owner alone may read, or root’s group, asks for another user, not for more rights', () => {
    for (const closed of [{ isGroupReadable: false }, { owner: { uid: 0, gid: 0 } }]) {
      const { shell, notes } = prepared(closed);
      expect(shell).toEqual([]);
      expect(notes.join()).toMatch(/run the daemon as (mysql|root)/);
    }
  });

  test('Redis needs nothing but its directory', () => {
    expect(prepared({ type: 'redis', dir: '/var/lib/redis/appendonlydir' })).toMatchObject({ client: null, sql: [] });
  });
});

describe('the package’s unit', () => {
  const stateDir = '/var/lib/shipmate';

  test('does as it is for its own user and a bucket, and is not made root’s', () => {
    expect(unitPreparationOf({ user: 'shipmate', group: 'shipmate', stateDir, directories: [] })).toBeNull();
    expect(unitPreparationOf({ user: 'root', group: 'root', stateDir, directories: ['/mnt/backup'] })).toBeNull();
  });

  test('is told whom to run as, who must then own the state, the store, and be let to the config', () => {
    const directories = ['/mnt/backup'];
    expect(unitPreparationOf({ user: 'postgres', group: 'postgres', stateDir, directories })).toEqual({
      file: '/etc/systemd/system/shipmate.service.d/local.conf',
      lines: [
        '[Service]',
        'User=postgres',
        'Group=postgres',
        'SupplementaryGroups=shipmate',
        'ReadWritePaths=/mnt', // the directory above: a NAS may be mounted anew
      ],
      shell: ['adduser postgres shipmate', 'chown postgres: /var/lib/shipmate /mnt/backup', 'systemctl daemon-reload'],
    });
  });

  test('is not let write everywhere for a store just below the root, and takes names with spaces', () => {
    const directories = ['/backup', '/mnt/nas two/x'];
    expect(unitPreparationOf({ user: 'shipmate', group: 'shipmate', stateDir, directories })).toMatchObject({
      lines: ['[Service]', 'ReadWritePaths=/backup "/mnt/nas two"'],
      shell: ['chown shipmate: /backup "/mnt/nas two/x"', 'systemctl daemon-reload'],
    });
  });

  test('is part of what is printed, before check is run', () => {
    const directories = ['/mnt/backup'];
    const unit = unitPreparationOf({ user: 'shipmate', group: 'shipmate', stateDir, directories });
    const report = { file: null, kept: null, user: 'shipmate', joins: false, hasTwin: true, preparations: [], unit };
    const text = setupText(report, 80);
    expect(text).toMatch(
      /where the package is installed:\n.*\n {4}\[Service\]\n {4}ReadWritePaths=\/mnt\n(.*\n)*.*shipmate check/,
    );
    expect(setupText({ ...report, unit: null }, 80)).not.toContain('[Service]');
  });
});

describe('the second twin', () => {
  const first = `# of db-1
node: db-1
cluster: acme
coordination: { etcd: { endpoints: [http://10.0.0.1:2379] } }
stores: { main: { type: gcs, bucket: acme } } # shared
streams:
  orders:
    source: { type: mariadb, dir: /srv/mysql, url: "mariadb://shipmate@localhost/?socket=/srv/s" }
    store: main
  audit: { source: { type: files, dir: /var/log/audit }, store: main }
`;
  const joined = (given: Partial<Parameters<typeof joinConfig>[0]> = {}) =>
    joinConfig({ text: first, node: 'db-2', user: 'shipmate', databases: [database()], given: new Map(), ...given });

  test('gets all that the first one has, but its own name, directories and server', () => {
    const { text, streams } = joined();
    const { node, streams: told, ...shared } = parse(text);
    const { node: _, streams: __, ...before } = parse(first);
    expect({ node, shared }).toEqual({ node: 'db-2', shared: before });
    expect(told.orders.source).toEqual({
      type: 'mariadb',
      dir: '/var/lib/mysql',
      url: sourceOf(database(), 'shipmate').url,
    });
    expect(told.audit.source.dir).toBe('/var/log/audit');
    expect(text).toContain('# of db-1');
    expect(text).toContain('# shared');
    expect(streams.map(({ name }) => name)).toEqual(['orders']);
  });

  test.each<[string, Parameters<typeof joined>[0], RegExp]>([
    ['the same name', { node: 'db-1' }, /called db-1 as well/],
    ['a first one without etcd', { text: first.replace(/coordination.*/, 'coordination: solo') }, /it has no twin/],
    ['a host without such a database', { databases: [] }, /stream orders: which mariadb .* none was found/],
    ['two that it could be', { databases: [database({ dir: '/a' }), database({ dir: '/b' })] }, /there are \/a, \/b/],
    ['no config', { text: 'a: [' }, /is no config/],
  ])('is refused %s', (_, given, message) => expect(() => joined(given)).toThrow(message));

  test('is told which of two it is', () => {
    const given = new Map([['orders', database({ dir: '/b' })]]);
    const { text } = joined({ databases: [database({ dir: '/a' }), database({ dir: '/b' })], given });
    expect(parse(text).streams.orders.source.dir).toBe('/b');
  });
});

test('the config has what was answered, and nothing of a secret', () => {
  const answers = {
    ...{ node: 'db-1', cluster: 'acme', stateDir: '/var/lib/shipmate', listen: '127.0.0.1:9187', user: 'shipmate' },
    ...{ endpoints: null, store: storeOf('/mnt/backup'), streams: [{ name: 'orders', database: database() }] },
  };
  expect(configOf(answers)).toMatchObject({
    node: 'db-1',
    coordination: 'solo',
    streams: { orders: { store: 'main' } },
  });
});
