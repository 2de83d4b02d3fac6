import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { stringify } from 'yaml';
import type { Archive } from '../../src/archive/walk.ts';
import { decodeHeader, type Header } from '../../src/core/header.ts';
import { openMariadbSource } from '../../src/source/mariadb.ts';
import { openFileStore } from '../../src/store/file.ts';
import { FakeLog } from '../fakes/fake-log.ts';
import { openFakeSource } from '../fakes/fake-source.ts';
import { differences, readBinlogs } from '../helpers/archive.ts';
import { type Outcome, shipmate } from '../helpers/daemon.ts';
import { type Mariadb, startMariadb } from '../helpers/mariadb.ts';
import { createArchive, shipTerm } from '../helpers/shipped-archive.ts';

const run = promisify(execFile);

let dir: string;
let storePath: string;
let config: string;
let server: Mariadb;
let archive: Archive;
let targets = 0;

const quiet = { debug() {}, info() {}, warn() {}, error() {} };

async function ship(node = 'db-1'): Promise<void> {
  const source = openMariadbSource({
    stream: 'orders',
    dir: server.dataDir,
    flavour: 'mariadb',
    busyPollMs: 5,
    log: quiet,
  });
  try {
    await shipTerm(archive, source, { node, maxChunkBytes: 64 * 1024 });
  } finally {
    await source.close();
  }
}

/** Commits so many transactions; returns the log's ID after them. */
async function write(transactions: number): Promise<string> {
  for (let i = 0; i < transactions; i++) {
    await server.query('INSERT INTO shop.orders (note) VALUES (REPEAT(?, 2000))', [String(i)]);
  }
  const [row] = await server.query('SELECT @@gtid_binlog_pos AS id');
  return String(row!.id);
}

const newTarget = () => join(dir, `restored-${++targets}`);
const restore = (to: string, ...args: string[]) => shipmate(config, 'restore', 'orders', '--to', to, ...args);

function expectComplaint({ stderr }: Outcome, error: RegExp, hint: RegExp): void {
  const [first, second] = stderr.trimEnd().split('\n').slice(-2);
  expect(first).toMatch(/^error: /);
  expect(first).toMatch(error);
  expect(second).toMatch(/^hint: /);
  expect(second).toMatch(hint);
}

/** Objects of the archive in key order, which is chain order. */
async function objects(): Promise<{ path: string; header: Header }[]> {
  const terms = join(storePath, 'orders', 'terms');
  const paths = (await readdir(terms, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
  return Promise.all(paths.map(async (path) => ({ path, header: decodeHeader(await readFile(path), path).header })));
}

async function chunkPaths(): Promise<string[]> {
  return (await objects()).filter(({ header }) => header.kind === 'chunk').map(({ path }) => path);
}

/** Damages an object's payload while `use` runs. */
async function damaged<T>(path: string, use: () => Promise<T>): Promise<T> {
  const whole = await readFile(path);
  const broken = Buffer.from(whole);
  broken[broken.length - 3]! ^= 1;
  await writeFile(path, broken);
  try {
    return await use();
  } finally {
    await writeFile(path, whole);
  }
}

let middleId: string;
let middleTime: string;
let before: Map<string, Buffer>;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'shipmate-restore-'));
  storePath = join(dir, 'store');
  await mkdir(storePath);
  config = join(dir, 'shipmate.yaml');
  // Nothing but the store may be opened: the rest leads nowhere, or is not in the environment.
  await writeFile(
    config,
    stringify({
      node: 'db-9',
      cluster: 'acme',
      stateDir: '/nowhere/state',
      coordination: { etcd: { endpoints: ['http://127.0.0.1:1'] } },
      stores: { main: { type: 'file', path: storePath }, copy: { type: 'file', path: join(dir, 'copy') } },
      streams: {
        orders: {
          // biome-ignore lint/suspicious/noTemplateCurlyInString: as a config names a variable
          source: { type: 'mariadb', dir: '/nowhere/mysql', url: 'mariadb://me:${SHIPMATE_NOT_SET}@127.0.0.1:3306' },
          store: 'main',
        },
      },
      admin: { listen: '127.0.0.1:1' },
    }),
  );
  archive = await createArchive(openFileStore({ name: 'main', path: storePath }), 'orders', 'mariadb');
  server = await startMariadb();
  await server.query('CREATE DATABASE shop');
  await server.query('CREATE TABLE shop.orders (id BIGINT PRIMARY KEY AUTO_INCREMENT, note TEXT)');
  await write(30);
  await server.rotate();
  middleId = await write(40);
  await ship();
  const [now] = await server.query('SELECT UNIX_TIMESTAMP() AS seconds');
  middleTime = new Date(Number(now!.seconds) * 1000).toISOString();
  // The log's times have seconds only: what comes now is of a later one.
  await server.query('SELECT SLEEP(1.1)');
  await write(30);
  await server.rotate();
  await write(10);
  await ship('db-2');
  before = await readBinlogs(server.dataDir);
}, 120_000);

afterAll(async () => {
  await server?.stop();
  await rm(dir, { recursive: true, force: true });
});

describe('restore', () => {
  test('gives back the server’s binlogs and an index, byte for byte', async () => {
    const to = newTarget();
    const { code, stdout, stderr } = await restore(to);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/^restored stream orders to .*: 1 run, 3 segments, .*, up to 0-1-112, 20/);
    expect(differences(before, await readBinlogs(to))).toEqual([]);
    expect(await readFile(join(to, 'binlog.index'), 'utf8')).toBe(
      './binlog.000001\n./binlog.000002\n./binlog.000003\n',
    );
    expect((await readdir(to)).sort()).toEqual(['binlog.000001', 'binlog.000002', 'binlog.000003', 'binlog.index']);
  });

  test('replays into an empty server: every row up to the transaction that was asked for, and none after it', async () => {
    const to = newTarget();
    expect((await restore(to, '--until', middleId)).code).toBe(0);
    const second = await startMariadb({ serverId: 2 });
    try {
      const files = (await readdir(to)).filter((name) => /\.\d+$/.test(name)).sort();
      const client = `mariadb --no-defaults --socket=${second.socket} --user=root`;
      await run('sh', ['-c', `mariadb-binlog --no-defaults ${files.join(' ')} | ${client}`], { cwd: to });
      const sums = 'SELECT COUNT(*) AS rows_, CAST(SUM(CRC32(CONCAT(id, note))) AS CHAR) AS sum FROM shop.orders';
      expect(await second.query(sums)).toEqual(await server.query(`${sums} WHERE id <= 70`));
    } finally {
      await second.stop();
    }
  });

  test('a time is inclusive to the second; --json says what was reached', async () => {
    const to = newTarget();
    const { code, stdout } = await restore(to, '--until', middleTime, '--json');
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ stream: 'orders', end: { id: middleId }, beyondArchive: false });
    const [, second] = [...(await readBinlogs(to)).values()];
    expect(before.get('binlog.000002')!.subarray(0, second!.length).equals(second!)).toBe(true);
  });

  test('--dry-run says the same and writes nothing', async () => {
    const to = newTarget();
    const planned = JSON.parse((await restore(to, '--dry-run', '--json', '--until', middleId)).stdout);
    const { stdout } = await restore(to, '--dry-run', '--until', middleId);
    expect(stdout).toMatch(/^would restore stream orders/);
    await expect(readdir(to)).rejects.toMatchObject({ code: 'ENOENT' });
    const restored = JSON.parse((await restore(to, '--json', '--until', middleId)).stdout);
    expect(restored).toMatchObject(planned);
    for (const { name, bytes } of planned.runs[0].segments) expect((await readFile(join(to, name))).length).toBe(bytes);
  });

  test('targets that can’t be restored are refused with what to do', async () => {
    const to = newTarget();
    const noZone = await restore(to, '--until', '2026-11-22T13:05:00');
    expect(noZone.code).toBe(2);
    expectComplaint(noZone, /has no zone/, /2026-11-22T13:05:00Z/);
    const notAnId = await restore(to, '--until', 'yesterday');
    expect(notAnId.code).toBe(2);
    const absent = await restore(to, '--until', '0-1-4711');
    expect(absent.code).toBe(1);
    expectComplaint(absent, /0-1-4711 is not in the archive.*to 0-1-112/, /in between/);
    const stranger = await shipmate(config, 'restore', 'order', '--to', to);
    expect(stranger.code).toBe(2);
    expectComplaint(stranger, /no stream "order"/, /"orders"/);
    const noDir = await shipmate(config, 'restore', 'orders');
    expect(noDir.code).toBe(2);
    await expect(readdir(to)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  test('a damaged object stops it with exit code 3; once it is put right the same command goes on', async () => {
    const to = newTarget();
    const victim = (await chunkPaths()).at(-2)!;
    const failed = await damaged(victim, () => restore(to));
    expect(failed.code).toBe(3);
    expectComplaint(
      failed,
      new RegExp(`object ${victim.slice(storePath.length + 1)} is damaged`),
      /copy of the archive/,
    );
    const { code, stdout } = await restore(to);
    expect(code).toBe(0);
    expect(stdout).toMatch(/were there already/);
    expect(differences(before, await readBinlogs(to))).toEqual([]);
  });

  test('a directory in use is refused and left alone', async () => {
    const to = newTarget();
    await mkdir(to);
    await writeFile(join(to, 'binlog.000001'), 'precious');
    const refused = await restore(to);
    expect(refused.code).toBe(2);
    expectComplaint(refused, /is not empty/, /new or empty directory/);
    expect(await readFile(join(to, 'binlog.000001'), 'utf8')).toBe('precious');
  });

  test('--store reads from another store', async () => {
    const down = await restore(newTarget(), '--store', 'backup');
    expect(down.code).toBe(2);
    expectComplaint(down, /no store "backup"/, /main/);
    await mkdir(join(dir, 'copy'), { recursive: true });
    const empty = await restore(newTarget(), '--store', 'copy');
    expect(empty.code).toBe(1);
    expectComplaint(empty, /store copy holds no archive of stream orders/, /--store/);
    await rm(join(dir, 'copy'), { recursive: true });
  });

  test('by hand, with the script of docs/restore.md, gives the same bytes', async () => {
    const to = newTarget();
    await byHand(join(storePath, 'orders'), to);
    expect(differences(before, await readFiles(to))).toEqual([]);
  });
});

/** The script that docs/restore.md gives to whoever has lost Shipmate too. */
async function byHand(streamDir: string, to: string): Promise<void> {
  const doc = await readFile(new URL('../../docs/restore.md', import.meta.url), 'utf8');
  const script = /```bash\n(#!\/bin\/bash\n.*?)```/s.exec(doc)![1]!;
  await run('bash', ['-euc', script, 'by-hand', streamDir, to]);
}

async function readFiles(directory: string): Promise<Map<string, Buffer>> {
  const files = new Map<string, Buffer>();
  for (const name of (await readdir(directory)).sort()) files.set(name, await readFile(join(directory, name)));
  return files;
}

test('by hand, what a crash took back is left out, and lives of the log are told apart', async () => {
  const path = join(dir, 'by-hand-store');
  await mkdir(path);
  const log = new FakeLog();
  const made = await createArchive(openFileStore({ name: 'main', path }));
  const shipLog = () => shipTerm(made, openFakeSource(log, { maxSliceBytes: 300 }));
  for (let i = 0; i < 9; i++) log.append({ bytes: 200 });
  log.rotate();
  log.append();
  await shipLog();
  log.truncate(700);
  log.append();
  await shipLog();
  const firstLife = log.contents();
  log.reset();
  log.append();
  await shipLog();
  const to = newTarget();
  await byHand(join(path, 'orders'), to);
  expect(differences(firstLife, await readFiles(`${to}.1`))).toEqual([]);
  expect(differences(log.contents(), await readFiles(to))).toEqual([]);
});

describe('ls', () => {
  test('shows terms, what is recoverable and where, in 80 columns', async () => {
    const { code, stdout } = await shipmate(config, 'ls');
    expect(code).toBe(0);
    expect(Math.max(...stdout.split('\n').map((line) => line.length))).toBeLessThanOrEqual(80);
    expect(stdout).toMatch(/stream orders in store main/);
    expect(stdout).toMatch(/recoverable: 20\S+Z to 20\S+Z \(0-1-112\)/);
    expect(stdout).toMatch(/2 +db-1 +20.* start +\d+ .* sealed\n.*→ 0-1-72\n/);
    expect(stdout).toMatch(/3 +db-2 +20.* resume +\d+ .* open\n.*0-1-72 → 0-1-112\n/);
  });

  test('--json tells a script the same', async () => {
    const { code, stdout } = await shipmate(config, 'ls', 'orders', '--json');
    expect(code).toBe(0);
    const [stream] = JSON.parse(stdout).streams;
    expect(stream).toMatchObject({ stream: 'orders', store: 'main', breaks: [], hole: null });
    expect(stream.terms).toMatchObject([
      { term: 1, chunks: 0, state: 'sealed' },
      { term: 2, node: 'db-1', result: 'start', to: { id: middleId }, state: 'sealed' },
      { term: 3, node: 'db-2', result: 'resume', from: { id: middleId }, to: { id: '0-1-112' }, state: 'open' },
    ]);
    expect(stream.recoverable).toMatchObject([{ to: { id: '0-1-112' }, segments: 3 }]);
  });
});

describe('verify', () => {
  test('a whole archive exits with 0, deep or not', async () => {
    const chain = await shipmate(config, 'verify');
    expect(chain.stdout).toMatch(/^stream orders in store main: whole\n {2}3 terms \(the last one open\), \d+ chunks/);
    expect(chain.code).toBe(0);
    const deep = await shipmate(config, 'verify', 'orders', '--deep', '--json');
    expect(deep.code).toBe(0);
    expect(JSON.parse(deep.stdout).streams).toMatchObject([{ stream: 'orders', whole: true, deep: true, faults: [] }]);
  });

  test('names every damaged payload, and exits with 3', async () => {
    const paths = await chunkPaths();
    const [one, two] = [paths[1]!, paths.at(-1)!];
    const outcome = await damaged(one, () => damaged(two, () => shipmate(config, 'verify', '--deep')));
    expect(outcome.code).toBe(3);
    for (const path of [one, two]) {
      expect(outcome.stdout).toContain(`fault: ${path.slice(storePath.length + 1)} is damaged: the SHA-256`);
    }
    expectComplaint(outcome, /2 faults in the archive of orders/, /copy/);
  });

  test('a chunk that is gone is a fault for verify, ls and restore', async () => {
    const victim = (await chunkPaths())[1]!;
    const bytes = await readFile(victim);
    await rm(victim);
    try {
      const verified = await shipmate(config, 'verify');
      expect(verified.code).toBe(3);
      expect(verified.stdout).toContain(`fault: ${victim.slice(storePath.length + 1)} is missing`);
      expect((await shipmate(config, 'ls')).code).toBe(3);
      expect((await restore(newTarget())).code).toBe(3);
    } finally {
      await writeFile(victim, bytes);
    }
  });
});

describe('after RESET MASTER', () => {
  test('each life of the names gets a directory with its own index, and ls shows the reset', async () => {
    await server.query('RESET MASTER');
    await write(5);
    await ship();
    const to = newTarget();
    expect((await restore(to)).code).toBe(0);
    expect((await readdir(to)).sort()).toEqual(['01-mariadb-1', '02-mariadb-1']);
    expect(differences(before, await readBinlogs(join(to, '01-mariadb-1')))).toEqual([]);
    expect(differences(await readBinlogs(server.dataDir), await readBinlogs(join(to, '02-mariadb-1')))).toEqual([]);
    expect((await shipmate(config, 'ls')).stdout).toMatch(/reset in term 4 \(db-1, 20/);
    expect((await shipmate(config, 'verify', '--deep')).code).toBe(0);
  });
});

describe('after a gap that was accepted', () => {
  test('restore refuses to cross it, and gives each side on request', async () => {
    await write(3);
    await server.rotate();
    await write(3);
    await server.rotate();
    const [status] = await server.query('SHOW MASTER STATUS');
    await server.query(`PURGE BINARY LOGS TO '${status!.File}'`);
    await write(4);
    await ship();
    const to = newTarget();
    const refused = await restore(to);
    expect(refused.code).toBe(3);
    expectComplaint(
      refused,
      /has a gap: bytes are missing between binlog\.000001:\d+ \(0-1-5\) and binlog\.00000[23]:0/,
      /--until 0-1-5 .*--after-gap/,
    );
    expect((await restore(to, '--after-gap')).code).toBe(0);
    expect(differences(await readBinlogs(server.dataDir), await readBinlogs(to))).toEqual([]);
    const listed = await shipmate(config, 'ls');
    expect(listed.stdout.match(/^recoverable: /gm)).toHaveLength(2);
    expect(listed.stdout).toMatch(/gap in term 5/);
    expect(await shipmate(config, 'verify')).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/warning: .*gap that was accepted/),
    });
  });
});
