import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, expect, jest, test } from '@jest/globals';
import { stringify } from 'yaml';
import { asShipped } from '../helpers/binlog.ts';
import { shipmate } from '../helpers/daemon.ts';
import { type Etcd, startEtcd } from '../helpers/etcd.ts';
import { type Mariadb, startMariadb } from '../helpers/mariadb.ts';
import { freePorts } from '../helpers/ports.ts';
import { Supervisor } from '../helpers/supervisor.ts';
import { UnitFile } from '../helpers/unit-file.ts';
import { until } from '../helpers/wait.ts';

jest.setTimeout(300_000);

/** Two daemons by the template's ExecStart, under a supervisor that speaks sd_notify; each test goes on from the last. */
let dir: string;
let etcd: Etcd;
let mariadb: Mariadb;
let ports: number[];
const twins = new Map<string, Supervisor>();
const twin = (node: string) => twins.get(node)!;

// The watchdog's half minute is shortened for the test, by a drop-in as an administrator would.
const unit = new UnitFile('shipmate@.service', ['[Service]\nWatchdogSec=15s\nRestartSec=100ms\n']);

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'shipmate-systemd-'));
  await Promise.all(['store', 'audit', 'restored'].map((name) => mkdir(join(dir, name))));
  [etcd, mariadb, ports] = await Promise.all([startEtcd(), startMariadb(), freePorts(2)]);
  await mariadb.query('CREATE DATABASE shop');
  await mariadb.query('CREATE TABLE shop.orders (id INT PRIMARY KEY, note TEXT)');
  await writeFile(join(dir, 'audit', 'audit-1.log'), 'first\n');
  twins.set('db-1', await Supervisor.of({ unit, instance: 'db-1', dir }));
  const socket = `@${basename(dir)}`; // an abstract one
  twins.set('db-2', await Supervisor.of({ unit, instance: 'db-2', dir, socket }));
});

afterAll(async () => {
  await Promise.all([...twins.values()].map((each) => each.close()));
  await Promise.all([mariadb?.stop(), etcd?.stop()]);
  await rm(dir, { recursive: true, force: true });
});

const streams = () => ({
  orders: { source: { type: 'mariadb', dir: mariadb.dataDir }, store: 'main', chunk: { maxDelay: '20ms' } },
  audit: { source: { type: 'files', dir: join(dir, 'audit'), shared: true }, store: 'main' },
});

const urlOf = (node: string) => `http://127.0.0.1:${ports[node === 'db-1' ? 0 : 1]}`;
const configFile = (node: string) => join(dir, `${node}.yaml`);

async function configure(node: string, changes: object): Promise<void> {
  const config = {
    node,
    cluster: 'acme',
    stateDir: join(dir, `state-${node}`),
    coordination: { etcd: { endpoints: etcd.endpoints, ttl: '2s' } },
    stores: { main: { type: 'file', path: join(dir, 'store') } },
    admin: { listen: urlOf(node).replace('http://', '') },
    ...changes,
  };
  await writeFile(configFile(node), stringify(config));
}

const metrics = async (node: string) => (await fetch(`${urlOf(node)}/metrics`)).text();
const terms = (node: string, stream: string) =>
  twin(node).journal.filter(({ text }) => text.startsWith(`${stream}: master of term`)).length;

let rows = 0;
const insert = () => mariadb.query('INSERT INTO shop.orders VALUES (?, ?)', [++rows, 'a row']);

test('READY comes when the streams were tried, STATUS says how they stand, and the journal has lines to read', async () => {
  const { orders } = streams();
  for (const node of ['db-1', 'db-2']) await configure(node, { streams: { orders } });
  twin('db-1').start();
  await twin('db-1').ready();
  await twin('db-1').status(/^orders: master of term 1$/);
  twin('db-2').start();
  await twin('db-2').ready();
  await twin('db-2').status(/^orders: standby, ready$/);
  expect(await twin('db-1').logs(/^orders: role: master$/)).toMatchObject({ priority: 6 });
  expect(twin('db-1').told.some(({ WATCHDOG }) => WATCHDOG === '1')).toBe(true);
});

test('a reload adds a stream, and the one that has not changed keeps its term', async () => {
  const before = twin('db-1').told.length;
  for (const node of ['db-1', 'db-2']) {
    await configure(node, { streams: streams(), limits: { link: '100MiB/s' } });
    await twin(node).reload();
    await twin(node).status(node === 'db-1' ? /audit: master of term 1/ : /audit: standby, ready/);
  }
  expect(await twin('db-1').logs(/^the config was reloaded/)).toMatchObject({
    text: 'the config was reloaded added=["audit"] removed=[] changed=[]',
  });
  const told = twin('db-1').told.slice(before);
  const reloading = told.findIndex(({ RELOADING }) => RELOADING === '1');
  expect(Number(told[reloading]?.MONOTONIC_USEC)).toBeGreaterThan(0);
  expect(told.findIndex(({ READY }) => READY === '1')).toBeGreaterThan(reloading);
  expect(terms('db-1', 'orders')).toBe(1);
  expect(await metrics('db-1')).toMatch(/shipmate_bandwidth_limit_bytes\{class="link"\} 104857600/);
});

test('a stream whose settings change is left and started again alone', async () => {
  const { orders, audit } = streams();
  await configure('db-1', { streams: { orders, audit: { ...audit, chunk: { maxBytes: '64MiB' } } } });
  await twin('db-1').reload();
  await twin('db-2').status(/audit: master of term 2/);
  await twin('db-1').status(/orders: master of term 1; audit: standby, ready/);
  expect(terms('db-1', 'orders')).toBe(1);
  expect(await metrics('db-1')).not.toMatch(/shipmate_bandwidth_limit_bytes\{/);
});

test('a stream that is removed is handed over', async () => {
  const { orders } = streams();
  await configure('db-2', { streams: { orders } });
  await twin('db-2').reload();
  await twin('db-1').status(/audit: master of term 3/);
  await twin('db-2').status(/^orders: standby, ready$/);
  expect(await metrics('db-2')).not.toContain('stream="audit"');
});

test('a config that is wrong is refused without stopping, and an operator sees what, where and the fix', async () => {
  const { orders } = streams();
  const pid = twin('db-1').pid;
  const since = twin('db-1').journal.length;
  await configure('db-1', { streams: { orders: { ...orders, chunck: { maxBytes: '1MiB' } } } });
  const lines = (await readFile(configFile('db-1'), 'utf8')).split('\n');
  const line = 1 + lines.findIndex((text) => text.includes('chunck'));
  await twin('db-1').reload();
  const said = await twin('db-1').logs(/^the config was not reloaded/, { since });
  const what = `${configFile('db-1')}, line ${line}: streams.orders.chunck: unknown key`;
  expect(said).toEqual({
    priority: 3,
    text: `the config was not reloaded, and the old one stays in force: ${what} hint="did you mean \\"chunk\\"?"`,
  });
  await twin('db-1').status(
    /^the config was refused, the old one is in force: .*chunck: unknown key; orders: master of term 1/,
  );
  expect(await metrics('db-1')).toMatch(/^shipmate_config_last_reload_successful 0$/m);
  expect(twin('db-1').pid).toBe(pid);
  expect(terms('db-1', 'orders')).toBe(1);
});

test.each<[string, () => Promise<void>, RegExp]>([
  [
    'what only a restart can change',
    () => configure('db-1', { node: 'db-9', streams: streams() }),
    /line 1: node: can't change while the daemon runs hint="put it back, or restart the daemon; nothing of this file is in force"$/,
  ],
  ['no YAML', () => writeFile(configFile('db-1'), 'node: [db-1\n'), /line \d+, column \d+: not valid YAML: .*hint=/],
  ['no file', () => rm(configFile('db-1')), /config file .*db-1\.yaml does not exist hint=/],
])('so is %s', async (_, spoil, message) => {
  const since = twin('db-1').journal.length;
  await spoil();
  await twin('db-1').reload();
  const { text } = await twin('db-1').logs(/^the config was not reloaded/, { since });
  expect(text).toMatch(message);
});

test('once it is right again, that is told as well', async () => {
  await configure('db-1', { streams: streams() });
  await twin('db-1').reload();
  await twin('db-1').status(/^orders: master of term 1; audit: /);
  const text = await metrics('db-1');
  expect(text).toMatch(/^shipmate_config_last_reload_successful 1$/m);
  expect(text).toMatch(/^shipmate_config_last_reload_success_timestamp_seconds \d/m);
  expect(terms('db-1', 'orders')).toBe(1);
});

test('a stream that can not work stops alone, and the next reload tries it again', async () => {
  const closed = join(dir, 'closed');
  await mkdir(closed, { mode: 0o700 });
  if (process.getuid?.() === 0) await chown(closed, 1, 1);
  else await chmod(closed, 0o000);
  const main = { type: 'file', path: join(dir, 'store') };
  const billing = { source: { type: 'files', dir: join(dir, 'audit'), shared: true }, store: 'closed' };
  await configure('db-1', {
    stores: { main, closed: { type: 'file', path: closed } },
    streams: { ...streams(), billing },
  });
  await twin('db-1').reload();
  const said = await twin('db-1').logs(/^billing: the stream has stopped, the others go on: store closed: .*EACCES/);
  expect(said).toMatchObject({
    priority: 3,
    text: expect.stringContaining('hint="the daemon needs to read and write there'),
  });
  await twin('db-1').status(/^orders: master of term 1; audit: .*; billing: stopped: store closed: .*EACCES/);
  const readiness = await (await fetch(`${urlOf('db-1')}/readyz`)).json();
  expect(readiness).toMatchObject({
    reasons: expect.arrayContaining([expect.stringMatching(/^stream billing has stopped: store closed/)]),
  });
  await chmod(closed, 0o777);
  await twin('db-1').reload();
  await twin('db-1').status(/^orders: master of term 1; audit: .*; billing: master of term 1$/);
});

test('a daemon that hangs misses its watchdog and is started anew; its twin took over meanwhile, and nothing is lost', async () => {
  await insert();
  twin('db-1').kill('SIGSTOP');
  await insert();
  await twin('db-2').status(/^orders: master of term 2$/);
  await until('it has missed its watchdog', () => twin('db-1').ended.length > 0, { withinMs: 120_000 });
  expect(twin('db-1').ended).toEqual([{ result: 'watchdog', code: null }]);
  await twin('db-1').ready();
  await twin('db-1').status(/orders: standby, ready/);
  await insert();
  await allShipped();
  await expectRestored();
});

test('told to stop it leaves in order, and its twin ships on', async () => {
  await twin('db-2').stop();
  expect(twin('db-2').ended).toEqual([{ result: 'success', code: 0 }]);
  expect(twin('db-2').told).toContainEqual({ STOPPING: '1', STATUS: 'leaving' });
  await twin('db-1').status(/orders: master of term 3/);
});

/** The archive goes as far as the server's log, which nobody writes any more. */
async function allShipped(): Promise<void> {
  await until('all is shipped', async () => {
    const binlogs = (await readdir(mariadb.dataDir)).filter(isBinlog).sort();
    const { size } = await stat(join(mariadb.dataDir, binlogs.at(-1)!));
    const { stdout } = await shipmate(configFile('db-2'), 'status', '--json');
    const { cursor } = JSON.parse(stdout).streams.find(({ name }: { name: string }) => name === 'orders');
    return cursor.segment === binlogs.at(-1) && cursor.offset === size;
  });
}

const isBinlog = (name: string) => /^binlog\.\d+$/.test(name);

async function expectRestored(): Promise<void> {
  const to = join(dir, 'restored');
  expect(await shipmate(configFile('db-2'), 'restore', 'orders', '--to', to)).toMatchObject({ code: 0 });
  const binlogs = (await readdir(to)).filter(isBinlog);
  expect(binlogs.length).toBeGreaterThan(0);
  for (const name of binlogs) {
    const [restored, own] = await Promise.all([to, mariadb.dataDir].map((folder) => readFile(join(folder, name))));
    expect(restored!.equals(asShipped(own!))).toBe(true);
  }
}
