import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { until } from './wait.ts';

const run = promisify(execFile);

/** A real Redis 7 with append-only files, on a socket in a temporary folder. */
export class Redis {
  /** Holds the manifest, the base and the increments. */
  readonly aofDir: string;
  readonly #folder: string;
  readonly #socket: string;
  #process: ChildProcess | null = null;

  private constructor({ folder, aofDir }: { folder: string; aofDir: string }) {
    this.#folder = folder;
    this.aofDir = aofDir;
    this.#socket = join(folder, 'redis.sock');
  }

  /** `on`: append-only files to start with, left in place at the end; by default none. */
  static async start({ on }: { on?: string } = {}): Promise<Redis> {
    const folder = await mkdtemp(join(tmpdir(), 'shipmate-redis-'));
    const redis = new Redis({ folder, aofDir: on ?? join(folder, 'appendonlydir') });
    try {
      await redis.#spawn();
    } catch (error) {
      await redis.stop();
      throw error;
    }
    return redis;
  }

  async #spawn(): Promise<void> {
    const settings = [
      ...['--port', '0', '--unixsocket', this.#socket, '--dir', dirname(this.aofDir), '--save', ''],
      ...['--appendonly', 'yes', '--appenddirname', this.aofDir.split('/').at(-1)!, '--aof-timestamp-enabled', 'yes'],
      ...['--auto-aof-rewrite-percentage', '0', '--enable-debug-command', 'local', '--appendfsync', 'everysec'],
    ];
    // Ends with the test that started it, however that ends.
    const program = ['--pdeathsig', 'KILL', '--', 'redis-server', ...settings];
    const child = spawn('setpriv', program, { stdio: ['ignore', 'pipe', 'ignore'] });
    this.#process = child;
    let said = '';
    child.stdout.setEncoding('utf8').on('data', (text) => {
      said += text;
    });
    await until('Redis answers', async () => (await this.command('PING')) === 'PONG', {
      withinMs: 20_000,
      describe: () => said,
    });
  }

  async command(...words: string[]): Promise<string> {
    return (await run('redis-cli', ['-s', this.#socket, ...words])).stdout.trim();
  }

  /** A digest of all keys and values. */
  digest(): Promise<string> {
    return this.command('DEBUG', 'DIGEST');
  }

  /** BGREWRITEAOF, and waits until the files of before are gone. */
  async rewrite(): Promise<void> {
    const before = (await this.files()).find((name) => name.includes('.base.'));
    await this.command('BGREWRITEAOF');
    await until('the append-only file is rewritten', async () => {
      const names = await this.files();
      return !names.includes(before ?? '') && names.filter((name) => name.includes('.incr.')).length === 1;
    });
  }

  async files(): Promise<string[]> {
    return (await readdir(this.aofDir)).filter((name) => name.endsWith('.aof') || name.endsWith('.rdb'));
  }

  /** The end of the newest increment as a log ID. Nothing must write meanwhile. */
  async end(): Promise<string> {
    const increments = (await this.files()).filter((name) => name.includes('.incr.'));
    const newest = increments.sort((a, b) => a.length - b.length || (a < b ? -1 : 1)).at(-1)!;
    return `${newest}:${(await stat(join(this.aofDir, newest))).size}`;
  }

  /** Writes of several kinds until it is stopped. */
  load(): RedisLoad {
    const client = spawn('redis-cli', ['-s', this.#socket], { stdio: ['pipe', 'ignore', 'ignore'] });
    let count = 0;
    const batch = () => {
      let text = '';
      for (let i = 0; i < 40; i++, count++) {
        text += `INCR counter\nSET key:${count % 5_000} ${'v'.repeat(count % 300)}${count}\n`;
        text += `MULTI\nRPUSH list ${count}\nHSET hash:${count % 50} field${count % 7} ${count}\nEXEC\n`;
      }
      client.stdin.write(text);
    };
    const timer = setInterval(batch, 10);
    return {
      written: () => count,
      async stop() {
        clearInterval(timer);
        client.stdin.end();
        if (client.exitCode === null) await once(client, 'exit');
      },
    };
  }

  async stop(): Promise<void> {
    const child = this.#process;
    if (child && child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    await rm(this.#folder, { recursive: true, force: true });
  }
}

export interface RedisLoad {
  written(): number;
  /** Resolves once all is written. */
  stop(): Promise<void>;
}
