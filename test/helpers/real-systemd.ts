import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { until } from './wait.ts';

const run = promisify(execFile);
const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const BOOT = join(ROOT, 'test', 'helpers', 'boot-systemd.sh');
const NAMESPACES = ['--mount', '--pid', '--fork', '--uts', '--ipc', '--cgroup', '--net', '--kill-child'];

/** Why no systemd can be booted here, for the report of a test that is skipped; null where one can. */
export const noSystemd = whyNot();

function whyNot(): string | null {
  if (process.getuid?.() !== 0) return 'only root may boot a systemd';
  if (!existsSync('/usr/lib/systemd/systemd')) return 'systemd is not installed';
  const trial =
    'mount --make-rprivate / && mount -t tmpfs none /mnt && mkdir /mnt/a /mnt/b && mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/a,workdir=/mnt/b /etc';
  const { status, stderr } = spawnSync('unshare', [...NAMESPACES, 'sh', '-c', trial], { encoding: 'utf8' });
  return status === 0 ? null : `namespaces are not allowed here: ${stderr.trim()}`;
}

/** A systemd of a test's own, with the units of deploy/systemd. */
export class RealSystemd {
  readonly #child: ChildProcess;
  readonly #pid: number;

  private constructor(child: ChildProcess, pid: number) {
    this.#child = child;
    this.#pid = pid;
  }

  /** `folder`: as boot-systemd.sh wants it. */
  static async boot(folder: string): Promise<RealSystemd> {
    const args = ['--pdeathsig', 'KILL', '--', 'unshare', ...NAMESPACES, 'sh', BOOT, ROOT, folder];
    const child = spawn('setpriv', args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    child.stderr.setEncoding('utf8').on('data', (text) => {
      said += text;
    });
    const pid = await until('systemd runs', () => pidOfInit(child.pid!), { describe: () => said });
    return new RealSystemd(child, pid);
  }

  /** What a command prints that is carried out beside it; throws where it fails. */
  async run(...command: string[]): Promise<string> {
    return (await run('nsenter', [`--target=${this.#pid}`, '-m', '-p', '-n', '-u', '-i', '--', ...command])).stdout;
  }

  /** A property of shipmate.service. */
  async show(property: string): Promise<string> {
    return (await this.run('systemctl', 'show', 'shipmate', '--property', property, '--value')).trim();
  }

  async shows(property: string, pattern: RegExp): Promise<string> {
    let shown = '';
    return until(
      `${property} is ${pattern}`,
      async () => {
        shown = await this.show(property);
        return pattern.test(shown) && shown;
      },
      { withinMs: 120_000, everyMs: 250, describe: () => `it is ${shown}` },
    );
  }

  /** The unit's journal. */
  journal(...options: string[]): Promise<string> {
    return this.run('journalctl', '--unit=shipmate', '--no-pager', '--output=cat', ...options);
  }

  /** A file as it sees it. */
  path(path: string): string {
    return `/proc/${this.#pid}/root${path}`;
  }

  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill('SIGKILL'); // and with it, by --kill-child, all that lives in its namespaces
    await once(this.#child, 'exit');
  }
}

/** unshare's child, once it has become systemd. */
function pidOfInit(unshare: number): number | null {
  const pid = Number(readFileSync(`/proc/${unshare}/task/${unshare}/children`, 'utf8').trim());
  if (!pid) return null;
  return readFileSync(`/proc/${pid}/comm`, 'utf8').trim() === 'systemd' ? pid : null;
}
