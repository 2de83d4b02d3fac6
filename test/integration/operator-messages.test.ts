import { randomBytes } from 'node:crypto';
import { appendFile, chmod, chown, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { stringify } from 'yaml';
import { expireCertificate, makeCertificates } from '../helpers/certificates.ts';
import { type Etcd, startEtcd } from '../helpers/etcd.ts';
import { Supervisor } from '../helpers/supervisor.ts';
import { UnitFile } from '../helpers/unit-file.ts';
import { until } from '../helpers/wait.ts';

jest.setTimeout(300_000);

/** What an operator reads in the journal and in `systemctl status` when something is wrong around the daemon. */
let dir: string;
const started: Supervisor[] = [];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'shipmate-messages-'));
});
afterAll(async () => {
  await Promise.all(started.map((each) => each.close()));
  await rm(dir, { recursive: true, force: true });
});

interface Run {
  readonly name: string;
  readonly config?: object;
  /** Put up in a disk of its own, in place of one of its directories: `store` or `state`. */
  readonly disk?: { readonly at: string; readonly options: string };
}

/** A daemon by its unit, with a file `log/audit-1` to ship. */
async function run({ name, config = {}, disk }: Run) {
  const at = (part: string) => join(dir, name, part);
  await Promise.all(['log', 'store', 'state'].map((part) => mkdir(at(part), { recursive: true, mode: 0o700 })));
  await writeFile(join(at('log'), 'audit-1'), 'first\n');
  const file = {
    ...{ node: name, cluster: 'acme', stateDir: at('state'), coordination: 'solo' },
    stores: { main: { type: 'file', path: at('store') } },
    streams: { audit: { source: { type: 'files', dir: at('log') }, store: 'main', chunk: { maxDelay: '20ms' } } },
    ...config,
  };
  await writeFile(join(dir, `${name}.yaml`), stringify(file));
  const supervisor = await Supervisor.of({
    unit: new UnitFile('shipmate@.service', ['[Service]\nRestartSec=100ms\n']),
    instance: name,
    dir,
    ...(disk && { disk: { ...disk, at: at(disk.at) } }),
  });
  started.push(supervisor);
  supervisor.start();
  return { supervisor, at };
}

test('a log directory that can not be read', async () => {
  const closed = join(dir, 'mysql');
  await mkdir(closed, { mode: 0o700 });
  if (process.getuid?.() === 0) await chown(closed, 1, 1);
  else await chmod(closed, 0o000);
  const { supervisor } = await run({
    name: 'unreadable',
    config: { streams: { orders: { source: { type: 'mariadb', dir: closed }, store: 'main' } } },
  });
  await supervisor.ready(); // it goes on trying
  const { priority, text } = await supervisor.logs(/EACCES/);
  expect(priority).toBe(4);
  expect(text).toMatch(
    /^orders: archive: can't read .*mysql.*: EACCES: permission denied, .* code=SOURCE_UNREADABLE hint="run shipmate as the database's user, or add its user to the group that may read the directory and its files"/,
  );
  await supervisor.status(/^orders: starting: archive: can't read .*mysql.*EACCES/);
  await chmod(closed, 0o755);
});

describe('a disk that is full', () => {
  test('under a store: shipping goes on by itself once there is room', async () => {
    const { supervisor, at } = await run({ name: 'full-store', disk: { at: 'store', options: 'size=1m,mode=700' } });
    await supervisor.status(/^audit: master of term 1$/);
    const filler = supervisor.path(join(at('store'), '.filler'));
    await writeFile(filler, Buffer.alloc(1 << 20)).catch(() => {}); // as much as there is room
    await appendFile(join(at('log'), 'audit-1'), `${randomBytes(300_000).toString('base64')}\n`);
    const { priority, text } = await supervisor.logs(/ENOSPC/);
    expect(priority).toBe(4);
    expect(text).toMatch(
      /^audit: store: store main: can't .*: ENOSPC: no space left on device, .* code=STORE_FULL hint="make room in the file system, or raise the quota; shipping goes on by itself"/,
    );
    await supervisor.status(/^audit: master of term 1.*: store: store main: .*ENOSPC/);
    await rm(filler);
    await supervisor.logs(/^audit: store: works again/);
    await supervisor.status(/^audit: master of term 1$/);
  });

  test('under the state directory', async () => {
    const { supervisor, at } = await run({
      name: 'full-state',
      disk: { at: 'state', options: 'size=4k,nr_inodes=1,mode=700' },
    });
    const { priority, text } = await supervisor.logs(/ENOSPC/);
    expect(text).toContain(`the state directory can't be used: ${at('state')}`);
    expect(text).toContain('ENOSPC: no space left on device');
    expect(priority).toBe(4);
    expect(text).toContain(
      'hint="the daemon needs \\"stateDir\\" on a local disk with room left, owned by its user, mode 0700"',
    );
  });
});

describe("etcd's certificate", () => {
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await startEtcd({ tls: 'mutual' });
  });
  afterAll(() => etcd?.stop());

  const withTls = (name: string, tls: object) =>
    run({ name, config: { coordination: { etcd: { endpoints: etcd.endpoints, ttl: '2s', tls } } } });

  test('of another authority', async () => {
    const strangers = join(dir, 'strangers');
    await mkdir(strangers);
    const { supervisor } = await withTls('wrong-ca', { ...etcd.tls!, ca: makeCertificates(strangers).ca });
    await supervisor.ready();
    const { priority, text } = await supervisor.logs(/not signed/);
    expect(priority).toBe(4);
    expect(text).toBe(
      `etcd can't be reached at ${etcd.endpoints[0]} (its certificate is not signed by an authority that this node trusts) ` +
        'code=ETCD_UNREACHABLE hint="set etcd\'s \\"tls.ca\\" to the authority that signed it"',
    );
    await supervisor.status(/^audit: starting: .*not signed by an authority that this node trusts/);
  });

  test('that is not there: the daemon ends, and is started again', async () => {
    const { supervisor } = await withTls('no-file', { ...etcd.tls!, cert: '/nowhere/cert.pem' });
    const said = async (pattern: RegExp) => (await supervisor.logs(pattern)).text;
    expect(await said(/^error: /)).toBe(
      "error: the certificates for etcd can't be used: tls.cert: ENOENT: no such file or directory, open '/nowhere/cert.pem'",
    );
    expect(await said(/^hint: /)).toBe(
      'hint: each is a file in PEM format that this user can read; "tls.cert" and "tls.key" go together',
    );
    expect(supervisor.journal.find(({ text }) => text.startsWith('error: '))?.priority).toBe(3);
    await until('it was started again', () => supervisor.ended.length > 1, { withinMs: 120_000 });
    expect(supervisor.ended[0]).toEqual({ result: 'exit-code', code: 1 });
  });

  test('that has expired', async () => {
    expireCertificate(dirname(etcd.tls!.cert));
    const { ca } = etcd.tls!;
    const { supervisor } = await withTls('expired', { ca });
    const { text } = await supervisor.logs(/has expired/);
    expect(text).toBe(
      `etcd can't be reached at ${etcd.endpoints[0]} (its certificate has expired) code=ETCD_UNREACHABLE hint="renew etcd's certificate"`,
    );
    await supervisor.status(/^audit: starting: .*certificate has expired/);
  });
});

test('a file of a password that comes late: the daemon is started again, and finds it', async () => {
  const passwordFile = join(dir, 'late-password');
  const etcd = { endpoints: ['http://127.0.0.1:1'], username: 'shipmate', passwordFile };
  const { supervisor } = await run({ name: 'late', config: { coordination: { etcd } } });
  await supervisor.logs(/^error: password file .*late-password can't be read: ENOENT/);
  await until('it was started again', () => supervisor.ended.length > 1, { withinMs: 120_000 });
  expect(supervisor.ended[0]).toEqual({ result: 'exit-code', code: 1 });
  await writeFile(passwordFile, 'secret\n');
  await supervisor.ready();
});

test('a config that is wrong from the start: the daemon ends, and is not started again', async () => {
  const { supervisor } = await run({ name: 'wrong', config: { stoers: {} } });
  await supervisor.logs(/^hint: did you mean "stores"\?$/);
  await until('it has ended', () => supervisor.ended.length > 0);
  await supervisor.stop(); // there is nothing that would start it again
  expect(supervisor.ended).toEqual([{ result: 'exit-code', code: 2 }]);
});
