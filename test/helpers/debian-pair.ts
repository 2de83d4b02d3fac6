import { execFile } from 'node:child_process';
import { chmod, chown, copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { stringify } from 'yaml';
import type { StatusReport, StreamStatus } from '../../src/core/status.ts';
import { messageOf } from '../../src/errors.ts';
import { ChainReader, differences, readBinlogs } from './archive.ts';
import { type DebianHost, DebianTree } from './debian-tree.ts';
import { type Etcd, startEtcd } from './etcd.ts';
import { type Mariadb, startMariadb } from './mariadb.ts';
import { freePort } from './ports.ts';
import { until } from './wait.ts';

const run = promisify(execFile);
const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const STREAM = 'orders';
/** Of the group that may read the binlogs, in the trees and outside. */
const MYSQL_GID = 2_000;
/** So long that nothing but an orderly hand-over brings a twin to lead within a test. */
const TTL = '2m';

/** Where Debian's MariaDB has its binlogs, and where the store is mounted. */
const BINLOGS = '/var/lib/mysql';
const STORE = '/mnt/backup';

/** Builds the package, uncompressed, in `dir`; the path of the file. */
export async function buildPackage(dir: string): Promise<string> {
  const env = { ...process.env, DPKG_DEB_COMPRESSOR_TYPE: 'none' };
  await run(join(ROOT, 'scripts', 'package-deb'), [dir], { env, maxBuffer: 10_000_000 });
  const [file] = (await readdir(dir)).filter((name) => name.endsWith('.deb'));
  return join(dir, file ?? 'none was built');
}

/** The same package as a later version. */
export async function laterPackage(file: string, version: string): Promise<string> {
  const parts = await mkdtemp(join(dirname(file), 'parts-'));
  await run('dpkg-deb', ['--raw-extract', file, parts]);
  const control = join(parts, 'DEBIAN', 'control');
  await writeFile(control, (await readFile(control, 'utf8')).replace(/^Version: .*$/m, `Version: ${version}`));
  const manifest = join(parts, 'usr', 'lib', 'shipmate', 'package.json');
  await writeFile(manifest, JSON.stringify({ ...JSON.parse(await readFile(manifest, 'utf8')), version }));
  const later = join(dirname(file), `shipmate_${version}.deb`);
  await run('dpkg-deb', ['-Znone', '--root-owner-group', '--build', parts, later]);
  await rm(parts, { recursive: true });
  return later;
}

/** One host with a fresh Debian that has booted, beside a MariaDB, with a store mounted. */
export class PackagedHost {
  readonly node: string;
  readonly tree: DebianTree;
  readonly host: DebianHost;
  readonly #url: string;
  readonly #config: string;

  constructor(options: { node: string; tree: DebianTree; host: DebianHost; port: number; config: object }) {
    this.node = options.node;
    this.tree = options.tree;
    this.host = options.host;
    this.#url = `http://127.0.0.1:${options.port}`;
    this.#config = stringify(options.config);
  }

  succeed(...command: string[]): Promise<string> {
    return this.host.succeed(...command);
  }

  /** `apt-get install ./FILE`. */
  async install(file: string, ...options: string[]): Promise<string> {
    await copyFile(file, this.tree.path('/tmp/shipmate.deb'));
    return this.succeed('apt-get', 'install', '-y', ...options, '/tmp/shipmate.deb');
  }

  /** What docs/debian.md tells to do after that. */
  async configure(): Promise<void> {
    await writeFile(this.tree.path('/tmp/shipmate.yaml'), this.#config);
    await this.succeed('install', '-g', 'shipmate', '-m', '640', '/tmp/shipmate.yaml', '/etc/shipmate/shipmate.yaml');
    const dropIns = '/usr/share/doc/shipmate/examples/drop-ins';
    const unit = '/etc/systemd/system/shipmate.service.d';
    await this.succeed(
      'install',
      '-D',
      '-m',
      '644',
      '-t',
      unit,
      `${dropIns}/mariadb.conf`,
      `${dropIns}/directory-store.conf`,
    );
    await this.succeed('chown', 'shipmate:', STORE);
    await this.succeed('systemctl', 'daemon-reload');
  }

  async start(): Promise<void> {
    const { code, stderr } = await this.host.run(['systemctl', 'start', 'shipmate']);
    if (code !== 0) throw new Error(`${stderr}${await this.tail()}`);
  }

  /** A property of its unit, as `systemctl show` prints it. */
  async unit(property: string): Promise<string> {
    return (await this.succeed('systemctl', 'show', '--value', '--property', property, 'shipmate.service')).trim();
  }

  /** The stream as this daemon tells it over HTTP. */
  async told(): Promise<StreamStatus> {
    const response = await fetch(`${this.#url}/api/v1/status`, { signal: AbortSignal.timeout(5_000) });
    const report: StatusReport = JSON.parse(await response.text());
    const stream = report.streams.find(({ name }) => name === STREAM);
    if (!stream) throw new Error(`${this.node} tells of no stream ${STREAM}`);
    return stream;
  }

  /** Its journal's end, for the report of a failure. */
  async tail(): Promise<string> {
    const { stdout } = await this.host.run([
      'journalctl',
      '--no-pager',
      '--lines',
      '40',
      '--output',
      'cat',
      '--unit',
      'shipmate',
    ]);
    return `the journal of ${this.node}:\n${stdout}`;
  }
}

/** Two hosts, with a MariaDB, an etcd and a store that both reach. */
export class PackagedPair {
  readonly hosts: readonly PackagedHost[];
  readonly server: Mariadb;
  readonly chain: ChainReader;
  readonly #dir: string;
  readonly #etcd: Etcd;

  private constructor(parts: { dir: string; server: Mariadb; etcd: Etcd; hosts: readonly PackagedHost[] }) {
    this.#dir = parts.dir;
    this.#etcd = parts.etcd;
    this.server = parts.server;
    this.hosts = parts.hosts;
    this.chain = new ChainReader({ root: join(parts.dir, 'store'), stream: STREAM });
  }

  /** Boots them; nothing of Shipmate is installed. */
  static async start(): Promise<PackagedPair> {
    const dir = await mkdtemp(join(tmpdir(), 'shipmate-debian-pair-'));
    const store = join(dir, 'store');
    await mkdir(store);
    const [etcd, server] = await Promise.all([startEtcd(), startMariadb({ args: ['--max-binlog-size=1M'] })]);
    await readableForGroup(server.dataDir);
    const hosts: PackagedHost[] = [];
    for (const node of ['db-1', 'db-2']) {
      const tree = await DebianTree.unpack();
      await tree.run(['groupadd', '--system', '--gid', String(MYSQL_GID), 'mysql']);
      const host = await tree.boot({ binds: { [BINLOGS]: server.dataDir, [STORE]: store } });
      const port = await freePort();
      hosts.push(new PackagedHost({ node, tree, host, port, config: configOf({ node, etcd, server, port }) }));
    }
    return new PackagedPair({ dir, server, etcd, hosts });
  }

  async stop(): Promise<void> {
    for (const { host, tree } of this.hosts) {
      await host.halt();
      await tree.remove();
    }
    await Promise.all([this.server.stop(), this.#etcd.stop()]);
    await rm(this.#dir, { recursive: true });
  }

  /** Waits until one host leads and the other could take over at once. */
  async ready(): Promise<{ master: PackagedHost; standby: PackagedHost }> {
    const told = await until(
      'one host leads, and the other is ready',
      async () => {
        const stream = await Promise.any(this.hosts.map((host) => host.told()));
        return (
          stream.master !== null && stream.twins.length === 2 && stream.twins.every(({ ready }) => ready) && stream
        );
      },
      { everyMs: 100 },
    ).catch(async (error: unknown) => {
      const tails = await Promise.all(this.hosts.map((host) => host.tail()));
      throw new Error([messageOf(error), ...tails].join('\n'));
    });
    const master = this.hosts.find(({ node }) => node === told.master);
    const standby = this.hosts.find(({ node }) => node !== told.master);
    if (!master || !standby) throw new Error(`${told.master} leads, which is none of these hosts`);
    return { master, standby };
  }

  /** How many chunks are in the chain. */
  async chunks(): Promise<number> {
    return (await this.chain.read()).filter(({ header }) => header.kind === 'chunk').length;
  }

  /** Waits until all that the server wrote is shipped; then the packaged program restores it, and every byte is compared. */
  async verify(): Promise<void> {
    await until('the archive reaches the end of the binlog', async () => {
      const [end] = await this.server.query('SHOW MASTER STATUS');
      const reached = await this.chain.end();
      return `${reached?.segment}:${reached?.offset}` === `${end?.File}:${end?.Position}`;
    });
    const host = this.hosts[0]!;
    await host.succeed('shipmate', 'verify', STREAM, '--deep');
    await host.succeed('shipmate', 'restore', STREAM, '--to', '/srv/restored');
    const restored = host.tree.path('/srv/restored');
    const wrong = differences(await readBinlogs(this.server.dataDir), await readBinlogs(restored));
    await rm(restored, { recursive: true });
    if (wrong.length > 0) throw new Error(`what was restored differs:\n${wrong.join('\n')}`);
  }
}

/** As on a Debian host: the group mysql may read the binlogs, those too that are yet to come. */
async function readableForGroup(dataDir: string): Promise<void> {
  for (const name of ['.', ...(await readdir(dataDir)).filter((file) => file.startsWith('binlog.'))]) {
    await chown(join(dataDir, name), 0, MYSQL_GID);
  }
  await chmod(dataDir, 0o2750);
}

function configOf(options: { node: string; etcd: Etcd; server: Mariadb; port: number }): object {
  const { node, etcd, server, port } = options;
  return {
    node,
    cluster: 'acme',
    coordination: { etcd: { endpoints: etcd.endpoints, ttl: TTL } },
    stores: { main: { type: 'file', path: STORE } },
    streams: { [STREAM]: { source: { type: 'mariadb', dir: BINLOGS, url: server.url }, store: 'main' } },
    admin: { listen: `127.0.0.1:${port}` },
  };
}
