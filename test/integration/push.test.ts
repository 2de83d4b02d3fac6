import { chmodSync } from 'node:fs';
import { copyFile, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, jest, test } from '@jest/globals';
import { stringify } from 'yaml';
import { checkoutForServers } from '../helpers/checkout.ts';
import { type Daemon, type Outcome, prepareDaemon, shipmate } from '../helpers/daemon.ts';
import { measured } from '../helpers/measured.ts';
import { type Postgres, serverFolder, startPostgres } from '../helpers/postgres.ts';
import { until } from '../helpers/wait.ts';

jest.setTimeout(70_000);

/** One server and its daemon. */
let dir: string;
let storePath: string;
let server: Postgres;
let daemon: Daemon;

beforeAll(async () => {
  dir = await serverFolder('shipmate-push-');
  chmodSync(dir, 0o755);
  storePath = join(dir, 'store');
  await mkdir(storePath);
  const launcher = join(await checkoutForServers(dir), 'bin', 'shipmate');
  const command = `HOME=/nonexistent ${launcher} push %p --timeout 0.5 -c ${join(dir, 'db-1', 'shipmate.yaml')}`;
  server = await startPostgres({ settings: { archive_mode: 'on', archive_command: command } });
  const source = { type: 'postgres', dir: server.dataDir, url: server.url };
  daemon = await prepareDaemon({
    node: 'db-1',
    dir: join(dir, 'db-1'),
    storePath,
    source,
    chunk: { maxDelay: '20ms' },
  });
});

afterAll(async () => {
  await daemon?.kill();
  await server?.stop();
  await rm(dir, { recursive: true, force: true });
});

async function startDaemon(): Promise<void> {
  if (daemon.running) return;
  await daemon.start();
  await daemon.becomesMaster();
}

/** Ends a segment; returns its name. */
async function finishSegment(): Promise<string> {
  const [row] = await server.sql("SELECT pg_walfile_name(pg_logical_emit_message(true, 'test', 'x')) AS name");
  await server.sql('SELECT pg_switch_wal()');
  return String(row!.name);
}

const push = (name: string, ...args: string[]): Promise<Outcome> =>
  shipmate(daemon.configFile, 'push', join(server.dataDir, 'pg_wal', name), ...args);

async function isArchived(name: string): Promise<boolean> {
  const { last } = await archived();
  return last !== null && String(last) >= name;
}

const archived = async () =>
  (await server.sql('SELECT last_archived_wal AS last, failed_count::int AS failed FROM pg_stat_archiver'))[0]!;

test('without a daemon nothing is let go', async () => {
  const name = await finishSegment();
  const { code, stderr } = await push(name, '--timeout', '0.2');
  expect(code).toBe(1);
  expect(stderr).toMatch(/^error: the daemon does not answer.*\nhint: start it/);
  await until('the server was told so', async () => Number((await archived()).failed) > 0);
  expect((await archived()).last).toBeNull();
});

test('what the daemon ships live, the server lets go at once (timed)', async () => {
  await startDaemon();
  const name = await finishSegment();
  await until('the server has archived it', () => isArchived(name));
  const { code, stderr, stdout, tookMs } = await push(name);
  expect({ code, stderr, stdout }).toEqual({ code: 0, stderr: '', stdout: '' });
  measured('push of what is durable', tookMs, 500);
});

test('the path is the data directory’s, also as archive_command gives it', async () => {
  await startDaemon();
  const name = await finishSegment();
  await until('the server has archived it', () => isArchived(name));
  const elsewhere = await shipmate(daemon.configFile, 'push', `pg_wal/${name}`);
  expect(elsewhere.code).toBe(2);
  expect(elsewhere.stderr).toMatch(/no stream of the config has the data directory/);
});

test('a backup’s note and the backup’s WAL are archived too', async () => {
  await startDaemon();
  await rm(await server.baseBackup(), { recursive: true });
  await until('its note was archived', async () => /\.backup$/.test(String((await archived()).last)));
});

test('a segment that is not in the store yet is waited for; the server keeps it meanwhile', async () => {
  await startDaemon();
  const away = join(dir, 'away');
  await rename(storePath, away);
  await server.sql('SELECT pg_switch_wal()'); // the present segment's first records may have been shipped by now
  const name = await finishSegment();
  const early = await push(name, '--timeout', '0.3');
  expect(early.code).toBe(1);
  // Of the segment's beginning something may have been shipped before: then the store is asked.
  expect(early.stderr).toMatch(
    /is not durable in the archive: (the archive ends at 1\/|the daemon answered 503: store main: .* does not exist)/,
  );
  const waiting = push(name, '--timeout', '30');
  await rename(away, storePath);
  expect(await waiting).toMatchObject({ code: 0 });
});

test('a name of another timeline, or with other bytes, is not durable', async () => {
  await startDaemon();
  const name = await finishSegment();
  expect(await push(name)).toMatchObject({ code: 0 });
  const path = (other: string) => join(server.dataDir, 'pg_wal', other);
  const bytes = await readFile(path(name));
  const forged = name.replace(/^00000001/, '00000002');
  await writeFile(path(forged), bytes);
  expect(await push(forged, '--timeout', '0.2')).toMatchObject({ code: 1 });
  await rm(path(forged));
});

test('through a mount that gives files other inodes, the file’s bytes show that it is the daemon’s own', async () => {
  const name = await finishSegment();
  const path = join(dir, 'elsewhere', 'pg_wal', name);
  await mkdir(dirname(path), { recursive: true });
  await copyFile(join(server.dataDir, 'pg_wal', name), path);
  const pushIt = (...args: string[]) => shipmate(daemon.configFile, 'push', path, '--stream', 'orders', ...args);
  expect(await pushIt()).toMatchObject({ code: 0, stderr: '' });
  const bytes = await readFile(path);
  bytes[bytes.length >> 1]! ^= 1;
  await writeFile(path, bytes);
  const { code, stderr } = await pushIt('--timeout', '0.2');
  expect(code).toBe(1);
  expect(stderr).toMatch(/the daemon that was asked ships another .*\nhint: see that admin\.listen/);
});

test('a config that does not say where the daemon is, or whose stream the daemon does not have', async () => {
  const file = join(dir, 'other.yaml');
  const base = {
    cluster: 'acme',
    coordination: 'solo',
    stores: { main: { type: 'file', path: storePath } },
    streams: { other: { source: { type: 'postgres', dir: server.dataDir, url: server.url }, store: 'main' } },
  };
  await writeFile(file, stringify(base));
  const path = join(server.dataDir, 'pg_wal', '000000010000000000000001');
  expect(await shipmate(file, 'push', path)).toMatchObject({ code: 2 });
  await writeFile(file, stringify({ ...base, admin: { listen: new URL(daemon.url).host } }));
  expect(await shipmate(file, 'push', path)).toMatchObject({ code: 2 });
});
