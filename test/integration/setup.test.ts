import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { parse } from 'yaml';
import type { Preparation } from '../../src/setup/plan.ts';
import { Daemon, SHIPMATE, shipmate } from '../helpers/daemon.ts';
import { type Etcd, startEtcd } from '../helpers/etcd.ts';
import { type Mariadb, startMariadb } from '../helpers/mariadb.ts';
import { freePort } from '../helpers/ports.ts';
import { type Postgres, startPostgres } from '../helpers/postgres.ts';
import { Redis } from '../helpers/redis.ts';
import { until } from '../helpers/wait.ts';

const PASSWORD = 'a password of this test';
const USER = userInfo().username;

let dir: string;
let etcd: Etcd;
let mariadb: Mariadb;
let postgres: Postgres;
beforeAll(async () => {
  process.env.SHIPMATE_DB_PASSWORD = encodeURIComponent(PASSWORD);
  dir = await mkdtemp(join(tmpdir(), 'shipmate-setup-'));
  [etcd, mariadb, postgres] = await Promise.all([
    startEtcd(),
    startMariadb({
      serverId: 7,
      args: ['--sync-binlog=1', '--binlog-expire-logs-seconds=604800', '--gtid-strict-mode=ON'],
    }),
    startPostgres(),
  ]);
  await mkdir(join(dir, 'store'));
}, 120_000);
afterAll(async () => {
  delete process.env.SHIPMATE_DB_PASSWORD;
  await Promise.all([mariadb?.stop(), postgres?.stop(), etcd?.stop()]);
  await rm(dir, { recursive: true, force: true });
});

interface Report {
  readonly config: string;
  readonly preparations: readonly Preparation[];
}

/** What every case here says by options. */
const common = async (name: string) => [
  ...['setup', '--node', 'db-1', '--cluster', name, '--etcd', etcd.endpoints.join(','), '--user', USER],
  ...[
    '--store',
    join(dir, 'store'),
    '--state-dir',
    join(dir, `${name}-state`),
    '--listen',
    `127.0.0.1:${await freePort()}`,
  ],
];

/** Sets a stream up, has `prepare` do what an administrator is told to, and sees it checked and shipped. */
async function fromSetupToArchive(
  stream: string,
  databaseDir: string,
  prepare: (preparation: Preparation) => Promise<void>,
): Promise<void> {
  const file = join(dir, `${stream}.yaml`);
  const args = [...(await common(stream)), '--yes', '--json', '--source', `${stream}=${databaseDir}`];
  const { code, stdout, stderr } = await shipmate(file, ...args);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect((await stat(file)).mode & 0o777).toBe(0o640);
  const text = await readFile(file, 'utf8');
  expect(text).not.toContain(encodeURIComponent(PASSWORD));
  const report: Report = JSON.parse(stdout);
  expect(report.config).toBe(text);

  const before = await shipmate(file, 'check');
  expect({ code: before.code, stdout: before.stdout }).toEqual({
    code: 1,
    stdout: expect.stringMatching(/^ +error /m),
  });
  await prepare(report.preparations[0]!);
  const after = await shipmate(file, 'check', '--json');
  const errors = JSON.parse(after.stdout).findings.filter(({ level }: { level: string }) => level === 'error');
  expect({ code: after.code, errors }).toEqual({ code: 0, errors: [] });

  const { node, admin } = parse(text);
  const daemon = new Daemon({ node, configFile: file, url: `http://${admin.listen}`, faultsFile: undefined });
  await daemon.start();
  try {
    const cursor = await until('the log is shipped', async () => {
      const status = await shipmate(file, 'status', '--json');
      const [told] = JSON.parse(status.stdout).streams;
      return told.lagBytes === 0 && told.cursor;
    });
    expect(cursor.offset).toBeGreaterThan(0);
  } finally {
    await daemon.stop();
  }
}

describe('setup, what it says to run, check, and the log is in the archive:', () => {
  test('MariaDB', async () => {
    await fromSetupToArchive('orders', mariadb.dataDir, async ({ sql, client }) => {
      expect(client).toBe(`mariadb --socket=${mariadb.socket} --user=root`);
      for (const statement of sql) await mariadb.query(statement.replace(/<.*>/, `'${PASSWORD}'`).replace(/;$/, ''));
    });
    const grants = await mariadb.query("SHOW GRANTS FOR 'shipmate'@'localhost'");
    expect(grants.map((row) => Object.values(row).join())).toEqual([
      expect.stringMatching(/^GRANT BINLOG MONITOR, SLAVE MONITOR ON \*\.\* TO `shipmate`@`localhost`/),
    ]);
  }, 120_000);

  test('PostgreSQL, by its socket and without a password', async () => {
    await fromSetupToArchive('billing', postgres.dataDir, async ({ sql, files }) => {
      for (const { file, lines } of files) {
        const path = join(postgres.dataDir, file);
        // Whoever is not told of comes in no more: the line that was printed must be what lets the daemon in.
        const others = (await readFile(path, 'utf8')).replace(/^(local +all +)all( +trust)$/m, '$1postgres$2');
        await writeFile(path, `${lines.join('\n')}\n${others}`);
      }
      for (const statement of sql) await postgres.sql(statement);
    });
  }, 120_000);
});

describe('the second host', () => {
  test('joins with the config of the first', async () => {
    const first = join(dir, 'first.yaml');
    const second = join(dir, 'second.yaml');
    const source = ['--source', `orders=${mariadb.dataDir}`];
    await shipmate(first, ...(await common('joined')), '--yes', ...source);
    const { code, stdout } = await shipmate(
      second,
      'setup',
      '--join',
      first,
      '--node',
      'db-2',
      '--user',
      USER,
      '--yes',
      ...source,
    );
    expect(code).toBe(0);
    expect(stdout).toContain('on the primary, if it was not done yet');
    const [one, other] = await Promise.all([first, second].map(async (file) => parse(await readFile(file, 'utf8'))));
    expect(other).toEqual({ ...one, node: 'db-2' });
  });
});

/** Answers each question on a terminal as a person does; resolves with the exit code and all that was shown. */
async function answer(command: string, answers: readonly (readonly [question: string, typed: string])[]) {
  const child = spawn('script', ['-qec', command, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] });
  let text = '';
  let at = 0;
  let read = 0;
  child.stdout.setEncoding('utf8').on('data', (said: string) => {
    text += said;
    const [question, typed] = answers[at] ?? [null, ''];
    if (question === null || !text.slice(read).includes(question)) return;
    at += 1;
    read = text.length;
    child.stdin.write(typed);
  });
  const [code] = await once(child, 'close');
  return { code, text, asked: at };
}

describe('on a terminal', () => {
  const command = (file: string, ...args: string[]) =>
    [SHIPMATE, 'setup', '-c', file, '--source', `orders=${mariadb.dataDir}`, '--user', USER, ...args].join(' ');
  const ETCD = 'http://10.1.2.3:2379';

  test('asks little; Enter takes the default, and what can not be is asked again', async () => {
    const file = join(dir, 'typed.yaml');
    const { code, text, asked } = await answer(command(file), [
      ['name of this host among the twins', 'db-1\r'],
      ['name that the twins share [db]', '\r'],
      ["etcd's URLs", 'nonsense\r'],
      ["etcd's URLs", `${ETCD}\r`],
      ['place of the archive', 'gs://acme-logs/prod\r'],
    ]);
    expect({ code, asked }).toEqual({ code: 0, asked: 5 });
    expect(text).toContain('"nonsense" is no list of URLs: such as');
    expect(text).toContain(`wrote ${file} (mode 0640)`);
    expect(parse(await readFile(file, 'utf8'))).toMatchObject({
      node: 'db-1',
      cluster: 'db',
      coordination: { etcd: { endpoints: [ETCD] } },
      stores: { main: { type: 'gcs', bucket: 'acme-logs', prefix: 'prod' } },
      streams: { orders: { source: { type: 'mariadb', dir: mariadb.dataDir } } },
    });
  }, 60_000);

  test('leaves all as it is when one leaves it', async () => {
    const file = join(dir, 'left.yaml');
    const { code, text } = await answer(command(file), [['name of this host', '\x04']]);
    expect(code).toBe(1);
    expect(text).toContain('nothing was written');
    await expect(stat(file)).rejects.toThrow('ENOENT');
  }, 60_000);

  test('asks before it replaces a config, and keeps the old one', async () => {
    const file = join(dir, 'there.yaml');
    await writeFile(file, 'cluster: precious\n');
    const flags = ['--node', 'db-1', '--cluster', 'acme', '--solo', '--store', '/mnt/backup'];
    const refused = await answer(command(file, ...flags), [['Replace it', 'no\r']]);
    expect(refused.code).toBe(2);
    expect(await readFile(file, 'utf8')).toBe('cluster: precious\n');
    const replaced = await answer(command(file, ...flags), [['Replace it', 'yes\r']]);
    expect(replaced.code).toBe(0);
    expect(replaced.text).toContain(`what was there is ${file}.old now`);
    expect(await readFile(`${file}.old`, 'utf8')).toBe('cluster: precious\n');
    expect(parse(await readFile(file, 'utf8')).cluster).toBe('acme');
  }, 60_000);
});

describe('without a terminal it refuses, and writes nothing,', () => {
  test.each<[string, string[], RegExp]>([
    ['where it would have to ask', ['--solo', '--store', '/mnt/backup'], /^error: .*no terminal.*\nhint: give --yes/],
    [
      'where nothing tells the store or etcd',
      ['--yes', '--source', 'orders=MARIADB'],
      /^error: .*nothing here tells\nhint: give --/,
    ],
    ['a directory that holds no database', ['--yes', '--source', 'orders=/nowhere'], /holds no database that is known/],
    [
      'a place that is none',
      ['--yes', '--solo', '--store', 'ftp://x', '--source', 'orders=MARIADB'],
      /is no place for the archive/,
    ],
  ])('%s', async (_, args, complaint) => {
    const file = join(dir, 'refused.yaml');
    const { code, stderr } = await shipmate(
      file,
      'setup',
      ...args.map((arg) => arg.replace('MARIADB', mariadb.dataDir)),
    );
    expect(code).toBe(2);
    expect(stderr).toMatch(complaint);
    await expect(stat(file)).rejects.toThrow('ENOENT');
  });

  test('a config that is there, unless it is told to; a second setup is safe', async () => {
    const file = join(dir, 'kept.yaml');
    const args = ['setup', '--yes', '--solo', '--store', '/mnt/backup', '--source', `orders=${mariadb.dataDir}`];
    await writeFile(file, 'cluster: precious\n');
    const refused = await shipmate(file, ...args);
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining('--overwrite') });
    expect(await readFile(file, 'utf8')).toBe('cluster: precious\n');
    expect((await shipmate(file, ...args, '--overwrite')).code).toBe(0);
    expect(await readFile(`${file}.old`, 'utf8')).toBe('cluster: precious\n');
  });
});

test('finds the servers that run here by themselves, with their sockets', async () => {
  const file = join(dir, 'found.yaml');
  const redis = await Redis.start();
  const args = ['setup', '--yes', '--dry-run', '--json', '--solo', '--store', '/mnt/backup'];
  const { stdout } = await shipmate(file, ...args).finally(() => redis.stop());
  const { config }: Report = JSON.parse(stdout);
  const sources = Object.values<{ source: { dir: string; url: string } }>(parse(config).streams).map(
    ({ source }) => source,
  );
  expect(sources.find((source) => source.dir === mariadb.dataDir)?.url).toContain(`socket=${mariadb.socket}`);
  const url = sources.find((source) => source.dir === postgres.dataDir)?.url;
  expect(url).toBe(`postgresql://shipmate@/postgres?host=${postgres.socketDir}&port=${postgres.port}`);
  expect(sources).toContainEqual({ type: 'files', dir: redis.aofDir, layout: 'redis-aof' });
  await expect(stat(file)).rejects.toThrow('ENOENT');
});
