import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { stringify } from 'yaml';
import { shipmate } from '../helpers/daemon.ts';
import { type Etcd, startEtcd } from '../helpers/etcd.ts';
import { Page } from '../helpers/markdown.ts';

const run = promisify(execFile);
const PASSWORDS = {
  SHIPMATE_ETCD_PASSWORD: 'of the twins',
  STATUS_ETCD_PASSWORD: 'of whoever looks',
  ROOT_ETCD_PASSWORD: 'of root',
};

let etcd: Etcd;
let dir: string;
beforeAll(async () => {
  [etcd, dir] = await Promise.all([startEtcd(), mkdtemp(join(tmpdir(), 'shipmate-security-'))]);
  const page = await Page.read('docs/security.md');
  const [roles] = page.blocks.filter(({ language, heading }) => language === 'sh' && heading === 'etcd');
  const env = { ...process.env, ...PASSWORDS, ETCDCTL_API: '3', ETCDCTL_ENDPOINTS: etcd.endpoints.join(',') };
  await run('bash', ['-euc', roles!.text], { env });
});
afterAll(async () => {
  await etcd?.stop();
  await rm(dir, { recursive: true, force: true });
});

/** A config whose etcd user is that one. */
async function configOf(username: string, password: string, cluster = 'acme'): Promise<string> {
  const passwordFile = join(dir, `${username}.password`);
  await writeFile(passwordFile, `${password}\n`, { mode: 0o600 });
  const config = {
    cluster,
    node: 'db-1',
    stateDir: join(dir, 'state'),
    coordination: { etcd: { endpoints: etcd.endpoints, username, passwordFile } },
    stores: { main: { type: 'file', path: dir } },
    streams: { orders: { source: { type: 'mariadb', dir }, store: 'main' } },
  };
  const file = join(dir, `${username}-${cluster}.yaml`);
  await writeFile(file, stringify(config));
  return file;
}

const LIMIT = ['limits', 'set', '--link', '1MiB/s'];

test('of the roles in docs/security.md one writes below the cluster’s prefix, the other reads there', async () => {
  const twins = await configOf('shipmate', PASSWORDS.SHIPMATE_ETCD_PASSWORD);
  expect(await shipmate(twins, ...LIMIT)).toMatchObject({ code: 0 });
  const looker = await configOf('shipmate-status', PASSWORDS.STATUS_ETCD_PASSWORD);
  expect(await shipmate(looker, 'status')).toMatchObject({ code: 0, stderr: '' });
  const refused = await shipmate(looker, ...LIMIT);
  expect([refused.code, refused.stderr]).toEqual([
    1,
    expect.stringContaining('etcd denies the user "shipmate-status"'),
  ]);
});

test('another cluster is closed to both, also one whose name begins alike', async () => {
  for (const cluster of ['acme-2', 'other']) {
    const elsewhere = await configOf('shipmate', PASSWORDS.SHIPMATE_ETCD_PASSWORD, cluster);
    const refused = await shipmate(elsewhere, 'status');
    expect([cluster, refused.code, refused.stderr]).toEqual([
      cluster,
      1,
      expect.stringContaining(`/shipmate/${cluster}/`),
    ]);
  }
});
