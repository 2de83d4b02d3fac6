import { appendFile, cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, describe, expect, test } from '@jest/globals';
import { type Expected, KeptArchive, KINDS, type Kind, STREAM } from '../fixtures/archive.ts';
import { ChainReader } from '../helpers/archive.ts';
import { prepareDaemon, shipmate } from '../helpers/daemon.ts';
import { until } from '../helpers/wait.ts';

/** Archives that earlier versions wrote are read for ever: docs/compatibility.md. `test/fixtures/make.ts` wrote them. */
const FIXTURES = join(dirname(dirname(fileURLToPath(import.meta.url))), 'fixtures');
const roots = (await readdir(FIXTURES))
  .filter((name) => /^archive-v\d+$/.test(name))
  .map((name) => join(FIXTURES, name));
const kinds: Kind[] = ['mariadb', 'postgres', 'files', 'encrypted'];

test('there is one of the first format', () => {
  expect(Object.keys(KINDS)).toEqual(kinds);
  expect(roots).toContain(join(FIXTURES, 'archive-v1'));
});

describe.each(roots)('%s', (root) => {
  let dir = '';
  const open: KeptArchive[] = [];
  afterEach(async () => {
    for (const archive of open.splice(0)) await archive.remove();
  });
  afterAll(() => rm(dir, { recursive: true, force: true }));

  /** The archive as its server left it, and what it gave then. */
  async function kept(kind: Kind): Promise<{ archive: KeptArchive; expected: Expected }> {
    const all: Record<Kind, Expected> = JSON.parse(await readFile(join(root, 'expected.json'), 'utf8'));
    const archive = await KeptArchive.open(root, kind);
    open.push(archive);
    return { archive, expected: all[kind] };
  }

  /** Every object of an archive's terms, in the order of the chain. */
  async function objectsOf(store: string): Promise<string[]> {
    const entries = await readdir(join(store, STREAM, 'terms'), { recursive: true, withFileTypes: true });
    return entries.flatMap((entry) => (entry.isFile() ? [join(entry.parentPath, entry.name)] : [])).sort();
  }

  test.each(kinds)('%s: every term is listed, and every digest agrees', async (kind) => {
    const { archive, expected } = await kept(kind);
    expect(await archive.openings()).toEqual(expected.openings);
    expect(await archive.run('verify', STREAM, '--deep')).toMatchObject({ code: 0, stderr: '' });
  });

  test.each(kinds)('%s: what is restored is what its server wrote', async (kind) => {
    const { archive, expected } = await kept(kind);
    expect(expected.restores.length).toBeGreaterThan(0);
    for (const restore of expected.restores) expect(await archive.restore(...restore.args)).toEqual(restore);
  });

  test('postgres: every segment and history file is fetched', async () => {
    const { archive, expected } = await kept('postgres');
    for (const [name, digest] of Object.entries(expected.fetches)) expect(await archive.fetch(name)).toBe(digest);
    expect(await archive.fetch('00000003.history')).toMatch(/^exit 1: /);
  });

  test('postgres: what a newer version wrote is refused by name, by every command, and nothing is changed', async () => {
    const copies = await mkdtemp(join(tmpdir(), 'shipmate-kept-'));
    try {
      await cp(root, copies, { recursive: true });
      const archive = await KeptArchive.open(copies, 'postgres');
      open.push(archive);
      const objects = await objectsOf(join(copies, 'postgres'));
      const bytes = await readFile(objects.at(-1)!);
      bytes.write('"v":2', bytes.indexOf('"v":1'));
      await writeFile(objects.at(-1)!, bytes);
      const commands = [
        ['verify', STREAM, '--deep'],
        ['ls', STREAM],
        ['restore', STREAM, '--to', join(archive.dir, 'to')],
        ['prune', STREAM, '--yes', '--keep-segments', '1'],
        ['fetch', STREAM, '000000020000000000000009', join(archive.dir, 'segment')],
      ];
      for (const [command = '', ...args] of commands) {
        const { code, stderr } = await archive.run(command, ...args);
        expect([command, code, stderr]).toEqual([
          command,
          command === 'fetch' ? 126 : 1,
          expect.stringContaining('is of format 2, and this Shipmate reads formats up to 1'),
        ]);
      }
      expect(await objectsOf(join(copies, 'postgres'))).toEqual(objects);
    } finally {
      await rm(copies, { recursive: true });
    }
  });

  test('encrypted: without the key nothing is given away', async () => {
    const { archive } = await kept('encrypted');
    const to = join(archive.dir, 'without');
    const { code, stderr } = await archive.run('restore', STREAM, '--to', to);
    expect([code, stderr]).toEqual([1, expect.stringContaining('encrypted')]);
  });

  test('files: a daemon goes on where the archive ends', async () => {
    dir = await mkdtemp(join(tmpdir(), 'shipmate-kept-'));
    const [storePath, logs] = [join(dir, 'store'), join(dir, 'logs')];
    await cp(join(root, 'files'), storePath, { recursive: true });
    await mkdir(logs);
    const source = { type: 'files', dir: logs };
    const daemon = await prepareDaemon({ node: 'log-1', dir: join(dir, 'log-1'), storePath, source });
    const restored = await shipmate(daemon.configFile, 'restore', STREAM, '--to', logs, '--after-gap');
    expect(restored.code).toBe(0);
    expect((await shipmate(daemon.configFile, 'adopt', STREAM, '--yes')).code).toBe(0);
    await appendFile(join(logs, 'audit-3.log'), 'of a later version\n');
    await daemon.start();
    try {
      const chain = new ChainReader({ root: storePath });
      await until('it is shipped', async () => (await chain.end())?.id === 'audit-3.log:54', {
        describe: () => daemon.tail(),
      });
      expect((await chain.reigns()).at(-1)!.opening.header).toMatchObject({ kind: 'opening', result: 'resume' });
    } finally {
      await daemon.kill();
    }
  });
});
