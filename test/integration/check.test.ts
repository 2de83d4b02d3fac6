import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { stringify } from 'yaml';
import { certificateFindings } from '../../src/inspect/twins.ts';
import type { About } from '../../src/inspect.ts';
import { expireCertificate, makeCertificates } from '../helpers/certificates.ts';
import { checkoutForServers } from '../helpers/checkout.ts';
import { SHIPMATE, shipmate } from '../helpers/daemon.ts';
import { type Etcd, startEtcd } from '../helpers/etcd.ts';
import { freePort } from '../helpers/ports.ts';
import { serverFolder, serverUser } from '../helpers/postgres.ts';
import { StandIn } from '../helpers/stand-in.ts';

let dir: string;
let etcd: Etcd;
let port: number;
let clusters = 0;
let cluster = '';
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'shipmate-check-'));
  etcd = await startEtcd();
  port = await freePort();
  await Promise.all(['store', 'log'].map((name) => mkdir(join(dir, name))));
  await mkdir(join(dir, 'state'), { mode: 0o700 });
  await writeFile(join(dir, 'log', 'audit-1.log'), 'one line\n');
}, 60_000);
afterAll(async () => {
  await etcd?.stop();
  await rm(dir, { recursive: true, force: true });
});
beforeEach(() => {
  cluster = `c${++clusters}`;
});

/** Everything that a daemon needs is there. */
const sound = () => ({
  node: 'db-1',
  cluster,
  stateDir: join(dir, 'state'),
  coordination: { etcd: { endpoints: etcd.endpoints } },
  stores: { main: { type: 'file', path: join(dir, 'store') } },
  streams: {
    audit: { source: { type: 'files', dir: join(dir, 'log'), shared: true }, store: 'main' },
    orders: { source: { type: 'files', dir: join(dir, 'log'), shared: true }, store: 'main' },
  },
  admin: { listen: `127.0.0.1:${port}` },
});

async function check(config: object): Promise<{ code: number; findings: About[]; wrong: string[] }> {
  const file = join(dir, `${cluster}.yaml`);
  await writeFile(file, stringify(config));
  const { code, stdout } = await shipmate(file, 'check', '--json');
  const { findings }: { findings: About[] } = JSON.parse(stdout);
  const wrong = findings
    .filter(({ level }) => level !== 'ok')
    .map(({ about, level, message, hint = 'NO HINT' }) => `${level} ${about}: ${message} | ${hint}`);
  return { code, findings, wrong };
}

const says = (...parts: string[]) => expect.stringMatching(new RegExp(parts.join('.*')));
const standIn = (node: string) => StandIn.start({ cluster, node, endpoints: etcd.endpoints });

describe('check finds nothing to mend', () => {
  test('where all is well, and says what it looked at', async () => {
    const twin = await standIn('db-2');
    await twin.keepPublishing({ role: 'starting' });
    const { code, findings, wrong } = await check(sound());
    await twin.leave();
    expect({ code, wrong }).toEqual({ code: 0, wrong: [] });
    expect([...new Set(findings.map(({ about }) => about))]).toEqual([
      'config',
      'host',
      'etcd',
      'store main',
      'stream audit',
      'stream orders',
    ]);
    expect(findings).toContainEqual({
      about: 'host',
      level: 'ok',
      message: `127.0.0.1:${port} is free for metrics and status`,
    });
  });
});

describe('check says before it happens, with what to run,', () => {
  test('that other people can read the state directory', async () => {
    await chmod(join(dir, 'state'), 0o755);
    const { code, wrong } = await check(sound());
    await chmod(join(dir, 'state'), 0o700);
    expect({ code, wrong }).toEqual({
      code: 0,
      wrong: [says('^warning host: .* mode 0755', `chmod 0700 ${dir}/state`)],
    });
  });

  test('that the daemon of this user could neither keep its state nor read the log', async () => {
    const folder = await serverFolder('shipmate-check-');
    try {
      const program = join(await checkoutForServers(folder), 'bin', 'shipmate');
      const file = join(folder, 'shipmate.yaml');
      await writeFile(file, stringify({ ...sound(), stateDir: '/proc/shipmate', coordination: 'solo' }));
      const child = spawn(program, ['check', '-c', file], {
        stdio: ['ignore', 'pipe', 'ignore'],
        cwd: '/',
        ...serverUser,
      });
      let text = '';
      child.stdout.setEncoding('utf8').on('data', (said) => (text += said));
      expect(await once(child, 'close')).toEqual([1, null]);
      expect(text).toMatch(
        /^stream audit\n +error +can't read .*log: EACCES.*\n +→ let the user who runs shipmate read/m,
      );
      expect(text).toMatch(
        /error .*stateDir \/proc\/shipmate is not there, and uid \d+ may not make it\n +→ .*install -d -m 0700/,
      );
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }, 120_000);

  test('that too few files may be open for a long backlog', async () => {
    const file = join(dir, 'few.yaml');
    await writeFile(file, stringify({ ...sound(), coordination: 'solo' }));
    const child = spawn('sh', ['-c', `ulimit -n 1024; ${SHIPMATE} check -c ${file}`], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (said) => (text += said));
    expect(await once(child, 'close')).toEqual([0, null]);
    expect(text).toMatch(/^ +warn +at most 1024 files may be open.*\n +→ raise the limit: LimitNOFILE=/m);
  });

  test('that another program has the port', async () => {
    const other: Server = createServer((socket) => socket.destroy());
    await once(other.listen(port, '127.0.0.1'), 'listening');
    const { code, wrong } = await check(sound());
    await new Promise((resolve) => other.close(resolve));
    expect({ code, wrong }).toEqual({
      code: 1,
      wrong: [says(`^error host: can't listen on 127.0.0.1:${port}`, 'choose another for admin.listen')],
    });
  });

  test('that a twin elsewhere bears this name', async () => {
    const twin = await standIn('db-1');
    const { code, wrong } = await check(sound());
    await twin.leave();
    expect({ code, wrong }).toEqual({
      code: 1,
      wrong: [says('^error etcd: a living daemon calls itself node db-1', 'give each twin a "node" of its own')],
    });
  });

  test('that a twin ships elsewhere, and that its clock differs', async () => {
    const twin = await standIn('db-2');
    await twin.keepPublishing({ config: 'another store' }, { aheadMs: -3_600_000 });
    const { code, wrong } = await check(sound());
    await twin.leave();
    expect({ code, wrong }).toEqual({
      code: 1,
      wrong: [
        says('^warning etcd: the clock of db-2 differs from this one by -3[56]\\d\\d', 'NTP'),
        says('^error etcd: the primary store of orders, .* is another in this config than on db-2', 'compare "stores"'),
      ],
    });
  });

  test('that a twin hangs', async () => {
    const twin = await standIn('db-2');
    await twin.publish({ role: 'starting' }, new Date(0));
    const { code, wrong } = await check(sound());
    await twin.leave();
    expect({ code, wrong }).toEqual({
      code: 0,
      wrong: [says('^warning etcd: the daemon of db-2 has told nothing for more than 5 s', 'look at its log on db-2')],
    });
  });

  test('that an endpoint of etcd does not answer, while another does', async () => {
    const dead = `http://127.0.0.1:${await freePort()}`;
    const { code, wrong } = await check({
      ...sound(),
      coordination: { etcd: { endpoints: [...etcd.endpoints, dead] } },
    });
    expect({ code, wrong }).toEqual({
      code: 0,
      wrong: [says(`^warning etcd: ${dead}: nothing listens there`, 'start etcd')],
    });
  });

  test('once that the store is away, whatever needs it; the sources are looked at all the same', async () => {
    const { code, findings, wrong } = await check({
      ...sound(),
      stores: { main: { type: 'file', path: join(dir, 'unmounted') } },
    });
    expect({ code, wrong }).toEqual({
      code: 1,
      wrong: [says('^error store main: .*unmounted does not exist', 'mount it again')],
    });
    for (const about of ['stream audit', 'stream orders']) {
      expect(findings).toContainEqual({ about, level: 'ok', message: '1 files, audit-1.log to audit-1.log, 9 B' });
    }
  });

  test('once that etcd is away; stores and sources are looked at all the same', async () => {
    const endpoints = [`http://127.0.0.1:${await freePort()}`];
    const { code, findings, wrong } = await check({ ...sound(), coordination: { etcd: { endpoints } } });
    expect({ code, wrong }).toEqual({ code: 1, wrong: [says("^error etcd: etcd can't be reached", 'start etcd')] });
    expect(findings.filter(({ about }) => about === 'store main').map(({ level }) => level)).toEqual(['ok']);
  });
});

describe('with certificates, check says', () => {
  let secured: Etcd;
  beforeAll(async () => {
    secured = await startEtcd({ tls: 'mutual' });
  }, 60_000);
  afterAll(() => secured?.stop());
  const using = (tls: object) => ({ ...sound(), coordination: { etcd: { endpoints: secured.endpoints, tls } } });

  test('until when they are good', async () => {
    const { code, findings, wrong } = await check(using(secured.tls!));
    expect(code).toBe(0);
    expect(wrong).toEqual(
      ['ca', 'cert'].map((which) => says(`^warning etcd: the certificate tls.${which} expires in 1 days`, 'renew it')),
    );
    expect(findings).toContainEqual({ about: 'etcd', level: 'ok', message: 'answers; daemons alive: none' });
  });

  test('that one has expired, and that etcd does not take it', async () => {
    await mkdir(join(dir, 'expired'));
    const { cert, key } = makeCertificates(join(dir, 'expired'));
    expireCertificate(join(dir, 'expired'));
    const { code, wrong } = await check(using({ ...secured.tls!, cert, key }));
    expect(code).toBe(1);
    expect(wrong).toContainEqual(
      says("^error etcd: etcd can't be reached", "refuses this node's certificate", 'tls.cert'),
    );
    expect(wrong).toContainEqual(says('^error etcd: the certificate tls.cert expired on', 'renew it'));
  });

  test('that the authority is another one', async () => {
    await mkdir(join(dir, 'other'));
    const { ca } = makeCertificates(join(dir, 'other'), { days: 90 });
    const { code, wrong } = await check(using({ ...secured.tls!, ca }));
    expect(code).toBe(1);
    expect(wrong).toContainEqual(says('^error etcd: .*not signed by an authority that this node trusts', 'tls.ca'));
  });

  test('that a file of theirs is not there; all else is looked at nevertheless', async () => {
    const { code, findings, wrong } = await check(using({ ...secured.tls!, cert: '/nowhere/cert.pem' }));
    expect({ code, wrong }).toEqual({
      code: 1,
      wrong: expect.arrayContaining([says('^error etcd: .*/nowhere/cert.pem')]),
    });
    expect(findings.filter(({ about }) => about === 'store main').map(({ level }) => level)).toEqual(['ok']);
  });
});

test('a store that is full is an error, with its cause', async () => {
  const file = join(dir, 'full.yaml');
  await writeFile(file, stringify({ ...sound(), coordination: 'solo' }));
  // In a mount namespace of its own: a file system of one page, which is full.
  const full = `mount -t tmpfs -o size=4k none ${join(dir, 'store')} && { dd if=/dev/zero of=${join(dir, 'store')}/ballast bs=4k count=1 2>/dev/null; ${SHIPMATE} check -c ${file}; }`;
  const unshare = [
    'unshare',
    ...(process.getuid?.() === 0 ? [] : ['--user', '--map-root-user']),
    '--mount',
    'sh',
    '-c',
    full,
  ];
  const child = spawn(unshare[0]!, unshare.slice(1), { stdio: ['ignore', 'pipe', 'ignore'] });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (said) => (text += said));
  expect(await once(child, 'close')).toEqual([1, null]);
  expect(text).toMatch(/^store main\n +error +.*(no space|full|ENOSPC).*\n +→ ./im);
}, 60_000);

test('certificates: expired, or soon', () => {
  const nowMs = Date.parse('2026-11-22T00:00:00Z');
  const days = (count: number) => nowMs + count * 86_400_000;
  const found = certificateFindings(
    new Map([
      ['ca', days(900)],
      ['cert', days(5)],
      ['key', days(-1)],
    ]),
    nowMs,
  );
  expect(found.map(({ level, message }) => `${level}: ${message}`)).toEqual([
    'ok: the certificate tls.ca is good until 2029-05-10',
    'warning: the certificate tls.cert expires in 5 days, on 2026-11-27',
    'error: the certificate tls.key expired on 2026-11-21',
  ]);
  for (const { level, hint } of found) if (level !== 'ok') expect(hint).toContain('renew it');
});
