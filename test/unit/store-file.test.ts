import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  chmod,
  chown,
  cp,
  mkdir,
  mkdtemp,
  readdir,
  rename,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { openFileStore } from '../../src/store/file.ts';
import { giveToOwner } from '../../src/store/file-directories.ts';
import type { ObjectStore } from '../../src/store/store.ts';
import { asNobody } from '../helpers/nobody.ts';

const never = new AbortController().signal;
const writer = fileURLToPath(new URL('./store-writer.ts', import.meta.url));
const down = { name: 'ShipmateError', code: 'STORE_DOWN', verdict: 'retry' };

let folder: string;
let root: string;
let store: ObjectStore;
const children = new Set<ChildProcess>();

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'shipmate-store-'));
  root = join(folder, 'root');
  await mkdir(root);
  store = openFileStore({ name: 'nas', path: root });
});

afterEach(async () => {
  for (const child of children) {
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  }
  children.clear();
  await rm(folder, { recursive: true, force: true });
});

describe('a writer that dies', () => {
  test('leaves whole objects only, and all that it was told are created', async () => {
    for (let round = 0; round < 3; round++) {
      const child = start(process.execPath, [writer, root, `round-${round}`, '400000', 'half']);
      const created: string[] = [];
      for await (const key of createInterface({ input: child.stdout! })) {
        created.push(key);
        if (created.length === 3 + round * 2) child.kill('SIGKILL');
      }
      const present = await keysOf(store, `round-${round}/`);
      expect(present).toEqual(expect.arrayContaining(created));
      for (const key of present) expectWhole(await buffer(await store.read(key)));
      expect(present).not.toContain(`round-${round}/half`);
      expect((await temporaryFiles()).length).toBeGreaterThan(round);
    }
  });

  test('leaves files that no reader sees, and that a later writer removes when they are old', async () => {
    await store.create('s/0', Buffer.from('x'), never);
    const hourAgo = new Date(Date.now() - 3_700_000);
    for (const name of ['1-old', '2-young']) await writeFile(join(root, '.shipmate-tmp', name), 'half an obj');
    await utimes(join(root, '.shipmate-tmp', '1-old'), hourAgo, hourAgo);

    expect(await keysOf(store, '')).toEqual(['s/0']);
    await expect(store.head('.shipmate-tmp/1-old')).rejects.toMatchObject({ code: 'BAD_KEY' });
    const later = openFileStore({ name: 'nas', path: root });
    await later.create('s/1', Buffer.from('x'), never);
    expect(await temporaryFiles()).toEqual(['2-young']);
  });
});

describe('a file system without room', () => {
  test('fails the create, shows no part of it, keeps what was there', async () => {
    const child = startWithoutRoom();
    const lines: string[] = [];
    for await (const line of createInterface({ input: child.stdout! })) lines.push(line);
    const failures = lines.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));
    const full = { code: 'STORE_FULL', verdict: 'retry', hint: expect.stringContaining('make room') };
    expect(failures).toEqual([full, full]);
    const created = lines.filter((line) => line.startsWith('s/')).map((key) => `${join(root, key)} 100032`);
    expect(lines.slice(lines.indexOf('left:') + 1).sort()).toEqual(created.sort());
  });
});

describe('a root', () => {
  test('that is missing is a store that is down: it is never made', async () => {
    await rm(root, { recursive: true });
    await expect(store.create('key', Buffer.from('x'), never)).rejects.toMatchObject(down);
    await expect(store.create('s/key', Buffer.from('x'), never)).rejects.toMatchObject(down);
    await expectDown(store, 's/key');
    await expect(stat(root)).rejects.toMatchObject({ code: 'ENOENT' });

    await mkdir(root);
    expect(await store.create('s/key', Buffer.from('x'), never)).toBe('created');
  });

  test('that is a file is a store that is down', async () => {
    await rm(root, { recursive: true });
    await writeFile(root, 'not a directory');
    await expect(store.create('s/key', Buffer.from('x'), never)).rejects.toMatchObject({
      ...down,
      message: expect.stringContaining('is not a directory'),
    });
    await expectDown(store, 's/key');
  });

  test('whose mount was lost is neither written to nor taken for an empty store', async () => {
    await store.create('s/0', Buffer.from('x'), never);
    await rename(root, join(folder, 'mounted'));
    await mkdir(root); // what lies under a mount point
    await expect(store.create('s/1', Buffer.from('x'), never)).rejects.toMatchObject({
      ...down,
      message: expect.stringContaining('a mount was lost'),
      hint: expect.stringContaining('mount it again'),
    });
    await expectDown(store, 's/0');
    expect(await readdir(root)).toEqual([]);

    await rm(root, { recursive: true });
    await rename(join(folder, 'mounted'), root);
    expect(await store.create('s/1', Buffer.from('x'), never)).toBe('created');
  });

  test('that comes back with another device or inode number is known by the object seen last', async () => {
    await store.create('s/0', Buffer.from('x'), never);
    await store.create('s/1', Buffer.from('x'), never);
    await rename(root, join(folder, 'before'));
    await cp(join(folder, 'before'), root, { recursive: true });
    expect(await store.create('s/2', Buffer.from('x'), never)).toBe('created');

    // An older state of the same store is not the same store.
    await rename(root, join(folder, 'newest'));
    await cp(join(folder, 'before'), root, { recursive: true });
    await expectDown(store, 's/0');
  });

  test('may be mounted after the start, as long as no object was seen', async () => {
    expect(await store.head('s/0')).toBeNull();
    await rename(root, join(folder, 'beneath'));
    await mkdir(join(root, 's'), { recursive: true });
    await writeFile(join(root, 's/0'), 'x');
    expect(await store.head('s/0')).toEqual({ key: 's/0', size: 1 });
  });

  test("that may not be written to is an operator's matter", async () => {
    await chmod(folder, 0o755);
    await chmod(root, 0o555);
    await asNobody(async () => {
      await expect(store.create('s/0', Buffer.from('x'), never)).rejects.toMatchObject({
        code: 'STORE_DENIED',
        verdict: 'fatal',
        hint: expect.stringContaining('owner, mode'),
      });
      expect(await store.head('s/0')).toBeNull();
    });
  });
});

describe('objects and directories', () => {
  const testAsRoot = process.getuid?.() === 0 ? test : test.skip;
  test.each([
    { umask: 0o022, file: 0o644, directory: 0o755 },
    { umask: 0o027, file: 0o640, directory: 0o750 },
  ])('have the modes that umask $umask leaves', async ({ umask, file, directory }) => {
    const before = process.umask(umask);
    try {
      await store.create('s/terms/0', Buffer.from('x'), never);
    } finally {
      process.umask(before);
    }
    expect((await stat(join(root, 's/terms/0'))).mode & 0o7777).toBe(file);
    expect((await stat(join(root, 's/terms'))).mode & 0o7777).toBe(directory);
  });

  test('leave nothing else behind, whether created, existing, failed or aborted', async () => {
    await store.create('s/0', Buffer.from('x'), never);
    await store.create('s/0', Buffer.from('y'), never);
    const term = new AbortController();
    const body = async function* () {
      yield Buffer.from('half');
      term.abort(new Error('over'));
      yield Buffer.from('never');
    };
    await expect(store.create('s/1', () => Readable.from(body()), term.signal)).rejects.toThrow('over');
    await expect(store.create('s/0/below', Buffer.from('x'), never)).rejects.toMatchObject({ code: 'STORE_FAILED' });
    expect(await temporaryFiles()).toEqual([]);
    expect((await readdir(root)).sort()).toEqual(['.shipmate-tmp', 's']);
    expect(await readdir(join(root, 's'))).toEqual(['0']);
  });

  testAsRoot('that root makes belong to the owner of the store, whose daemon goes on there', async () => {
    await chown(root, 65_534, 65_533);
    const nested = openFileStore({ name: 'nas', path: root, prefix: 'prod' });
    expect(await nested.create('s/terms/1', Buffer.from('x'), never)).toBe('created');
    for (const name of await readdir(root, { recursive: true }))
      expect([name, await stat(join(root, name))]).toEqual([
        name,
        expect.objectContaining({ uid: 65_534, gid: 65_533 }),
      ]);
  });

  test.each(['EPERM', 'EINVAL', 'ENOTSUP'])("stay root's where they can't be given away: %s", async (code) => {
    const refuse = () => Promise.reject(Object.assign(new Error('no such owner here'), { code }));
    await giveToOwner(root, refuse);
  });

  test('are made again after somebody cleaned up empty-looking directories', async () => {
    await store.create('s/terms/1/0', Buffer.from('x'), never);
    await store.create('s/stream.json', Buffer.from('{}'), never);
    await rm(join(root, 's/terms'), { recursive: true });
    await rm(join(root, '.shipmate-tmp'), { recursive: true });
    await expect(store.create('s/terms/1/0', Buffer.from('x'), never)).rejects.toMatchObject({ verdict: 'retry' });
    expect(await store.create('s/terms/1/0', Buffer.from('x'), never)).toBe('created');
  });

  test('whose disk fails are an error that may pass, never an absent object', async () => {
    await symlink('/proc/self/mem', join(root, 'unreadable')); // the kernel answers EIO
    await expect(store.readStart('unreadable', 16)).rejects.toMatchObject({ code: 'STORE_FAILED', verdict: 'retry' });
  });
});

function start(command: string, args: readonly string[]): ChildProcess {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  children.add(child);
  return child;
}

/**
 * A writer of objects of 100,000 bytes, that then lists what is left, with sizes. Its root is a file system of 1 MiB,
 * mounted for it alone; where that is not allowed, its files may not grow beyond 50 KiB.
 */
function startWithoutRoom(): ChildProcess {
  const unshare = [...(process.getuid?.() === 0 ? [] : ['--user', '--map-root-user']), '--mount'];
  const mayMount = spawnSync('unshare', [...unshare, 'true']).status === 0;
  const limit = mayMount ? 'mount -t tmpfs -o size=1m,mode=755 none "$1"' : "trap '' XFSZ; ulimit -f 100";
  const script = `${limit}; "$2" "$3" "$1" s 100000; echo left:; find "$1" -type f -printf '%p %s\\n'`;
  const shell = ['sh', '-c', script, 'sh', root, process.execPath, writer];
  return mayMount ? start('unshare', [...unshare, ...shell]) : start(shell[0]!, shell.slice(1));
}

function expectWhole(object: Buffer): void {
  expect(createHash('sha256').update(object.subarray(32)).digest().equals(object.subarray(0, 32))).toBe(true);
}

async function expectDown(client: ObjectStore, key: string): Promise<void> {
  await expect(client.head(key)).rejects.toMatchObject(down);
  await expect(client.read(key)).rejects.toMatchObject(down);
  await expect(client.readStart(key, 8)).rejects.toMatchObject(down);
  await expect(client.delete([key])).rejects.toMatchObject(down);
  await expect(client.capacity()).rejects.toMatchObject(down);
  await expect(keysOf(client, '')).rejects.toMatchObject(down);
}

async function keysOf(client: ObjectStore, prefix: string): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of client.list(prefix)) keys.push(key);
  return keys;
}

const temporaryFiles = () => readdir(join(root, '.shipmate-tmp'));
