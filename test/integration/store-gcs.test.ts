import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { ChainReader, differences, readBinlogs } from '../helpers/archive.ts';
import { BinlogDir } from '../helpers/binlog.ts';
import { type Daemon, prepareDaemon, shipmate } from '../helpers/daemon.ts';
import { type GcsDoubleProcess, spawnGcsDouble } from '../helpers/gcs-double-process.ts';
import { until } from '../helpers/wait.ts';

let dir: string;
let gcs: GcsDoubleProcess;
let binlogs: BinlogDir;
let daemon: Daemon;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'shipmate-gcs-'));
  binlogs = new BinlogDir();
  binlogs.start();
  gcs = await spawnGcsDouble({ dir: join(dir, 'objects') });
  daemon = await prepareDaemon({
    node: 'db-1',
    dir: join(dir, 'db-1'),
    storePath: dir,
    store: { type: 'gcs', bucket: 'archive', prefix: 'prod', apiEndpoint: gcs.url },
    source: { dir: binlogs.dir },
  });
});
afterEach(async () => {
  await daemon.kill();
  await gcs.stop();
  binlogs.remove();
  await rm(dir, { recursive: true, force: true });
});

/** Waits until the archive ends where the newest binlog does. */
async function shipped(): Promise<void> {
  const chain = new ChainReader({ root: join(dir, 'objects', 'archive', 'prod') });
  const { length } = await readFile(binlogs.newest);
  await until('all is in the bucket', async () => (await chain.end())?.offset === length, {
    describe: () => daemon.tail(),
  });
}

async function expectRestorable(): Promise<void> {
  const to = join(dir, 'restored');
  await mkdir(to);
  for (const args of [
    ['verify', 'orders', '--deep'],
    ['restore', 'orders', '--to', to],
  ]) {
    const { code, stderr } = await shipmate(daemon.configFile, ...args);
    expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' });
  }
  expect(differences(await readBinlogs(binlogs.dir), await readBinlogs(to))).toEqual([]);
}

test('a daemon ships to a bucket, and what it shipped is restored, with three rights alone', async () => {
  await gcs.deny(['storage.objects.delete']);
  await daemon.start();
  for (let n = 0; n < 20; n++) binlogs.transaction({ bytes: 3_000 });
  await shipped();
  await expectRestorable();
  const { requests } = await gcs.counters();
  expect(['upload', 'read', 'head', 'list']).toEqual(expect.arrayContaining(Object.keys(requests)));
});

test('a right that is taken away is an alarm that names it, and shipping goes on when it is given back', async () => {
  await daemon.start();
  binlogs.transaction();
  await shipped();
  await gcs.deny(['storage.objects.create']);
  binlogs.transaction();
  const line = await daemon.logged(/store: .*storage\.objects\.create/);
  expect(line).toMatchObject({
    level: 'warn',
    code: 'STORE_DENIED',
    hint: expect.stringContaining('grant this account'),
  });
  await gcs.deny([]);
  await shipped();
  await expectRestorable();
});

test('answers that fail or get lost change nothing in what arrives', async () => {
  await daemon.start();
  await daemon.becomesMaster();
  await gcs.setFaults({
    seed: 7,
    rules: [
      { kind: 'drop-after', probability: 0.2 },
      { kind: 'drop-before', probability: 0.2 },
      { kind: 'refuse', status: 429, retryAfterSeconds: 1, probability: 0.2 },
      { kind: 'refuse', operations: ['read', 'list', 'head'], probability: 0.2 },
      { kind: 'damage', probability: 0.1 },
    ],
  });
  for (let n = 0; n < 15; n++) {
    binlogs.transaction({ bytes: 3_000 });
    if (n % 5 === 4) await binlogs.rotate();
    await until('some of it is shipped', async () => (await gcs.counters()).requests.upload! > n);
  }
  await gcs.setFaults({ rules: [] });
  await shipped();
  await expectRestorable();
});

test('check names all that a bucket does not grant, and nothing that is not needed', async () => {
  await gcs.deny(['storage.objects.create', 'storage.objects.list', 'storage.objects.delete']);
  const { code, stdout } = await shipmate(daemon.configFile, 'check', '--json');
  expect(code).toBe(1);
  const { findings }: { findings: { about: string; level: string; hint?: string }[] } = JSON.parse(stdout);
  const hints = findings
    .filter(({ about, level }) => about === 'store main' && level === 'error')
    .map(({ hint }) => hint);
  expect(hints.join('\n')).toContain('grant this account storage.objects.create on the bucket');
  expect(hints.join('\n')).toContain('grant this account storage.objects.list on the bucket');
  expect(hints.join('\n')).not.toContain('storage.objects.delete');
});
