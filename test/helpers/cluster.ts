import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { differences, readBinlogs } from './archive.ts';
import { type Daemon, type DaemonOptions, prepareDaemon } from './daemon.ts';
import { type EtcdOptions, startEtcd } from './etcd.ts';
import { type Load, type LoadOptions, startLoad } from './load.ts';
import { type Mariadb, startMariadb } from './mariadb.ts';
import { STREAM, startProxies, Twins, type TwinsParts } from './twins.ts';
import { until, type WaitOptions } from './wait.ts';

const run = promisify(execFile);

export { STREAM, TTL_MS } from './twins.ts';

export interface ClusterOptions {
  readonly etcdNodes?: 1 | 3;
  /** More of etcd's; the daemons go by it. */
  readonly etcd?: Pick<EtcdOptions, 'tls' | 'tlsDays'>;
  /** Puts a proxy between each daemon and each etcd node, so that `link` can cut them. */
  readonly proxied?: boolean;
  /** Starts the daemons so that `faults` rules their stores. */
  readonly faulty?: boolean;
  readonly nodes?: readonly string[];
  readonly mariadbArgs?: readonly string[];
  /** More of the daemons' config. */
  readonly daemon?: Partial<
    Pick<
      DaemonOptions,
      'cluster' | 'ttl' | 'onEtcdLoss' | 'chunk' | 'limits' | 'copies' | 'delay' | 'ack' | 'recipients'
    >
  >;
  /** Another store than a directory of the cluster's own; its objects must be in files below `storePath`. */
  readonly store?: Required<Pick<DaemonOptions, 'store' | 'storePath'>>;
}

const MARIADB_ARGS = [
  // Binlogs that rotate while a test looks on, and speed: nothing is synced, but all is written at commit, so that a
  // server that is killed (not its host) still agrees with its binlog.
  ...['--max-binlog-size=1M', '--sync-binlog=0', '--innodb-flush-log-at-trx-commit=2'],
];

/** A real etcd and MariaDB, a file store, and the daemons, all on loopback in one temporary folder. */
export class Cluster extends Twins {
  readonly server: Mariadb;
  #copies = 0;

  private constructor(server: Mariadb, parts: TwinsParts) {
    super(parts);
    this.server = server;
  }

  /** Starts everything but the daemons. */
  static async start(options: ClusterOptions = {}): Promise<Cluster> {
    const { etcdNodes = 1, proxied = false, nodes = ['db-1', 'db-2'], mariadbArgs = [] } = options;
    const dir = await mkdtemp(join(tmpdir(), 'shipmate-cluster-'));
    const { storePath } = options.store ?? { storePath: join(dir, 'store') };
    await mkdir(storePath, { recursive: true });
    const started = await Promise.allSettled([
      startEtcd({ nodes: etcdNodes, ...options.etcd }),
      startMariadb({ args: [...MARIADB_ARGS, ...mariadbArgs] }),
    ]);
    const [etcd, server] = started;
    if (etcd.status === 'rejected' || server.status === 'rejected') {
      for (const part of started) if (part.status === 'fulfilled') await part.value.stop();
      throw etcd.status === 'rejected' ? etcd.reason : server.status === 'rejected' ? server.reason : null;
    }
    const proxies = await startProxies(etcd.value, proxied ? nodes : []);
    const daemons: Daemon[] = [];
    for (const node of nodes) {
      daemons.push(
        await prepareDaemon({
          node,
          dir: join(dir, node),
          endpoints: proxies.get(node)?.map(({ endpoint }) => endpoint) ?? etcd.value.endpoints,
          tls: etcd.value.tls,
          storePath,
          ...options.store,
          source: { dir: server.value.dataDir, url: server.value.url },
          ...(options.faulty && { faults: join(dir, node, 'faults.json') }),
          ...options.daemon,
        }),
      );
    }
    return new Cluster(server.value, { dir, etcd: etcd.value, storePath, daemons, proxies });
  }

  async stop(): Promise<void> {
    await this.stopDaemons();
    await Promise.all([this.server.stop(), this.etcd.stop()]);
    await rm(this.dir, { recursive: true, force: true });
  }

  /** Waits until all that the server has written is in the archive. Nothing must write meanwhile. */
  async settled(wait: WaitOptions = {}): Promise<void> {
    let stand = '';
    await until(
      'the archive reaches the end of the binlog',
      async () => {
        const reached = await this.chain.end();
        const end = await this.#serverEnd();
        stand = `it is at ${reached?.segment}:${reached?.offset} of ${end}`;
        return `${reached?.segment}:${reached?.offset}` === end;
      },
      { describe: () => `${stand}\n${this.tails()}`, ...wait },
    );
  }

  /** Carries something out while transactions are committed, then proves that nothing was lost or forked. */
  async underLoad<T>(act: (load: Load) => Promise<T>, options: LoadOptions = {}): Promise<T> {
    const load = await startLoad(this.server, options);
    let result: T;
    try {
      result = await act(load);
    } finally {
      await load.stop();
    }
    await this.verify();
    return result;
  }

  /** A copy of the server's data directory as it is at one moment, like the disk of a host whose power fails then. */
  async copyServer(): Promise<string> {
    const copy = join(this.dir, `data-copy-${this.#copies++}`);
    process.kill(this.server.pid, 'SIGSTOP');
    try {
      await cp(this.server.dataDir, copy, { recursive: true });
    } finally {
      process.kill(this.server.pid, 'SIGCONT');
    }
    return copy;
  }

  /** Power loss: the server dies, its data directory is what the copy says, and it starts again and goes on from there. */
  async loseServersTail(copy: string): Promise<void> {
    const { dataDir } = this.server;
    await this.server.kill9();
    for (const name of await readdir(dataDir)) await rm(join(dataDir, name), { recursive: true });
    await cp(copy, dataDir, { recursive: true });
    await rm(copy, { recursive: true });
    await this.server.restart();
  }

  /**
   * The proof after every scenario: the chain is whole (as read here, and by `verify --deep`), no deposed master has
   * anything in it after its seal, and the restored binlogs are the server's, byte for byte.
   */
  async verify(): Promise<void> {
    for (const daemon of this.daemons) await daemon.demandNoSurprise();
    await this.chain.read();
    await this.succeed(this.daemons[0]!, 'verify', STREAM, '--deep', '--json');
    let end: string;
    let wrong: string[];
    do {
      end = await this.#serverEnd();
      await this.settled();
      const restored = await this.restore();
      wrong = differences(await readBinlogs(this.server.dataDir), await readBinlogs(restored));
      await rm(restored, { recursive: true });
    } while (end !== (await this.#serverEnd()));
    if (wrong.length > 0) throw new Error(`what was restored differs:\n${wrong.join('\n')}\n${this.tails()}`);
  }

  /** After a rotation it moves once more by itself: the server adds a checkpoint event. */
  async #serverEnd(): Promise<string> {
    const [end] = await this.server.query('SHOW MASTER STATUS');
    return `${end?.File}:${end?.Position}`;
  }
}

/** An empty server to replay into. It syncs nothing, and keeps no log of its own. */
export function startReplica(): Promise<Mariadb> {
  return startMariadb({ serverId: 2, args: ['--skip-log-bin', '--innodb-flush-log-at-trx-commit=0'] });
}

/** Replays restored binlogs into a server, as an operator would. */
export async function replay(dir: string, server: Mariadb): Promise<void> {
  const files = [...(await readBinlogs(dir)).keys()].map((name) => join(dir, name));
  const pipeline = 'socket=$1; shift; mariadb-binlog "$@" | mariadb --no-defaults --user=root --socket="$socket"';
  await run('bash', ['-o', 'pipefail', '-c', pipeline, 'replay', server.socket, ...files]);
}

/** CHECKSUM TABLE of every table of a database: `{orders: 2394857, …}`. */
export async function checksums(server: Mariadb, database: string): Promise<Record<string, number>> {
  const tables = await server.query('SELECT table_name AS name FROM information_schema.tables WHERE table_schema = ?', [
    database,
  ]);
  const sums: Record<string, number> = {};
  for (const { name } of tables) {
    const [row] = await server.query(`CHECKSUM TABLE \`${database}\`.\`${name}\``);
    sums[String(name)] = Number(row?.Checksum);
  }
  return sums;
}
