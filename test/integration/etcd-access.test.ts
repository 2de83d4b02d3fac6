import { execFile } from 'node:child_process';
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { Coordination } from '../../src/coordination/coordination.ts';
import { type EtcdOptions, openEtcd } from '../../src/coordination/etcd.ts';
import { ShipmateError } from '../../src/errors.ts';
import { cursorAt } from '../contract/coordination.contract.ts';
import { makeCertificates } from '../helpers/certificates.ts';
import { type Etcd, startEtcd } from '../helpers/etcd.ts';
import { withinLimit } from '../helpers/measured.ts';
import { recordedLog } from '../helpers/recorded-log.ts';
import { until } from '../helpers/wait.ts';

const never = new AbortController().signal;

let opened: Coordination[];
let log: ReturnType<typeof recordedLog>;
beforeEach(() => {
  opened = [];
  log = recordedLog();
});
afterEach(() => Promise.all(opened.map((coordination) => coordination.close())));

type Means = Pick<EtcdOptions, 'endpoints'> & Partial<EtcdOptions>;

async function open(means: Means): Promise<Coordination> {
  const options = { cluster: 'acme', node: 'a', ttlMs: 10_000, onEtcdLoss: 'continue', log, ...means } as const;
  const coordination = await openEtcd(options);
  opened.push(coordination);
  return coordination;
}

/** What an operator is told when these means do not do. */
async function refusal(means: Means): Promise<ShipmateError> {
  const coordination = await open(means);
  const error = await coordination.overview().catch((caught: unknown) => caught);
  if (!(error instanceof ShipmateError)) throw new Error(`no refusal: ${JSON.stringify(error)}`);
  expect(error.verdict).toBe('retry');
  return error;
}

describe('TLS', () => {
  let etcd: Etcd;
  let dir: string;
  beforeAll(async () => {
    etcd = await startEtcd({ tls: 'mutual' });
    dir = await mkdtemp(join(tmpdir(), 'shipmate-tls-'));
  });
  afterAll(async () => {
    await etcd?.stop();
    await rm(dir, { recursive: true, force: true });
  });

  test('with both certificates all works', async () => {
    const a = await open({ endpoints: etcd.endpoints, tls: etcd.tls! });
    const leadership = await a.elector('orders').campaign(never);
    await a.cursors.save(cursorAt(1), leadership);
    expect(await a.cursors.load('orders')).toEqual(cursorAt(1));
  });

  test('an unknown authority, no certificate, no TLS: each is named, with what to do', async () => {
    const { ca, cert, key } = etcd.tls!;
    const { endpoints } = etcd;
    const code = 'ETCD_UNREACHABLE';
    expect(await refusal({ endpoints })).toMatchObject({
      code,
      message: expect.stringContaining('its certificate is not signed by an authority that this node trusts'),
      hint: expect.stringContaining('"tls.ca"'),
    });
    expect(await refusal({ endpoints, tls: { ca } })).toMatchObject({
      code,
      message: expect.stringContaining("it refuses this node's certificate"),
      hint: expect.stringContaining('"tls.cert" and "tls.key"'),
    });
    const elsewhere = endpoints.map((endpoint) => endpoint.replace('127.0.0.1', 'localhost.localdomain'));
    expect((await refusal({ endpoints: elsewhere, tls: { ca, cert, key } })).code).toBe(code);
    const plain = endpoints.map((endpoint) => endpoint.replace('https:', 'http:'));
    expect(await refusal({ endpoints: plain })).toMatchObject({ code, hint: expect.stringContaining('https://') });
  });

  test('https where etcd speaks none is named', async () => {
    const other = await startEtcd();
    try {
      const endpoints = other.endpoints.map((endpoint) => endpoint.replace('http:', 'https:'));
      expect(await refusal({ endpoints })).toMatchObject({
        message: expect.stringContaining('it does not answer in TLS'),
        hint: expect.stringContaining('http://'),
      });
    } finally {
      await other.stop();
    }
  });

  test('files that are missing or hold something else are refused at once', async () => {
    const { endpoints } = etcd;
    const missing = join(dir, 'missing.pem');
    await expect(open({ endpoints, tls: { ca: missing } })).rejects.toMatchObject({
      code: 'ETCD_TLS_FILES',
      verdict: 'fatal',
      message: expect.stringContaining(missing),
    });
    const nonsense = join(dir, 'nonsense.pem');
    await writeFile(nonsense, 'nonsense');
    const tls = { ...etcd.tls!, cert: nonsense };
    await expect(open({ endpoints, tls })).rejects.toMatchObject({ code: 'ETCD_TLS_FILES' });
  });

  test('renewed certificates are taken up without a restart', async () => {
    const stale = makeCertificates(dir);
    const a = await open({ endpoints: etcd.endpoints, tls: stale });
    await expect(a.overview()).rejects.toMatchObject({ code: 'ETCD_UNREACHABLE' });
    const { ca, cert, key } = etcd.tls!;
    await Promise.all([copyFile(ca, stale.ca), copyFile(cert, stale.cert), copyFile(key, stale.key)]);
    await until('etcd is reached', () => a.overview());
    expect(log.lines.map(({ message }) => message)).toContain("etcd's certificates were renewed");
  });
});

describe('passwords', () => {
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await startEtcd({ auth: true });
    await etcd.ctl('user', 'add', 'nobody:nobody-password');
  });
  afterAll(() => etcd?.stop());

  test('a wrong one, none, and a user without rights: each is named, and none is told', async () => {
    const { endpoints, login } = etcd;
    const wrong = await refusal({ endpoints, username: login!.username, password: 'not-the-password' });
    expect(wrong).toMatchObject({ code: 'ETCD_LOGIN_REFUSED', message: expect.stringContaining('"shipmate"') });
    expect(`${wrong.message} ${wrong.hint} ${JSON.stringify(log.lines)}`).not.toContain('not-the-password');
    expect(await refusal({ endpoints })).toMatchObject({
      code: 'ETCD_LOGIN_REFUSED',
      message: 'etcd demands a user and a password',
    });
    expect(await refusal({ endpoints, username: 'nobody', password: 'nobody-password' })).toMatchObject({
      code: 'ETCD_DENIED',
      hint: expect.stringContaining('/shipmate/acme/'),
    });
  });

  test('the leader leads on when etcd forgets every token, and when users are changed', async () => {
    const { endpoints, login } = etcd;
    const a = await open({ endpoints, ...login! });
    const b = await open({ endpoints, ...login!, node: 'b' });
    const leadership = await a.elector('orders').campaign(never);
    await a.cursors.save(cursorAt(1), leadership);
    const seen: number[] = [];
    const stop = new AbortController();
    const watching = (async () => {
      for await (const { slot } of b.cursors.watch('orders', stop.signal)) seen.push(slot);
    })();

    await etcd.nodes[0]!.restart();
    await until('a saves again', () => a.cursors.save(cursorAt(2), leadership).then(() => true));
    await until('b sees it', () => seen.at(-1) === 2);
    await etcd.ctl('user', 'add', 'another:password');
    await until('a saves still', () => a.cursors.save(cursorAt(3), leadership).then(() => true));
    await until('b sees it', () => seen.at(-1) === 3);
    expect(leadership.signal.aborted).toBe(false);
    expect(leadership.confirmed()).toBe(true);
    const next = b.elector('orders').campaign(never);
    await leadership.resign();
    expect((await next).confirmed()).toBe(true);
    stop.abort();
    await watching;
  });

  test('a token that etcd does not know is replaced', async () => {
    const { endpoints, login } = etcd;
    const a = await open({ endpoints, ...login! });
    await a.overview();
    await etcd.nodes[0]!.restart({ wipe: true });
    await etcd.demandPasswords();
    // The token is of a later state than the new etcd's: it holds the call, and refuses it once it has got there.
    await expect(a.overview()).rejects.toMatchObject({ code: 'ETCD_UNREACHABLE' });
    const restartedMs = performance.now();
    await until('etcd is reached', () => a.overview());
    withinLimit('until a token of a later state is replaced', performance.now() - restartedMs, 4_000);

    const b = await open({ endpoints, ...login! });
    await b.overview();
    await etcd.nodes[0]!.restart({ wipe: true });
    await etcd.demandPasswords();
    for (let n = 0; n < 10; n++) await etcd.ctl('put', '/shipmate/any', 'thing');
    const beganMs = performance.now();
    await b.overview();
    withinLimit('the first call with a token of an older state', performance.now() - beganMs, 1_500);
  });

  test('given where etcd wants none, they do no harm', async () => {
    const other = await startEtcd();
    try {
      const a = await open({ endpoints: other.endpoints, ...etcd.login! });
      expect((await a.elector('orders').campaign(never)).confirmed()).toBe(true);
      await a.close();
    } finally {
      await other.stop();
    }
  });
});

describe('a process that closed its coordination', () => {
  test.each(['gone', 'frozen'] as const)('ends by itself, with etcd %s', async (how) => {
    const etcd = await startEtcd();
    try {
      if (how === 'gone') await etcd.nodes[0]!.stop();
      else etcd.nodes[0]!.freeze();
      const script = `
        import { openEtcd } from '${new URL('../../src/coordination/etcd.ts', import.meta.url).href}';
        const log = { debug() {}, info() {}, warn() {}, error() {} };
        const options = { cluster: 'acme', node: 'a', endpoints: ['${etcd.endpoints[0]}'], ttlMs: 1000 };
        const coordination = await openEtcd({ ...options, onEtcdLoss: 'continue', log });
        coordination.elector('orders').campaign(new AbortController().signal).catch(() => {});
        const error = await coordination.overview().catch((caught) => caught);
        await coordination.close();
        const closedMs = performance.now();
        process.on('exit', () => console.log(JSON.stringify({ code: error.code, ms: performance.now() - closedMs })));
      `;
      const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script]);
      const { code, ms } = JSON.parse(stdout);
      expect(code).toBe('ETCD_UNREACHABLE');
      withinLimit('from the close to the end of the process', ms, 1_500);
    } finally {
      await etcd.stop();
    }
  });
});
