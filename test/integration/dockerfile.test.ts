import { appendFile, chown, cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { stringify } from 'yaml';
import { ChainReader } from '../helpers/archive.ts';
import { type Container, Image } from '../helpers/container.ts';
import { freePort } from '../helpers/ports.ts';
import { until } from '../helpers/wait.ts';

// The Dockerfile without Docker: its steps in a clean Debian tree, and a container of what they make.

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const USER = 65_532;
const LINE = 'a line of an audit log\n';
let dir: string;
let image: Image | undefined;
let container: Container | undefined;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'shipmate-container-'));
  image = await Image.build(ROOT);
}, 600_000);

afterEach(() => container?.kill());

afterAll(async () => {
  await image?.remove();
  await rm(dir, { recursive: true, force: true });
}, 60_000);

test('a container ships with a read-only root and no rights, tells that it is healthy, and leaves in order', async () => {
  const volumes = await makeVolumes(await freePort());
  const chain = new ChainReader({ root: join(dir, 'store'), stream: 'audit' });
  container = await image!.start(volumes);
  await until('the container is healthy', async () => (await container!.checkHealth()).code === 0, {
    describe: () => container!.log,
  });
  expect((await container.exec(['sh', '-c', 'id -u; id -g; readlink /proc/1/exe'])).stdout).toBe(
    `${USER}\n${USER}\n/usr/local/bin/node\n`,
  );
  expect((await container.exec(['touch', '/usr/lib/shipmate/file'])).stderr).toMatch(/Read-only file system/);
  expect((await container.exec(['grep', 'Cap[IPEB]', '/proc/1/status'])).stdout).not.toMatch(/[1-9a-f]$/m);

  const shippedUpTo = async () => (await chain.end())?.offset;
  await until('what was there is shipped', async () => (await shippedUpTo()) === LINE.length, {
    describe: () => container!.log,
  });
  await appendFile(join(dir, 'log', 'audit-1.log'), LINE);
  await until('a new line is shipped', async () => (await shippedUpTo()) === 2 * LINE.length);
  expect(await container.stop()).toBe(0);
  expect((await chain.read()).at(-1)?.header.kind).toMatch(/seal|chunk/);

  // What a container of the same image gives back.
  expect(await image!.run(volumes, 'restore', 'audit', '--to', '/mnt/backup/restored')).toMatchObject({ code: 0 });
  expect(await readFile(join(dir, 'store', 'restored', 'audit-1.log'), 'utf8')).toBe(LINE.repeat(2));
}, 180_000);

test('a container is unhealthy while nothing answers, and says why', async () => {
  const volumes = await makeVolumes(await freePort());
  container = await image!.start(volumes);
  const ask = (config: string) => container!.exec(['env', `SHIPMATE_CONFIG=${config}`, ...image!.settings.healthcheck]);
  await writeFile(join(dir, 'config', 'elsewhere.yaml'), stringify(configOf(await freePort())));
  expect(await ask('/etc/shipmate/elsewhere.yaml')).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/^error: .*fetch failed/),
  });
  await writeFile(join(dir, 'config', 'silent.yaml'), stringify({ ...configOf(1), admin: 'off' }));
  expect(await ask('/etc/shipmate/silent.yaml')).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/admin\.listen/),
  });
}, 120_000);

test.each([
  ['a RUN that fails', 'RUN echo broken && false', /RUN echo broken && false: exit 1\nbroken/],
  ['a COPY of what is not there', 'COPY bin/none bin/', /ENOENT/],
  ['a COPY of what .dockerignore leaves out', 'COPY docs docs', /\.dockerignore/],
  ['an instruction that is not known', 'COYP bin bin', /not understood/],
])(
  'this check fails for %s',
  async (_, step, message) => {
    const context = await mkdtemp(join(dir, 'context-'));
    const [version] = /^ARG NODE_VERSION=.*\n/m.exec(await readFile(join(ROOT, 'Dockerfile'), 'utf8')) ?? [];
    await cp(join(ROOT, '.dockerignore'), join(context, '.dockerignore'));
    await cp(join(ROOT, 'bin'), join(context, 'bin'), { recursive: true });
    await writeFile(join(context, 'Dockerfile'), `${version}FROM node:\${NODE_VERSION}-bookworm-slim\n${step}\n`);
    await expect(Image.build(context)).rejects.toThrow(message);
  },
  120_000,
);

async function makeVolumes(port: number): Promise<Record<string, string>> {
  for (const name of ['config', 'state', 'log', 'store']) await mkdir(join(dir, name), { recursive: true });
  for (const name of ['state', 'store']) await chown(join(dir, name), USER, USER);
  await writeFile(join(dir, 'config', 'shipmate.yaml'), stringify(configOf(port)));
  await writeFile(join(dir, 'log', 'audit-1.log'), LINE, { flag: 'wx' }).catch(() => {});
  const at = (name: string) => join(dir, name);
  return {
    '/etc/shipmate': at('config'),
    '/var/lib/shipmate': at('state'),
    '/srv/log': at('log'),
    '/mnt/backup': at('store'),
  };
}

const configOf = (port: number) => ({
  node: 'db-1',
  cluster: 'acme',
  coordination: 'solo',
  stores: { main: { type: 'file', path: '/mnt/backup' } },
  streams: { audit: { source: { type: 'files', dir: '/srv/log', match: 'audit-*.log' }, store: 'main' } },
  admin: { listen: `0.0.0.0:${port}` },
});
