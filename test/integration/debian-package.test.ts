import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { buildPackage, laterPackage, type PackagedHost, PackagedPair } from '../helpers/debian-pair.ts';
import { DebianTree, succeeded } from '../helpers/debian-tree.ts';
import { startLoad } from '../helpers/load.ts';
import { withinLimit } from '../helpers/measured.ts';
import { until } from '../helpers/wait.ts';

// The package's life on two hosts, each a fresh Debian that a real systemd has booted: the tests come after one another.

const LATER = '99.0.0';
let dir: string;
let shipped: string;
let later: string;
let pair: PackagedPair;
let before: readonly string[];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'shipmate-package-'));
  [shipped, pair] = await Promise.all([buildPackage(join(dir, 'dist')), PackagedPair.start()]);
  later = await laterPackage(shipped, LATER);
  before = await paths(pair.hosts[0]!.tree);
}, 600_000);

afterAll(async () => {
  await pair?.stop();
  await rm(dir, { recursive: true, force: true });
}, 60_000);

test('from apt install to a shipped binlog in under a minute', async () => {
  await pair.server.query('CREATE DATABASE shop');
  const [first, second] = pair.hosts;
  const beganMs = performance.now();
  await first!.install(shipped);
  expect(await first!.unit('UnitFileState')).toBe('enabled');
  expect(await first!.unit('ActiveState')).toBe('inactive'); // there is no config yet
  await first!.configure();
  await first!.start();
  await until('a binlog is shipped', async () => (await pair.chunks()) > 0);
  withinLimit('from apt install to a shipped binlog', performance.now() - beganMs, 60_000);

  await second!.install(shipped);
  await second!.configure();
  await second!.start();
  await pair.ready();
  await pair.verify();
}, 180_000);

test('the package has what it needs: every npm package loads, and so do man page and completions', async () => {
  const [host] = pair.hosts;
  const load = `
    import manifest from '/usr/lib/shipmate/package.json' with { type: 'json' };
    for (const name of Object.keys(manifest.dependencies)) await import(name);
    console.log(process.version);`;
  const node = 'cd /usr/lib/shipmate && exec node_modules/.bin/node --input-type=module --eval "$1"';
  expect(await host!.succeed('sh', '-c', node, 'sh', load)).toMatch(/^v24\./);
  await host!.succeed('gzip', '--test', '/usr/share/man/man1/shipmate.1.gz', '/usr/share/doc/shipmate/changelog.gz');
  await host!.succeed('bash', '-n', '/usr/share/bash-completion/completions/shipmate');
  for (const file of ['zsh/vendor-completions/_shipmate', 'fish/vendor_completions.d/shipmate.fish']) {
    await host!.succeed('test', '-s', join('/usr/share', file));
  }
  // The config may hold passwords, and the state does: neither is for everybody. The unit, which runs, closes the state's.
  const modes = await host!.succeed(
    'stat',
    '-c',
    '%A %U:%G',
    '/etc/shipmate',
    '/etc/shipmate/shipmate.yaml',
    '/var/lib/shipmate',
  );
  expect(modes.trim().split('\n')).toEqual([
    'drwxr-x--- root:shipmate',
    '-rw-r----- root:shipmate',
    'drwx------ shipmate:shipmate',
  ]);
}, 60_000);

test('an upgrade under load hands over first, and loses nothing', async () => {
  const { master, standby } = await pair.ready();
  const load = await startLoad(pair.server);
  try {
    await upgrade(master, { twin: standby });
    expect((await pair.ready()).master).toBe(standby);
    await upgrade(standby, { twin: master });
    expect((await pair.ready()).master).toBe(master);
  } finally {
    await load.stop();
  }

  // Two orderly hand-overs: each term was sealed by the one that opened the next, while it ran on.
  expect((await pair.chain.reigns()).map(({ node }) => node)).toEqual(
    [master, standby, master].map(({ node }) => node),
  );
  await pair.verify();
}, 240_000);

test('an upgrade starts nothing that did not run, and touches nothing where policy-rc.d forbids it', async () => {
  const { master, standby } = await pair.ready();
  await standby.succeed('systemctl', 'stop', 'shipmate');
  await standby.install(shipped, '--allow-downgrades');
  expect(await standby.unit('ActiveState')).toBe('inactive');

  const pid = await master.unit('MainPID');
  await writeFile(master.tree.path('/usr/sbin/policy-rc.d'), '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  await master.install(shipped, '--allow-downgrades');
  expect(await master.unit('MainPID')).toBe(pid);
  await rm(master.tree.path('/usr/sbin/policy-rc.d'));
  await standby.start();
  await pair.ready();
}, 120_000);

test('a daemon that hangs misses its watchdog, and is started anew', async () => {
  const { standby } = await pair.ready();
  const dropIn = '/etc/systemd/system/shipmate.service.d/watchdog.conf';
  await writeFile(standby.tree.path(dropIn), '[Service]\nWatchdogSec=5s\n');
  await standby.succeed('systemctl', 'daemon-reload');
  await standby.succeed('systemctl', 'restart', 'shipmate');
  const pid = await standby.unit('MainPID');
  await standby.succeed('systemctl', 'kill', '--kill-whom=main', '--signal=STOP', 'shipmate');
  await until('another daemon runs', async () => {
    return (await standby.unit('MainPID')) !== pid && (await standby.unit('ActiveState')) === 'active';
  });
  expect(await standby.succeed('journalctl', '--unit', 'shipmate')).toMatch(/Watchdog timeout/);
}, 120_000);

test('removed, it leaves config and data; purged, the archive', async () => {
  const [host] = pair.hosts;
  const { tree } = host!;
  await writeFile(tree.path('/var/lib/shipmate/note'), 'of an administrator');
  await host!.succeed('apt-get', 'remove', '-y', 'shipmate');
  const config = ['/etc/shipmate', '/etc/shipmate/shipmate.yaml'];
  const dropIns = ['', '/directory-store.conf', '/mariadb.conf', '/watchdog.conf'];
  const unit = dropIns.map((name) => `/etc/systemd/system/shipmate.service.d${name}`);
  const left = added(before, await paths(tree)).filter((path) => !unit.includes(path));
  expect(left.filter((path) => !path.startsWith('/var/lib/shipmate'))).toEqual(config);
  expect(left).toContain('/var/lib/shipmate/local');
  const chunks = await pair.chunks();

  await host!.succeed('apt-get', 'purge', '-y', 'shipmate');
  const purged = added(before, await paths(tree)).filter((path) => !unit.includes(path));
  expect(purged).toEqual(['/var/lib/shipmate', '/var/lib/shipmate/note']);
  expect(await pair.chunks()).toBeGreaterThanOrEqual(chunks);
}, 120_000);

test('without an init system it is installed, upgraded, removed and purged all the same', async () => {
  const tree = await DebianTree.unpack();
  const apt = async (...args: string[]) => {
    const command = ['apt-get', ...args.slice(0, 1), '-y', ...args.slice(1)];
    return succeeded(command, await tree.run(command, { binds: { '/mnt': dir } }));
  };
  try {
    const fresh = await paths(tree);
    await apt('install', `/mnt/dist/${shipped.split('/').at(-1)}`);
    await apt('install', `/mnt/dist/${later.split('/').at(-1)}`);
    const version = ['shipmate', '--version'];
    expect(succeeded(version, await tree.run(version)).trim()).toBe(LATER);
    const enabled = '/etc/systemd/system/multi-user.target.wants/shipmate.service';
    expect(added(fresh, await paths(tree))).toContain(enabled);
    await apt('purge', 'shipmate');
    expect(added(fresh, await paths(tree))).toEqual([]);
  } finally {
    await tree.remove();
  }
}, 120_000);

/** Upgrades one host, and demands that its twin is never touched. */
async function upgrade(host: PackagedHost, { twin }: { twin: PackagedHost }): Promise<void> {
  const [pid, pidOfTwin] = [await host.unit('MainPID'), await twin.unit('MainPID')];
  await host.install(later);
  expect((await host.succeed('shipmate', '--version')).trim()).toBe(LATER);
  expect(await host.unit('ActiveState')).toBe('active');
  expect(await host.unit('MainPID')).not.toBe(pid);
  expect(await twin.unit('MainPID')).toBe(pidOfTwin);
}

/** All that lies in a tree, but for what the system's own programs write at any time. */
async function paths(tree: DebianTree): Promise<readonly string[]> {
  const command = ['find', '/', '-xdev', '(', ...pruned(), ')', '-prune', '-o', '-print'];
  return succeeded(command, await tree.run(command))
    .trim()
    .split('\n')
    .sort();
}

function pruned(): string[] {
  const own = [
    '/proc',
    '/sys',
    '/dev',
    '/run',
    '/tmp',
    '/var/tmp',
    '/mnt',
    '/var/log',
    '/var/lib/dpkg',
    '/var/cache/apt',
    '/var/lib/apt',
  ];
  const backups = ['/etc/passwd-', '/etc/shadow-', '/etc/group-', '/etc/gshadow-', '/etc/subuid-', '/etc/subgid-'];
  return [...own, ...backups].flatMap((path, at) => [...(at > 0 ? ['-o'] : []), '-path', path]);
}

const added = (from: readonly string[], to: readonly string[]) => {
  const known = new Set(from);
  return to.filter((path) => !known.has(path));
};
