import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { stringify } from 'yaml';
import type { Answer, TwinStream } from '../../src/coordination/coordination.ts';
import { SHIPMATE, shipmate } from '../helpers/daemon.ts';
import { type Etcd, startEtcd } from '../helpers/etcd.ts';
import { withinLimit } from '../helpers/measured.ts';
import { freePort } from '../helpers/ports.ts';
import { StandIn } from '../helpers/stand-in.ts';
import { until } from '../helpers/wait.ts';

let dir: string;
let etcd: Etcd;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'shipmate-cli-'));
  etcd = await startEtcd();
});
afterAll(async () => {
  await etcd?.stop();
  await rm(dir, { recursive: true, force: true });
});

let cluster = '';
let clusters = 0;
const daemons: StandIn[] = [];
beforeEach(() => {
  cluster = `c${++clusters}`;
});
afterEach(async () => {
  await Promise.all(daemons.splice(0).map((daemon) => daemon.leave()));
});

async function standIn(node: string, state?: Partial<TwinStream>, answer?: Answer): Promise<StandIn> {
  const daemon = await StandIn.start({ cluster, node, endpoints: etcd.endpoints }, state, answer);
  daemons.push(daemon);
  return daemon;
}

async function configFile(coordination: unknown = { etcd: { endpoints: etcd.endpoints } }): Promise<string> {
  const file = join(dir, `${cluster}.yaml`);
  const config = {
    cluster,
    node: 'db-9',
    stateDir: join(dir, 'state'),
    coordination,
    stores: { main: { type: 'file', path: '/nowhere' } },
    streams: { orders: { source: { type: 'mariadb', dir: '/nowhere' }, store: 'main' } },
  };
  await writeFile(file, stringify(config));
  return file;
}

describe('status', () => {
  test('tells who leads and who could, as JSON and as a table', async () => {
    await (await standIn('db-1')).lead();
    await standIn('db-2', { ready: false, reason: 'gap: purged', lagBytes: 4096, lagSeconds: 3 });
    const config = await configFile();
    const json = await shipmate(config, 'status', '--json');
    expect(json).toMatchObject({ code: 0, stderr: '' });
    expect(JSON.parse(json.stdout)).toEqual({
      cluster,
      streams: [
        {
          name: 'orders',
          master: 'db-1',
          term: 3,
          slot: 7,
          cursor: { id: '0-1-52', segment: 'binlog.000003', offset: 4711, time: expect.any(String) },
          lagBytes: 4096,
          lagSeconds: 3,
          twins: [
            { node: 'db-1', role: 'master', ready: true, reason: 'master', lagBytes: 0 },
            { node: 'db-2', role: 'standby', ready: false, reason: 'gap: purged', lagBytes: 4096 },
          ],
          stores: [{ name: 'main', lagBytes: 4096, lagSeconds: 3 }],
        },
      ],
    });
    const table = await shipmate(config, 'status');
    expect(table.stdout).toMatch(/^orders +db-1 +3 +7 +4\.0 KiB, 3\.0 s +0-1-52 at binlog\.000003:4711$/m);
    expect(table.stdout).toMatch(/^orders +db-2 +standby +no +4\.0 KiB +gap: purged$/m);
  });

  test('--watch shows what changes while it looks', async () => {
    const daemon = await standIn('db-1');
    const args = ['status', '--watch', '--json', '-c', await configFile()];
    const child = spawn(SHIPMATE, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      const roles = new Set<string>();
      createInterface({ input: child.stdout }).on('line', (line) => {
        for (const twin of JSON.parse(line).streams[0].twins) roles.add(twin.role);
      });
      await until('the standby is shown', () => roles.has('standby'));
      await daemon.lead();
      await until('the master is shown', () => roles.has('master'));
    } finally {
      await interrupt(child);
    }
  });

  test('without etcd, reads the local state', async () => {
    await mkdir(join(dir, 'state'), { recursive: true });
    const { code, stdout } = await shipmate(await configFile('solo'), 'status', '--json');
    expect(code).toBe(0);
    expect(JSON.parse(stdout).streams).toMatchObject([{ name: 'orders', master: null, twins: [] }]);
  });

  test('says so when etcd does not answer', async () => {
    const endpoints = [`http://127.0.0.1:${await freePort()}`];
    const { code, stdout, stderr, tookMs } = await shipmate(await configFile({ etcd: { endpoints } }), 'status');
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(/^error: .*etcd.*\nhint: .*\n$/);
    withinLimit('until status says that etcd does not answer', tookMs, 15_000);
  });
});

async function interrupt(child: ChildProcess): Promise<void> {
  child.kill('SIGINT');
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}

describe('handover', () => {
  test('tells what the master answers when it refuses', async () => {
    const master = await standIn('db-1', {}, { ok: false, message: 'db-2 fell behind' });
    await master.lead();
    await standIn('db-2');
    const { code, stderr } = await shipmate(await configFile(), 'handover', 'orders', '--to', 'db-2');
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error: db-1 refused to hand over stream orders: db-2 fell behind\nhint: .*\n$/);
    expect(master.asked).toMatchObject([{ kind: 'handover', to: 'db-2', by: expect.stringContaining('@') }]);
  });

  test('knows streams by their names', async () => {
    const { code, stderr } = await shipmate(await configFile(), 'handover', 'order');
    expect(code).toBe(2);
    expect(stderr).toBe(
      'error: neither the config nor any twin knows a stream "order"\nhint: did you mean "orders"?\n',
    );
  });
});

/** Runs a command on a terminal of its own, and types the answer when it asks. */
async function onTerminal(
  command: string,
  { question, typed }: { question: string; typed: string },
): Promise<{ code: number; text: string }> {
  const child = spawn('script', ['-qec', `${SHIPMATE} ${command}`, '/dev/null'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (said: string) => {
    const asks = !text.includes(question);
    text += said;
    if (asks && text.includes(question)) child.stdin.write(typed);
  });
  const [code] = await once(child, 'close');
  return { code, text };
}

describe('accept-gap', () => {
  const gap: Partial<TwinStream> = { ready: false, reason: 'gap: purged' };

  test('says what it will do, and carries the head that the operator saw to the daemons', async () => {
    const old = await standIn('db-1');
    await old.lead();
    await old.leave();
    const twin = await standIn('db-2', gap, { ok: true, message: 'term 4 is open' });
    const { code, stdout, stderr } = await shipmate(await configFile(), 'accept-gap', 'orders', '--yes');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toContain('ends in term 3, slot 7, at 0-1-52 (binlog.000003:4711)');
    expect(stdout).toContain('db-2: gap: purged');
    expect(stdout).toMatch(/term 4 is open\n$/);
    expect(twin.asked).toMatchObject([{ kind: 'accept-gap', head: 'd'.repeat(64) }]);
  });

  test.each<[string, string, number, number]>([
    ['a yes', 'y\n', 0, 1],
    ['a no', 'n\n', 1, 0],
    ['an empty answer', '\n', 1, 0],
    ['Ctrl-D', '\x04', 1, 0],
    ['Ctrl-C', '\x03', 1, 0],
  ])('on a terminal asks first: %s', async (_, typed, code, asked) => {
    const twin = await standIn('db-2', gap, { ok: true, message: 'term 4 is open' });
    const said = await onTerminal(`accept-gap orders -c ${await configFile()}`, { question: '[y/N]', typed });
    expect(said.text).toContain('db-2: gap: purged');
    expect(said.code).toBe(code);
    expect(twin.asked).toHaveLength(asked);
  });

  test('does nothing where no twin reports a gap', async () => {
    const twin = await standIn('db-2', {}, { ok: true, message: 'done' });
    const { code, stderr } = await shipmate(await configFile(), 'accept-gap', 'orders', '--yes');
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error: no twin of stream orders reports a gap\nhint: .*\n$/);
    expect(twin.asked).toEqual([]);
  });
});
