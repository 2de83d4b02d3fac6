import { execFileSync } from 'node:child_process';
import { appendFile, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import { stringify } from 'yaml';
import { Daemon, shipmate } from '../helpers/daemon.ts';
import { freePort } from '../helpers/ports.ts';
import { until } from '../helpers/wait.ts';

/** As few as that, so that few streams are enough to take them all. */
const THREADS = 8;
const STREAMS = Array.from({ length: THREADS }, (_, n) => `audit-${n}`);

let dir: string;
let daemon: Daemon;
const { UV_THREADPOOL_SIZE } = process.env;
afterEach(async () => {
  process.env.UV_THREADPOOL_SIZE = UV_THREADPOOL_SIZE;
  if (UV_THREADPOOL_SIZE === undefined) delete process.env.UV_THREADPOOL_SIZE;
  await daemon.kill();
  await rm(dir, { recursive: true, force: true });
});

test('many streams whose copies hang in one mount are shipped to their primary all the same', async () => {
  dir = await mkdtemp(join(tmpdir(), 'shipmate-hung-'));
  const logOf = (stream: string) => join(dir, 'log', stream, 'audit.log');
  for (const stream of STREAMS) {
    for (const part of ['main', 'nas', 'log']) await mkdir(join(dir, part, stream), { recursive: true });
    await writeFile(logOf(stream), 'first\n');
    // Nobody ever writes into it: whoever opens it to read waits for ever, as in a mount whose server is gone.
    execFileSync('mkfifo', [join(dir, 'nas', stream, 'stream.json')]);
  }
  const listen = `127.0.0.1:${await freePort()}`;
  const configFile = join(dir, 'shipmate.yaml');
  const streams = STREAMS.map((stream) => [
    stream,
    { source: { type: 'files', dir: join(dir, 'log', stream), match: '*.log', shared: true }, plan: 'both' },
  ]);
  const config = {
    ...{ node: 'db-1', cluster: 'acme', stateDir: join(dir, 'state'), coordination: 'solo', admin: { listen } },
    stores: { main: { type: 'file', path: join(dir, 'main') }, nas: { type: 'file', path: join(dir, 'nas') } },
    plans: { both: { primary: 'main', copies: ['nas'] } },
    streams: Object.fromEntries(streams),
  };
  await writeFile(configFile, stringify(config));
  daemon = new Daemon({ node: 'db-1', configFile, url: `http://${listen}`, faultsFile: undefined });
  process.env.UV_THREADPOOL_SIZE = String(THREADS);
  await daemon.start();
  const chunksOf = async (stream: string) => {
    const objects = await readdir(join(dir, 'main', stream, 'terms', '00000001')).catch(() => []);
    return Math.max(0, objects.length - 1); // without the opening
  };
  const all = async (chunks: number) => {
    const counts = await Promise.all(STREAMS.map(chunksOf));
    return counts.every((count) => count >= chunks);
  };
  const describe = () => daemon.tail();
  for (let round = 1; round <= 3; round++) {
    await until(`round ${round} is shipped`, () => all(round), { describe, withinMs: 120_000 });
    for (const stream of STREAMS) await appendFile(logOf(stream), `and ${round}\n`);
  }
  const { stdout } = await shipmate(configFile, 'status', '--json');
  const nas = expect.objectContaining({ name: 'nas', lagBytes: null });
  const ofStream = expect.objectContaining({ stores: expect.arrayContaining([nas]) });
  expect(JSON.parse(stdout)).toMatchObject({ streams: STREAMS.map(() => ofStream) });
}, 600_000);
