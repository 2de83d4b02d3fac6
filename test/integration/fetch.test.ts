import { execFile } from 'node:child_process';
import { chmodSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, readlink, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { stringify } from 'yaml';
import type { Archive } from '../../src/archive/walk.ts';
import { openServer } from '../../src/source/postgres/server.ts';
import { openPostgresSource } from '../../src/source/postgres.ts';
import { openFileStore } from '../../src/store/file.ts';
import { checkoutForServers } from '../helpers/checkout.ts';
import { type Outcome, shipmate } from '../helpers/daemon.ts';
import { Installation } from '../helpers/launcher.ts';
import { measured } from '../helpers/measured.ts';
import { type Postgres, serverFolder, serverUser, startPostgres } from '../helpers/postgres.ts';
import { createArchive, shipTerm } from '../helpers/shipped-archive.ts';
import { until } from '../helpers/wait.ts';

jest.setTimeout(70_000);

const log = { debug() {}, info() {}, warn() {}, error() {} };
const SEGMENT_BYTES = 1 << 20;

let dir: string;
let storePath: string;
let config: string;
let archive: Archive;
let primary: Postgres;
let backup: string;
let installation: Installation;
let sums: Record<string, string>;
/** Files of pg_wal when they were shipped. */
const shipped = new Map<string, Buffer>();

async function ship(): Promise<void> {
  const server = openServer({ url: primary.url, dir: primary.dataDir, stream: 'orders' });
  const source = openPostgresSource({ stream: 'orders', dir: primary.dataDir, server, slot: null, busyPollMs: 5, log });
  try {
    const end = await shipTerm(archive, source, { maxChunkBytes: 256 * 1024 });
    const wal = join(primary.dataDir, 'pg_wal');
    const last = end.position!.segment;
    for (const name of (await readdir(wal)).filter((each) => /^[0-9A-F]{24}$/.test(each) && each <= last)) {
      const bytes = await readFile(join(wal, name));
      // What a recycled file holds beyond the end is not the log.
      shipped.set(name, name === last ? bytes.fill(0, end.position!.offset) : bytes);
    }
  } finally {
    await source.close();
  }
}

beforeAll(async () => {
  dir = await serverFolder('shipmate-fetch-');
  chmodSync(dir, 0o755);
  storePath = join(dir, 'store');
  await mkdir(storePath);
  installation = await Installation.in(join(dir, 'installed'), { root: await checkoutForServers(dir) });
  config = await configure('shipmate.yaml');
  primary = await startPostgres({ settings: { wal_keep_size: '256MB', wal_recycle: 'off' } });
  backup = await primary.baseBackup();
  await primary.initPgbench();
  await primary.pgbench({ transactions: 50 });
  archive = await createArchive(openFileStore({ name: 'main', path: storePath }), 'orders', 'postgres');
  await ship();
  await primary.pgbench({ transactions: 50 });
  await ship();
  sums = await primary.checksums();
});

afterAll(async () => {
  await primary?.stop();
  await rm(dir, { recursive: true, force: true });
  if (backup) await rm(backup, { recursive: true, force: true });
});

/** Names what only a daemon needs, and is not there: a variable, etcd, a state directory. */
async function configure(name: string, store = storePath): Promise<string> {
  const file = join(dir, name);
  const url = `postgresql://shipmate:\${NOT_SET_ANYWHERE}@127.0.0.1/postgres`;
  const source = { type: 'postgres', dir: '/var/lib/postgresql/none', url };
  await writeFile(
    file,
    stringify({
      cluster: 'acme',
      stateDir: '/nowhere',
      coordination: { etcd: { endpoints: ['http://127.0.0.1:1'] } },
      stores: { main: { type: 'file', path: store } },
      streams: { orders: { source, store: 'main' } },
    }),
  );
  return file;
}

const fetched = (name: string, to: string, ...args: string[]): Promise<Outcome> =>
  shipmate(config, 'fetch', 'orders', name, to, ...args);

const names = () => [...shipped.keys()].sort();
const lastName = () => names().at(-1)!;
const nextOf = (name: string) =>
  name.slice(0, 16) + (Number.parseInt(name.slice(16), 16) + 1).toString(16).padStart(8, '0').toUpperCase();

async function inFolder<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'shipmate-fetched-'));
  try {
    return await use(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

describe('one file', () => {
  test('comes as the server wrote it, the last one padded with zeros to its whole length', () =>
    inFolder(async (folder) => {
      for (const name of [names()[0]!, lastName()]) {
        const to = join(folder, 'RECOVERYXLOG');
        expect(await fetched(name, to)).toMatchObject({ code: 0, stdout: '', stderr: '' });
        const bytes = await readFile(to);
        expect(bytes).toHaveLength(SEGMENT_BYTES);
        expect(bytes.equals(shipped.get(name)!)).toBe(true);
        expect(await readdir(folder)).toEqual(['RECOVERYXLOG']);
      }
    }));

  test('exit codes: 1 for what is not in the archive, 126 for whatever else', () =>
    inFolder(async (folder) => {
      const to = join(folder, 'x');
      const elsewhere = await configure('elsewhere.yaml', join(dir, 'not-mounted'));
      const broken = join(dir, 'broken.yaml');
      await writeFile(broken, 'cluster: [');
      const asked: [number, string, string[]][] = [
        [1, config, ['orders', nextOf(lastName()), to]],
        [1, config, ['orders', '000000010000000000000000', to]],
        [1, config, ['orders', '00000002.history', to]],
        [1, config, ['orders', `${names()[0]}.partial`, to]],
        [1, config, ['orders', `${names()[0]}.00000028.backup`, to]],
        [126, config, ['orders', 'pg_wal/RECOVERYXLOG', to]],
        [126, config, ['billing', names()[0]!, to]],
        [126, config, ['orders', names()[0]!, to, '--store', 'none']],
        [126, config, ['orders', names()[0]!, join(folder, 'none', 'x')]],
        [126, config, ['orders', names()[0]!]],
        [126, broken, ['orders', names()[0]!, to]],
        [126, join(dir, 'none.yaml'), ['orders', names()[0]!, to]],
        [126, elsewhere, ['orders', nextOf(lastName()), to, '--timeout', '1']],
      ];
      const codes: number[] = [];
      for (const [, file, args] of asked) codes.push((await shipmate(file, 'fetch', ...args)).code);
      expect(codes).toEqual(asked.map(([code]) => code));
      expect(await readdir(folder)).toEqual([]);
    }));
});

test('a store that hangs is an error in time', () =>
  inFolder(async (folder) => {
    const object = join(storePath, 'orders', 'terms', '00000002', '0000000001');
    await rename(object, join(dir, 'object'));
    try {
      await promisify(execFile)('mkfifo', [object]);
      const { code, stderr } = await fetched(names()[0]!, join(folder, 'x'), '--timeout', '1');
      expect(code).toBe(126);
      expect(stderr).toMatch(/could not be fetched within 1 s/);
      expect(await readdir(folder)).toEqual([]);
    } finally {
      await rename(join(dir, 'object'), object);
    }
  }));

test('a server’s user without a home keeps compiled code, in a directory of its own: a question takes half the time', () =>
  inFolder(async (folder) => {
    chmodSync(folder, 0o777);
    chmodSync(join(dir, 'installed', 'node_modules'), 0o555);
    const user =
      serverUser.uid === undefined ? '' : `setpriv --reuid=${serverUser.uid} --regid=${serverUser.gid} --clear-groups`;
    const asks = `fetch orders ${nextOf(lastName())} ${folder}/x -c ${config}`;
    const { code } = await installation.run(
      `umask 0; ${user} env -i PATH="$PATH" TMPDIR=${folder} "$SHIPMATE" ${asks}`,
    );
    expect(code).toBe(1);
    const own = join(folder, `shipmate-${serverUser.uid ?? process.getuid?.()}`);
    expect((await stat(own)).mode & 0o777).toBe(0o700);
    expect(await readdir(own)).toEqual([expect.stringMatching(/^v24\./)]);
  }));

/** All files of a session's recovery, taken in order, as recovery asks; then whatever `then` does before the session ends. */
async function takeAll(folder: string, then = ''): Promise<{ code: number; stderr: string }> {
  const list = names().slice(0, -1).join(' ');
  const script = `for name in ${list}; do
      "$SHIPMATE" fetch orders $name ${folder}/$name -c ${config} || exit
      [ -e ${folder}/lazy ] && sleep 0.02
    done
    ${then}`;
  return installation.run(script, { XDG_CACHE_HOME: join(folder, 'cache') });
}

describe('reading ahead', () => {
  test('hands most segments over without Node, all of them right; a segment beyond the head is answered at once; nothing stays (timed)', () =>
    inFolder(async (folder) => {
      await mkdir(join(folder, 'cache'));
      const before = await installation.starts();
      const beyond = `cd ${folder}; date +%s%N >began; "$SHIPMATE" fetch orders ${nextOf(lastName())} x -c ${config} 2>/dev/null
        echo $? >code; date +%s%N >ended
        for p in cache/shipmate/fetch/*,orders,,*; do
          pid=\${p##*,}; ls -l /proc/$pid/fd >fds; cut -d' ' -f6 /proc/$pid/stat >session; echo $pid >pid
        done`;
      expect(await takeAll(folder, beyond)).toEqual({ code: 0, stderr: '' });
      for (const name of names().slice(0, -1)) {
        expect((await readFile(join(folder, name))).equals(shipped.get(name)!)).toBe(true);
      }
      const text = (name: string) => readFile(join(folder, name), 'utf8').then((said) => said.trim());
      expect(await text('code')).toBe('1');
      measured('a segment beyond the head', (Number(await text('ended')) - Number(await text('began'))) / 1e6, 500);
      // Node for the first ones, the question beyond the head, and once to read ahead.
      expect(names().length).toBeGreaterThan(12);
      expect((await installation.starts()) - before).toBeLessThan(names().length / 2);
      // Of the recovery it holds neither its session nor a pipe.
      expect(await text('session')).toBe(await text('pid'));
      expect(await text('fds')).not.toMatch(/ [012] -> (?!\/dev\/null)/);
      await until('what read ahead has ended, and left nothing', async () => {
        const left = await readdir(join(folder, 'cache', 'shipmate', 'fetch'));
        return left.length === 0 && !(await readlink(`/proc/${await text('pid')}/cwd`).catch(() => null));
      });
    }));

  test('nothing is handed over of a config that was changed, of a process that died, or from another’s directory', () =>
    inFolder(async (folder) => {
      await mkdir(join(folder, 'cache'));
      const own = join(folder, 'own.yaml');
      const [first, second] = names();
      const foreign = `touch $a/x; printf bad >$a/${second}`;
      const ask = `"$SHIPMATE" fetch orders`;
      const script = `cd ${folder}; cp ${config} own.yaml
        look() { for a in cache/shipmate/fetch/*,orders,,*; do [ -d "$a" ] && return; done; return 1; }
        ${ask} ${first} one -c ${own} || exit
        n=0; until look && [ -e $a/${second} ]; do sleep 0.02; n=$((n+1)); [ $n -lt 400 ] || exit 9; done
        pid=\${a##*,}
        kill -KILL $pid; while [ -e /proc/$pid/cwd ]; do sleep 0.01; done
        ${foreign}
        ${ask} ${second} two -c ${own} || exit
        n=0; until look && [ \${a##*,} != $pid ] && [ -e $a/${names()[2]} ]; do sleep 0.02; n=$((n+1)); [ $n -lt 400 ] || exit 8; done
        printf bad >$a/${names()[2]}; sleep 0.02; touch own.yaml
        ${ask} ${names()[2]} three -c ${own} || exit`;
      expect(await installation.run(script, { XDG_CACHE_HOME: join(folder, 'cache') })).toEqual({
        code: 0,
        stderr: '',
      });
      for (const [index, file] of ['one', 'two', 'three'].entries()) {
        expect((await readFile(join(folder, file))).equals(shipped.get(names()[index]!)!)).toBe(true);
      }
    }));
});

test('a real recovery stops with an error where the store is cut off, and goes to the archive’s end once it is back', async () => {
  const away = join(dir, 'away');
  const command = join(dir, 'restore-command');
  const middle = names()[Math.floor(names().length / 2)];
  // In the middle of recovery, when the test says so, the mount is lost.
  await writeFile(
    command,
    `#!/bin/sh
    cd ${dir}
    if [ "$1" = ${middle} ] && [ -e store ]; then
      while [ ! -e now ] && [ ! -e back ]; do sleep 0.02; done
      [ -e back ] || mv store away
    fi
    cd "$OLDPWD"
    XDG_CACHE_HOME=${dir} exec ${installation.shipmate} fetch orders "$1" "$2" -c ${config} --timeout 2
    `,
    { mode: 0o755 },
  );
  chmodSync(dir, 0o777);
  const settings = { restore_command: `${command} %f %p`, recovery_target_timeline: 'latest' };
  const server = await startPostgres({ backup, recovers: true, settings });
  const isRecovering = async () => (await server.sql('SELECT pg_is_in_recovery() AS yes'))[0]?.yes;
  try {
    expect(await isRecovering()).toBe(true);
    await writeFile(join(dir, 'now'), '');
    const ended = await until('recovery ends in some way', () =>
      isRecovering().then(
        (still) => (still ? null : 'complete'),
        () => 'stopped',
      ),
    );
    expect(ended).toBe('stopped');
    await server.end('kill');
    await writeFile(join(dir, 'back'), '');
    await rename(away, storePath);
    const before = await installation.starts();
    await server.start();
    await until('it has recovered', async () => !(await isRecovering()));
    expect(await server.checksums()).toEqual(sums);
    expect((await installation.starts()) - before).toBeLessThan(names().length);
  } finally {
    await server.stop();
  }
});
