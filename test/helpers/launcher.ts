import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, copyFile, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** An installation with a Node of a test's own: it counts how often it is started. */
export class Installation {
  readonly shipmate: string;
  readonly #starts: string;

  private constructor(dir: string) {
    this.shipmate = join(dir, 'bin', 'shipmate');
    this.#starts = join(dir, 'starts');
  }

  /** `node`: lines of a shell script, told the arguments; by default they start the real one, of the checkout in `root`. */
  static async in(dir: string, { node, root = ROOT }: { node?: string; root?: string } = {}): Promise<Installation> {
    const installation = new Installation(dir);
    await mkdir(join(dir, 'bin'), { recursive: true });
    await mkdir(join(dir, 'node_modules', '.bin'), { recursive: true });
    await copyFile(join(root, 'bin', 'shipmate'), installation.shipmate);
    await symlink(join(root, 'src'), join(dir, 'src'));
    await writeFile(installation.#starts, '');
    await chmod(installation.#starts, 0o666); // also for a server's user
    const real = `exec ${join(root, 'node_modules', '.bin', 'node')} "$@"`;
    const script = [
      '#!/bin/sh',
      '[ "$1" = --version ] && echo v24.99.0 && exit',
      `echo x >>${installation.#starts}`,
      node ?? real,
    ];
    await writeFile(join(dir, 'node_modules', '.bin', 'node'), `${script.join('\n')}\n`, { mode: 0o755 });
    return installation;
  }

  async starts(): Promise<number> {
    return (await readFile(this.#starts, 'utf8')).length / 2;
  }

  /** In a session of its own, as a server's recovery is: what reads ahead for it ends with it. */
  async run(script: string, env: Readonly<Record<string, string>> = {}): Promise<{ code: number; stderr: string }> {
    const child = spawn('setsid', ['-w', 'sh', '-c', script], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, SHIPMATE: this.shipmate, ...env },
    });
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text) => {
      stderr += text;
    });
    const [code] = await once(child, 'close');
    return { code: typeof code === 'number' ? code : -1, stderr };
  }
}
