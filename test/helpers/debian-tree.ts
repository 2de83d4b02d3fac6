import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { until } from './wait.ts';

const run = promisify(execFile);

const RELEASE = 'bookworm';
/** Beyond the base system: a Debian that boots. */
const INCLUDE = 'systemd';
const MAKE_WITHIN_MS = 600_000;

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Directories of this machine by where the tree sees them. */
  readonly binds?: Readonly<Record<string, string>>;
  /** Nothing can be written but what is bound, and /tmp, which is new and in memory. */
  readonly readOnly?: boolean;
}

/**
 * A fresh Debian in a folder of its own. What runs in it has its own processes and mounts, which end with the process that
 * began them, however the test ends; the network is this machine's.
 */
export class DebianTree {
  readonly root: string;

  private constructor(root: string) {
    this.root = root;
  }

  /** The first one on a machine takes a minute or two; it is kept as a tarball in the temporary folder. */
  static async unpack(): Promise<DebianTree> {
    const tarball = await bareTree();
    const root = await mkdtemp(join(tmpdir(), 'shipmate-debian-'));
    await run('tar', ['-xf', tarball, '-C', root]);
    // No tree outlives a loss of power anyway.
    await writeFile(join(root, 'etc', 'dpkg', 'dpkg.cfg.d', 'unsafe-io'), 'force-unsafe-io\n');
    return new DebianTree(root);
  }

  /** A path in the tree as this machine sees it. */
  path(path: string): string {
    return join(this.root, path);
  }

  /** Carries out a program in the tree, without an init system. */
  async run(command: readonly string[], options: RunOptions = {}): Promise<Ran> {
    return outcome(this.spawn(command, options));
  }

  /** The same, for what goes on running as the first of its processes: SIGKILL ends it, and all that it began. */
  spawn(command: readonly string[], { env = {}, binds = {}, readOnly = false }: RunOptions = {}): ChildProcess {
    return begin(ENTER, [this.root, bindList(binds), readOnly ? 'ro' : 'rw', ...withEnvironment(env), ...command]);
  }

  /** Boots it: a real systemd becomes its first process. Ends with this process, or by `halt`. */
  async boot({ binds = {} }: Pick<RunOptions, 'binds'> = {}): Promise<DebianHost> {
    const group = `shipmate-test-${process.pid}-${this.root.slice(-6)}`;
    const child = begin(BOOT, [this.root, bindList(binds), group]);
    return DebianHost.of(child, group);
  }

  async remove(): Promise<void> {
    await rm(this.root, { recursive: true, force: true });
  }
}

/** A tree that was booted: `run` is what an administrator types there. */
export class DebianHost {
  readonly #child: ChildProcess;
  readonly #group: string;
  readonly #init: number;

  private constructor({ child, group, init }: { child: ChildProcess; group: string; init: number }) {
    this.#child = child;
    this.#group = group;
    this.#init = init;
  }

  /** `group`: the name of its control group. */
  static async of(child: ChildProcess, group: string): Promise<DebianHost> {
    const said: string[] = [];
    for (const output of [child.stdout, child.stderr])
      output?.setEncoding('utf8').on('data', (text) => said.push(text));
    const describe = () => said.join('');
    try {
      const init = await until('systemd is the first process of the tree', () => firstProcessOf(child, 'systemd'), {
        describe,
      });
      const host = new DebianHost({ child, group, init });
      const booted = async () => (await host.run(['systemctl', 'is-system-running'])).stdout;
      const options = { everyMs: 100, describe };
      await until('the tree has booted', async () => /^(running|degraded)/.test(await booted()), options);
      return host;
    } catch (error) {
      child.kill('SIGKILL');
      throw error;
    }
  }

  run(command: readonly string[]): Promise<Ran> {
    return runBeside(this.#init, command);
  }

  /** A command that must succeed; what it printed. */
  async succeed(...command: string[]): Promise<string> {
    return succeeded(command, await this.run(command));
  }

  /** The power fails. */
  async halt(): Promise<void> {
    const gone = once(this.#child, 'exit');
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill('SIGKILL');
    await gone;
    await run('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', REMOVE_GROUP, 'sh', this.#group]);
  }
}

/** The first process of what `spawn` or a boot began, seen from here, once it is the program `name`. */
export function firstProcessOf({ pid }: ChildProcess, name: string): Promise<number | null> {
  return pid === undefined ? Promise.resolve(null) : descendant(pid, name);
}

async function descendant(pid: number, name: string): Promise<number | null> {
  const children = (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).trim();
  for (const child of children === '' ? [] : children.split(' ').map(Number)) {
    const found = (await isFirst(child, name)) ? child : await descendant(child, name);
    if (found !== null) return found;
  }
  return null;
}

/** Not one that the first process runs for a moment before it becomes `name` itself. */
async function isFirst(pid: number, name: string): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return basename(await readlink(`/proc/${pid}/exe`)) === name && /^NSpid:.*\t1$/m.test(status);
}

/** Carries out a program where process `pid` is. */
export function runBeside(
  pid: number,
  command: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Ran> {
  const namespaces = ['--mount', '--pid', '--cgroup', '--ipc', '--uts', '--root', '--wd'];
  const args = ['--target', String(pid), ...namespaces, '--', ...withEnvironment(env), ...command];
  return outcome(spawn('nsenter', args, { stdio: ['ignore', 'pipe', 'pipe'] }));
}

/** What it printed; throws where it failed. */
export function succeeded(command: readonly string[], { code, stdout, stderr }: Ran): string {
  if (code !== 0) throw new Error(`${command.join(' ')}: exit ${code}\n${stdout}${stderr}`);
  return stdout;
}

const ENVIRONMENT = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  HOME: '/root',
  LC_ALL: 'C.UTF-8',
  DEBIAN_FRONTEND: 'noninteractive',
};

const withEnvironment = (more: Readonly<Record<string, string>> = {}) => [
  ...['env', '-i'],
  ...Object.entries({ ...ENVIRONMENT, ...more }).map(([name, value]) => `${name}=${value}`),
];

// $1: the tree, $2: lines of FROM:TO. What is mounted is seen by this process and its children alone.
const MOUNT = `
set -e
tree=$1 binds=$2; shift 2
mount --bind "$tree" "$tree"
printf '%s' "$binds" | while IFS=: read -r from to; do
  mkdir -p "$tree$to"
  mount --bind "$from" "$tree$to"
done`;

const ENTER = `${MOUNT}
mode=$1; shift
if [ "$mode" = ro ]; then
  mount -t tmpfs -o mode=1777 tmpfs "$tree/tmp"
  mount -o remount,bind,ro "$tree"
fi
exec unshare --pid --fork --kill-child sh -ec '
  tree=$1; shift
  mount -t proc proc "$tree/proc"
  exec chroot "$tree" "$@"
' enter "$tree" "$@"`;

// In a control group of its own: systemd takes what it sees for the whole machine. And not by chroot, in which nobody may make
// the user namespaces of PrivateUsers.
const BOOT = `${MOUNT}
rm -f "$tree/dev/console" # its login prompt would come up on the console of this machine
mount --bind "$tree/dev" "$tree/dev"
mount -t tmpfs -o mode=755 tmpfs "$tree/run"
mount -t tmpfs -o mode=755 tmpfs "$tree/sys"
groups=$tree/sys/fs/cgroup
mkdir -p "$groups"
mount -t cgroup2 cgroup2 "$groups"
mkdir "$groups/$1"
echo $$ >"$groups/$1/cgroup.procs"
umount "$groups"
exec unshare --cgroup --pid --ipc --uts --fork --kill-child sh -ec '
  mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup"
  mount -t proc proc "$1/proc"
  cd "$1"
  mkdir .host
  pivot_root . .host
  umount -l /.host
  rmdir /.host
  exec env -i container=other /lib/systemd/systemd --system
' boot "$tree"`;

// The kernel may still be about to notice that the processes are gone.
const REMOVE_GROUP = `
mount -t cgroup2 cgroup2 /mnt
for look in $(seq 100); do
  find "/mnt/$1" -depth -type d -exec rmdir {} + 2>/dev/null && break
  sleep 0.1
done`;

function begin(script: string, args: readonly string[]): ChildProcess {
  // Ends with the test that started it, however that ends: the signal that a process gets when its parent dies is lost where it
  // changes its user, so that what runs inside is held by a first process that stays root.
  const own = ['--mount', '--propagation', 'private', '--pid', '--fork', '--kill-child'];
  const program = ['--pdeathsig', 'KILL', '--', 'unshare', ...own];
  return spawn('setpriv', [...program, '--', 'sh', '-c', script, 'sh', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
}

const bindList = (binds: Readonly<Record<string, string>>) =>
  Object.entries(binds)
    .map(([to, from]) => `${from}:${to}\n`)
    .join('');

async function outcome(child: ChildProcess): Promise<Ran> {
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (text) => {
    stdout += text;
  });
  child.stderr?.setEncoding('utf8').on('data', (text) => {
    stderr += text;
  });
  const [code] = await once(child, 'close');
  return { code: typeof code === 'number' ? code : -1, stdout, stderr };
}

/** Throws, saying what is missing, where no tree can be made. */
function demandMeans(): void {
  if (process.getuid?.() !== 0)
    throw new Error('these tests must be root: they make Debian trees, and mount what those need');
  if (spawnSync('sh', ['-c', 'PATH=$PATH:/usr/sbin command -v debootstrap']).status === 0) return;
  throw new Error('debootstrap is missing: scripts/setup installs it');
}

async function bareTree(): Promise<string> {
  demandMeans();
  const name = `shipmate-debian-${RELEASE}-${process.arch}`;
  const tarball = join(tmpdir(), `${name}.tar`);
  // Tests that run beside each other make it once; in memory, where each package's flushes to the disk cost nothing.
  const script = `
set -e
[ ! -e "$1" ] || exit 0
new=$(mktemp -d "$1.XXXXXX")
trap 'umount "$new"; rm -rf "$new" "$1.part"' EXIT
mount -t tmpfs -o mode=755 tmpfs "$new"
debootstrap --variant=minbase --include=${INCLUDE} ${RELEASE} "$new/tree" "$2" >&2
rm -rf "$new/tree/var/cache/apt/archives"/*.deb
tar -cf "$1.part" -C "$new/tree" .
mv "$1.part" "$1"`;
  const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
  const alone = [join(tmpdir(), `${name}.lock`), 'unshare', '--mount', '--propagation', 'private'];
  await run('flock', [...alone, 'sh', '-c', script, 'sh', tarball, await mirror()], {
    env,
    timeout: MAKE_WITHIN_MS,
    maxBuffer: 10_000_000,
  });
  return tarball;
}

/** Where this machine gets its own Debian packages from. */
async function mirror(): Promise<string> {
  const { stdout } = await run('apt-get', ['indextargets', '--format', '$(REPO_URI) $(RELEASE) $(COMPONENT)']);
  const found = stdout.split('\n').find((line) => line.endsWith(` ${RELEASE} main`));
  if (!found) throw new Error(`this machine's apt knows no mirror of Debian ${RELEASE}: none of these\n${stdout}`);
  return found.split(' ')[0] ?? '';
}
