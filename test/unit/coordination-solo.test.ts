import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chown, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { Coordination } from '../../src/coordination/coordination.ts';
import { openSolo } from '../../src/coordination/solo.ts';
import { cursorAt, twinOf } from '../contract/coordination.contract.ts';
import { until } from '../helpers/wait.ts';

const never = new AbortController().signal;
const HANDOVER = { kind: 'handover', by: 'dba', time: 't' } as const;

let dir: string;
let stateDir: string;
let opened: Coordination[];
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'shipmate-solo-'));
  stateDir = join(dir, 'state');
  opened = [];
});
afterEach(async () => {
  for (const coordination of opened) await coordination.close();
  await rm(dir, { recursive: true });
});

async function open(node = 'a'): Promise<Coordination> {
  const coordination = await openSolo({ node, stateDir });
  opened.push(coordination);
  return coordination;
}

const file = (name: string) => join(stateDir, 'solo', `${name}.json`);

/** Another process: `body` has its `coordination`. */
function script(body: string): string[] {
  const module = new URL('../../src/coordination/solo.ts', import.meta.url).href;
  const source = `
    import { openSolo } from '${module}';
    const coordination = await openSolo({ node: 'a', stateDir: '${stateDir}' });
    ${body}`;
  return ['--input-type=module', '-e', source];
}

describe('one daemon to a state directory', () => {
  test('another process that would be it too is told whom to end', async () => {
    const daemon = await open();
    await daemon.twins.publish(twinOf('a'));
    const campaign = 'await coordination.elector("orders").campaign(new AbortController().signal)';
    const body = `try { ${campaign} } catch ({ code, verdict, hint }) { console.log(JSON.stringify({ code, verdict, hint })) }`;
    const { stdout } = await promisify(execFile)(process.execPath, script(body));
    expect(JSON.parse(stdout)).toMatchObject({
      code: 'STATE_DIR_IN_USE',
      verdict: 'fatal',
      hint: expect.stringContaining(`end process ${process.pid} first`),
    });
    await daemon.close();
    await (await open()).twins.publish(twinOf('a'));
  });

  test('of several that start at once one wins', async () => {
    await writeLock({ node: 'a', pid: await deadPid(), life: 'long ago' });
    const daemons = await Promise.all(Array.from({ length: 8 }, () => open()));
    const published = await Promise.allSettled(daemons.map((daemon) => daemon.twins.publish(twinOf('a'))));
    expect(published.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    expect((await readdir(join(stateDir, 'solo'))).filter((name) => name.startsWith('daemon'))).toEqual([
      'daemon.json',
    ]);
  });

  test('the file of a dead daemon, or of one whose number another process has now, is no obstacle', async () => {
    await writeLock({ node: 'a', pid: await deadPid(), life: '' });
    const first = await open();
    await first.twins.publish(twinOf('a'));
    await first.close();
    await writeLock({ node: 'a', pid: process.ppid, life: 'another boot/1' });
    await (await open()).twins.publish(twinOf('a'));
  });

  test('what a killed daemon leaves names no master and no twin', async () => {
    const body = `
      await coordination.elector('orders').campaign(new AbortController().signal);
      await coordination.twins.publish(${JSON.stringify(twinOf('a', 'master'))});
      console.log('ready');
      setInterval(() => {}, 1000);`;
    const daemon = spawn(process.execPath, script(body), { stdio: ['ignore', 'pipe', 'inherit'] });
    const gone = once(daemon, 'exit');
    try {
      await once(daemon.stdout, 'data');
      const visitor = await open();
      expect(await visitor.overview()).toMatchObject({
        streams: [{ name: 'orders', master: 'a' }],
        twins: [{ node: 'a' }],
      });
      daemon.kill('SIGKILL');
      await gone;
      expect(await visitor.overview()).toEqual({
        streams: [{ name: 'orders', master: null, cursor: null }],
        twins: [],
      });
      await visitor.twins.publish(twinOf('a'));
      expect((await visitor.overview()).streams).toMatchObject([{ master: null }]);
    } finally {
      daemon.kill('SIGKILL');
      await gone;
    }
  });

  async function writeLock(lock: object): Promise<void> {
    await (await open()).archives.confirm('any', 'any'); // makes the folder
    await writeFile(file('daemon'), JSON.stringify(lock));
  }

  async function deadPid(): Promise<number> {
    const child = spawn('true');
    await once(child, 'exit');
    return child.pid!;
  }
});

describe('files', () => {
  test('are for their owner alone, and no temporary one stays', async () => {
    const daemon = await open();
    const leadership = await daemon.elector('orders').campaign(never);
    await Promise.all([1, 2, 3].map((slot) => daemon.cursors.save(cursorAt(slot), leadership)));
    expect((await stat(stateDir)).mode & 0o777).toBe(0o700);
    expect((await stat(file('cursors/orders'))).mode & 0o777).toBe(0o600);
    expect(await readdir(join(stateDir, 'solo', 'cursors'))).toEqual(['orders.json']);
  });

  // Nobody else can give files away.
  const testAsRoot = process.getuid?.() === 0 ? test : () => {};
  testAsRoot('belong to the owner of the state directory when root writes them', async () => {
    const NOBODY = 65_534;
    await (await open()).archives.confirm('orders', 'archive-1');
    await chown(stateDir, NOBODY, NOBODY);
    expect(await (await open()).requests.ask('orders', HANDOVER, 1)).toBeNull();
    expect(await (await open()).archives.propose('billing', 'archive-2')).toMatchObject({ id: 'archive-2' });
    for (const name of ['requests', 'requests/orders', 'archives/billing.json']) {
      expect(await stat(join(stateDir, 'solo', name))).toMatchObject({ uid: NOBODY, gid: NOBODY });
    }
  });

  test('that are torn: a cursor counts for none, an archive id is an error', async () => {
    const daemon = await open();
    const leadership = await daemon.elector('orders').campaign(never);
    await daemon.cursors.save(cursorAt(1), leadership);
    await daemon.archives.confirm('orders', 'archive-1');
    for (const name of ['cursors/orders', 'archives/orders']) {
      await writeFile(file(name), (await readFile(file(name))).subarray(0, 10));
    }
    expect(await daemon.cursors.load('orders')).toBeNull();
    expect((await daemon.overview()).streams).toMatchObject([{ name: 'orders', cursor: null }]);
    await expect(daemon.archives.load('orders')).rejects.toMatchObject({ code: 'BAD_ARCHIVE_MEMORY' });
    await expect(daemon.archives.propose('orders', 'other')).rejects.toMatchObject({ code: 'BAD_ARCHIVE_MEMORY' });
  });

  test('in a state directory that is none: an error that names it', async () => {
    await writeFile(stateDir, 'a file');
    const daemon = await open();
    await expect(daemon.twins.publish(twinOf('a'))).rejects.toMatchObject({
      code: 'BAD_STATE_DIR',
      message: expect.stringContaining(stateDir),
    });
  });
});

test('a request whose asker was killed is void after its time, and taken away', async () => {
  const ask = `coordination.requests.ask('orders', ${JSON.stringify(HANDOVER)}, 600_000);`;
  const asker = spawn(process.execPath, script(ask), { stdio: 'inherit' });
  const gone = once(asker, 'exit');
  const requests = join(stateDir, 'solo/requests/orders');
  const placed = async () => (await readdir(requests)).find((entry) => entry.endsWith('.json'));
  const path = join(requests, await until('the request is there', placed));
  asker.kill('SIGKILL');
  await gone;
  await writeFile(path, JSON.stringify({ ...JSON.parse(await readFile(path, 'utf8')), expiresMs: Date.now() - 1 }));

  const daemon = await open();
  const stop = new AbortController();
  const watching = (async () => {
    for await (const { key } of daemon.requests.watch('orders', stop.signal)) throw new Error(`${key} was given`);
  })();
  await until('it is gone', async () => (await readdir(requests)).length === 0);
  stop.abort();
  await watching;
});
