import { execFile, spawn } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { freePorts } from './ports.ts';
import { until } from './wait.ts';

const run = promisify(execFile);

/** Why there is none, for the report of a test that is skipped; null where there is. */
export const noRadosgw = ['radosgw', 'ceph-mon', 'ceph-osd', 'ceph'].every((name) => existsSync(`/usr/bin/${name}`))
  ? null
  : 'radosgw is not here (scripts/setup installs it on Debian)';

export interface S3Account {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

/** A real S3 server in a temporary folder: Ceph's, with one monitor and one store in memory. */
export interface Radosgw {
  /** For `endpoint`, with `forcePathStyle`. */
  readonly url: string;
  readonly account: S3Account;
  /** Makes an empty bucket of the account, and returns its name. */
  newBucket(): Promise<string>;
  /** Another account, which may do nothing yet. */
  addAccount(name: string): Promise<S3Account>;
  stop(): Promise<void>;
}

export async function startRadosgw(): Promise<Radosgw> {
  const dir = await mkdtemp(join(tmpdir(), 'shipmate-rgw-'));
  const cluster = new Cluster(dir);
  try {
    return await cluster.start();
  } catch (error) {
    await cluster.stop();
    throw error;
  }
}

class Cluster {
  readonly #dir: string;
  readonly #running: { kill(): boolean; gone: Promise<unknown> }[] = [];

  constructor(dir: string) {
    this.#dir = dir;
  }

  async start(): Promise<Radosgw> {
    const [monitor = 0, gateway = 0] = await freePorts(2);
    const disk = randomUUID();
    await this.#configure({ monitor, gateway });
    await this.#makeKeys();
    await this.#ceph('ceph-mon', '--mkfs', '-i', 'a', '--monmap', this.#at('monmap'), '--keyring', this.#at('keyring'));
    this.#spawn('ceph-mon', '-i', 'a');
    // Waits until the monitor answers.
    await this.#ceph('ceph', 'osd', 'new', disk, '0');
    await this.#ceph('ceph-osd', '-i', '0', '--mkfs', '--osd-uuid', disk, '--no-mon-config');
    this.#spawn('ceph-osd', '-i', '0');
    this.#spawn('radosgw', '-n', 'client.admin');
    const account = await this.#addAccount('shipmate');
    const url = `http://127.0.0.1:${gateway}`;
    await until('radosgw answers', async () => (await fetch(url)).ok, {
      withinMs: 60_000,
      describe: () => `see ${this.#dir}`,
    });
    const client = new S3Client({ endpoint: url, region: 'us-east-1', forcePathStyle: true, credentials: account });
    let buckets = 0;
    return {
      url,
      account,
      async newBucket() {
        const Bucket = `archive-${buckets++}`;
        await client.send(new CreateBucketCommand({ Bucket }));
        return Bucket;
      },
      addAccount: (name) => this.#addAccount(name),
      stop: () => this.stop(),
    };
  }

  async stop(): Promise<void> {
    for (const child of this.#running.reverse()) child.kill();
    await Promise.all(this.#running.map(({ gone }) => gone));
    await rm(this.#dir, { recursive: true, force: true });
  }

  #at(name: string): string {
    return join(this.#dir, name);
  }

  async #configure({ monitor, gateway }: { monitor: number; gateway: number }): Promise<void> {
    const fsid = randomUUID();
    const address = `v2:127.0.0.1:${monitor}`;
    const settings = {
      fsid,
      'mon host': `[${address}]`,
      'mon initial members': 'a',
      'mon data': this.#at('mon'),
      'osd data': this.#at('osd'),
      'osd objectstore': 'memstore',
      'memstore device bytes': 1 << 30,
      'osd pool default size': 1,
      'osd pool default min size': 1,
      'osd pool default pg num': 1,
      'osd pool default pg autoscale mode': 'off',
      'mon allow pool size one': true,
      'mon max pg per osd': 1_000,
      // Every pool is a proposal, and each waits for others by default for a second.
      'paxos propose interval': 0.02,
      'paxos min wait': 0.01,
      'osd crush chooseleaf type': 0,
      'rgw rados pool pg num min': 1,
      'rgw frontends': `beast endpoint=127.0.0.1:${gateway}`,
      'rgw data': this.#at('rgw'),
      'rgw enable usage log': false,
      'rgw run sync thread': false,
      keyring: this.#at('keyring'),
      'run dir': this.#dir,
      'admin socket': '',
      'log file': this.#at('$name.log'),
      'mon cluster log file': this.#at('cluster.log'),
      'pid file': '',
    };
    const lines = Object.entries(settings).map(([key, value]) => `${key} = ${value}\n`);
    await writeFile(this.#at('ceph.conf'), `[global]\n${lines.join('')}`);
    for (const name of ['mon', 'osd', 'rgw']) await mkdir(this.#at(name));
    const map = ['--create', '--fsid', fsid, '--addv', 'a', `[${address}]`, this.#at('monmap')];
    await run('monmaptool', map);
  }

  /** One keyring for all of them: the monitor takes every key in it for its own list. */
  async #makeKeys(): Promise<void> {
    const all = ['--cap', 'mon', 'allow *', '--cap', 'osd', 'allow *', '--cap', 'mgr', 'allow *'];
    for (const [at, name] of ['mon.', 'client.admin', 'osd.0'].entries()) {
      const create = at === 0 ? ['--create-keyring'] : [];
      await run('ceph-authtool', [this.#at('keyring'), ...create, '--gen-key', '-n', name, ...all]);
    }
  }

  async #ceph(program: string, ...args: string[]): Promise<string> {
    const { stdout } = await run(program, ['-c', this.#at('ceph.conf'), ...args], { timeout: 60_000 });
    return stdout;
  }

  #spawn(program: string, ...args: string[]): void {
    // Ends with the test that started it, however that ends.
    const all = ['--pdeathsig', 'KILL', '--', program, '-f', '-c', this.#at('ceph.conf'), ...args];
    const child = spawn('setpriv', all, { stdio: 'ignore' });
    this.#running.push({ kill: () => child.kill('SIGKILL'), gone: once(child, 'exit') });
  }

  async #addAccount(name: string): Promise<S3Account> {
    const secretAccessKey = createHash('sha256').update(name).digest('hex');
    const keys = ['--access-key', name, '--secret-key', secretAccessKey];
    await this.#ceph('radosgw-admin', 'user', 'create', '--uid', name, '--display-name', name, ...keys);
    return { accessKeyId: name, secretAccessKey };
  }
}
