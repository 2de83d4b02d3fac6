import { mkdir, mkdtemp, readdir, readFile, readlink, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { ChainReader } from '../helpers/archive.ts';
import { type Daemon, prepareDaemon, shipmate } from '../helpers/daemon.ts';
import { type Etcd, startEtcd } from '../helpers/etcd.ts';
import { LogFiles } from '../helpers/log-files.ts';
import { Redis } from '../helpers/redis.ts';
import { STREAM, Twins } from '../helpers/twins.ts';
import { until } from '../helpers/wait.ts';

/** What a Redis holds that starts on restored files. */
async function digestOf(restored: string): Promise<string> {
  const redis = await Redis.start({ on: restored });
  try {
    return await redis.digest();
  } finally {
    await redis.stop();
  }
}

/** Whether a daemon has a file of this name open, be it removed by now. */
async function holds({ pid }: Daemon, name: string): Promise<boolean> {
  const descriptors = join('/proc', String(pid), 'fd');
  const targets = (await readdir(descriptors)).map((each) => readlink(join(descriptors, each)).catch(() => ''));
  return (await Promise.all(targets)).some((target) => target.includes(`/${name}`));
}

describe('two daemons on the append-only files of a real Redis', () => {
  let redis: Redis;
  let etcd: Etcd;
  let twins: Twins;
  let dir: string;

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'shipmate-files-'));
    const storePath = join(dir, 'store');
    await mkdir(storePath);
    [redis, etcd] = await Promise.all([Redis.start(), startEtcd()]);
    const source = { type: 'files', dir: redis.aofDir, layout: 'redis-aof', shared: true };
    const common = { endpoints: etcd.endpoints, storePath, source };
    const daemons = await Promise.all(
      ['db-1', 'db-2'].map((node) => prepareDaemon({ node, dir: join(dir, node), ...common })),
    );
    twins = new Twins({ dir, etcd, storePath, daemons, proxies: new Map() });
  });
  afterAll(async () => {
    await Promise.all((twins?.daemons ?? []).map((daemon) => daemon.kill()));
    await Promise.all([redis?.stop(), etcd?.stop()]);
    await rm(dir, { recursive: true, force: true });
  });

  const settled = async () => {
    const end = await redis.end();
    await until('all of it is in the archive', async () => (await twins.chain.end())?.id === end, {
      describe: () => `${end}\n${twins.tails()}`,
    });
    return { id: end, digest: await redis.digest() };
  };

  test('a death in the middle of rewrites loses nothing: a Redis on what is restored holds the same keys', async () => {
    const before = redis.load();
    await until('there is something to begin with', () => before.written() > 2_000);
    await redis.rewrite();
    const { master, standby } = await twins.ready();
    await redis.rewrite();
    // One that is gone again before anybody has looked would be a gap.
    const newest = (await redis.files()).find((name) => name.includes('.incr.'))!;
    await until('the standby holds the new increment', () => holds(standby, newest));
    master.signal('SIGKILL');
    const since = standby.mark();
    await redis.rewrite();
    await standby.becomesMaster({ since });
    await master.start();
    await before.stop();
    const early = await settled();

    // Redis tells times in seconds.
    await delay(1_100 - (Date.now() % 1_000));
    const time = new Date(Math.floor(Date.now() / 1_000) * 1_000 - 1_000).toISOString();
    await twins.ready();
    const after = redis.load();
    await until('more is written', () => after.written() > 2_000);
    await standby.stop();
    await redis.rewrite();
    await after.stop();
    const late = await settled();
    expect(late.digest).not.toBe(early.digest);

    await twins.succeed(master, 'verify', STREAM, '--deep');
    const restored = [twins.restore(), twins.restore('--until', early.id), twins.restore('--until', time)];
    const digests = await Promise.all(restored.map(async (each) => digestOf(await each)));
    expect(digests).toEqual([late.digest, early.digest, early.digest]);
    const inBase = await shipmate(
      master.configFile,
      'restore',
      STREAM,
      '--to',
      join(dir, 'no'),
      '--until',
      '2020-01-01T00:00:00Z',
    );
    expect(inBase).toMatchObject({ code: 1, stderr: expect.stringContaining('is not in the archive') });
  }, 120_000);
});

test('a log that is rotated by renaming is restored in order, over kills of the only daemon', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'shipmate-files-'));
  const files = new LogFiles({ live: 'audit.log' });
  const storePath = join(dir, 'store');
  await mkdir(storePath);
  const source = {
    type: 'files',
    dir: files.dir,
    match: 'audit.log*',
    live: 'audit.log',
    cut: 'line',
    settle: '200ms',
  };
  const daemon = await prepareDaemon({ node: 'db-1', dir: join(dir, 'db-1'), storePath, source });
  const chain = new ChainReader({ root: storePath });
  try {
    for (let life = 0; life < 3; life++) {
      for (let file = 0; file < 2; file++) {
        files.rotate();
        for (let line = 0; line < 50; line++) files.append({ bytes: 300 });
      }
      if (life > 0) await daemon.kill();
      await daemon.start();
      const at = life > 0 ? (await chain.end())?.id : undefined;
      await until('something is shipped', async () => (await chain.end())?.id !== at, {
        describe: () => daemon.tail(),
      });
    }
    files.write('a line without an end');
    const last = `audit.log-000006:${files.written.at(-1)!.lastIndexOf('\n') + 1}`;
    await until('all whole lines are shipped', async () => (await chain.end())?.id === last, {
      describe: () => daemon.tail(),
    });
    const to = join(dir, 'restored');
    expect(await shipmate(daemon.configFile, 'restore', STREAM, '--to', to)).toMatchObject({ code: 0 });
    const names = (await readdir(to)).sort();
    expect(names).toEqual([1, 2, 3, 4, 5, 6].map((n) => `audit.log-00000${n}`));
    const restored = await Promise.all(names.map((name) => readFile(join(to, name), 'utf8')));
    expect(restored.join('')).toBe(files.written.join('').slice(0, -'a line without an end'.length));
    const place = `audit.log-000003:${files.written[2]!.length - 10}`;
    const cut = await shipmate(daemon.configFile, 'restore', STREAM, '--to', join(dir, 'cut'), '--until', place);
    expect(cut).toMatchObject({ code: 0 });
    const third = await readFile(join(dir, 'cut', 'audit.log-000003'), 'utf8');
    expect(third).toBe(files.written[2]!.slice(0, files.written[2]!.lastIndexOf('line')));
    const timed = await shipmate(
      daemon.configFile,
      'restore',
      STREAM,
      '--to',
      join(dir, 'no'),
      '--until',
      '2026-01-01T00:00:00Z',
    );
    expect(timed).toMatchObject({ code: 2, stderr: expect.stringContaining('carry no times') });
    const check = await shipmate(daemon.configFile, 'check');
    expect(check.stdout).toContain('resume: audit.log holds the bytes that were shipped last');
  } finally {
    await daemon.kill();
    files.remove();
    await rm(dir, { recursive: true, force: true });
  }
}, 120_000);
