import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { type Daemon, prepareDaemon } from '../helpers/daemon.ts';
import { until } from '../helpers/wait.ts';

let dir: string;
let daemon: Daemon;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'shipmate-run-'));
  await Promise.all(['store', 'mysql'].map((name) => mkdir(join(dir, name))));
  const source = { dir: join(dir, 'mysql') };
  daemon = await prepareDaemon({ node: 'db-1', dir: join(dir, 'db-1'), storePath: join(dir, 'store'), source });
});
afterEach(async () => {
  await daemon.kill();
  await rm(dir, { recursive: true, force: true });
});

const alive = () => fetch(`${daemon.url}/healthz`).then(({ ok }) => ok);

test.each<NodeJS.Signals>(['SIGTERM', 'SIGINT'])('leaves in order on %s', async (signal) => {
  await daemon.start();
  await until('it serves HTTP', alive);
  daemon.signal(signal);
  expect(await daemon.exited).toEqual({ code: 0, signal: null, stderr: '' });
});

test('a second signal ends it on the spot', async () => {
  await daemon.start();
  await until('it serves HTTP', alive);
  // Both are waiting when it wakes, so that the second one meets a daemon that is still leaving.
  daemon.freeze();
  daemon.signal('SIGTERM');
  daemon.signal('SIGINT');
  daemon.thaw();
  expect(await daemon.exited).toEqual({ code: 1, signal: null, stderr: '' });
});

test('what it cannot do without ends it with an error and a hint', async () => {
  const other = createServer();
  const { hostname: host, port } = new URL(daemon.url);
  await new Promise<void>((resolve) => other.listen(Number(port), host, resolve));
  try {
    await daemon.start();
    const { code, stderr } = await daemon.exited;
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error: can't listen on 127\.0\.0\.1:\d+ \(admin\.listen\).*\nhint: another program.*\n$/);
  } finally {
    await new Promise((resolve) => other.close(resolve));
  }
});
