import { cp, mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { checksums } from './cluster.ts';
import { type Daemon, type DaemonOptions, prepareDaemon } from './daemon.ts';
import { type EtcdOptions, startEtcd } from './etcd.ts';
import { type GcsDoubleProcess, spawnGcsDouble } from './gcs-double-process.ts';
import { type Mariadb, startMariadb } from './mariadb.ts';
import { STREAM, startProxies, Twins, type TwinsParts } from './twins.ts';
import { until, type WaitOptions } from './wait.ts';

export interface TwoServersOptions {
  readonly etcdNodes?: 1 | 3;
  /** More of etcd's; the daemons go by it. */
  readonly etcd?: Pick<EtcdOptions, 'tls' | 'tlsDays'>;
  /** Puts a proxy between each daemon and each etcd node, so that `link` can cut them. */
  readonly proxied?: boolean;
  /** Ships to a double of Google Cloud Storage; by default to a directory. */
  readonly gcs?: boolean;
  /** Transactions that a replica applies at the same time; default: one. */
  readonly parallelThreads?: number;
  readonly mariadbArgs?: readonly string[];
  /** Starts the daemons so that `faults` rules their stores. */
  readonly faulty?: boolean;
  readonly daemon?: Partial<Pick<DaemonOptions, 'cluster' | 'ttl' | 'onEtcdLoss' | 'chunk' | 'copies'>>;
}

/** A database server, and the daemon beside it: they die together. */
export interface Host {
  readonly server: Mariadb;
  readonly daemon: Daemon;
}

const NODES = ['db-1', 'db-2'] as const;
const BUCKET = 'archive';

const MARIADB_ARGS = [
  ...['--log-slave-updates', '--gtid-strict-mode=ON', '--slave-net-timeout=5', '--max-binlog-size=256K'],
  // As in Cluster: a server that is killed (not its host) still agrees with its binlog.
  ...['--sync-binlog=0', '--innodb-flush-log-at-trx-commit=2'],
];

/** Two hosts, each a real MariaDB with a daemon beside it, one server the primary of the other; a real etcd, and a store. */
export class TwoServers extends Twins {
  readonly hosts: readonly [Host, Host];
  /** Null where the store is a directory. */
  readonly gcs: GcsDoubleProcess | null;
  /** Whose server the application writes to. */
  primary: Host;
  readonly #parallelThreads: number;
  #copies = 0;

  private constructor(
    hosts: readonly [Host, Host],
    own: TwoServersOptions,
    parts: TwinsParts,
    gcs: GcsDoubleProcess | null,
  ) {
    super(parts);
    this.hosts = hosts;
    this.primary = hosts[0];
    this.gcs = gcs;
    this.#parallelThreads = own.parallelThreads ?? 0;
  }

  /** Starts everything but the daemons; the first host's server is the primary. */
  static async start(options: TwoServersOptions = {}): Promise<TwoServers> {
    const { etcdNodes = 1, proxied = false, mariadbArgs = [] } = options;
    const dir = await mkdtemp(join(tmpdir(), 'shipmate-two-servers-'));
    const objects = join(dir, 'store');
    await mkdir(objects);
    const [etcd, first, second, gcs] = await Promise.all([
      startEtcd({ nodes: etcdNodes, ...options.etcd }),
      startMariadb({ serverId: 11, args: [...MARIADB_ARGS, ...mariadbArgs] }),
      startMariadb({ serverId: 12, args: [...MARIADB_ARGS, ...mariadbArgs] }),
      options.gcs ? spawnGcsDouble({ dir: objects, buckets: [BUCKET] }) : null,
    ]);
    const storePath = gcs ? join(objects, BUCKET) : objects;
    const proxies = await startProxies(etcd, proxied ? NODES : []);
    const host = async (node: string, server: Mariadb): Promise<Host> => ({
      server,
      daemon: await prepareDaemon({
        node,
        dir: join(dir, node),
        endpoints: proxies.get(node)?.map(({ endpoint }) => endpoint) ?? etcd.endpoints,
        tls: etcd.tls,
        storePath,
        ...(gcs && { store: { type: 'gcs', bucket: BUCKET, apiEndpoint: gcs.url } }),
        source: { dir: server.dataDir, url: server.url },
        ...(options.faulty && { faults: join(dir, node, 'faults.json') }),
        ...options.daemon,
      }),
    });
    const hosts = [await host(NODES[0], first), await host(NODES[1], second)] as const;
    const daemons = hosts.map(({ daemon }) => daemon);
    const cluster = new TwoServers(hosts, options, { dir, etcd, storePath, daemons, proxies }, gcs);
    await cluster.#replicate(cluster.replica);
    return cluster;
  }

  async stop(): Promise<void> {
    await this.stopDaemons();
    await Promise.all([...this.hosts.map(({ server }) => server.stop()), this.etcd.stop(), this.gcs?.stop()]);
    await rm(this.dir, { recursive: true, force: true });
  }

  /** The host that is not the primary's. */
  get replica(): Host {
    return this.hosts.find((host) => host !== this.primary)!;
  }

  /** Waits until the replica has all that the primary has committed. */
  async replicated(): Promise<void> {
    await this.replica.server.waitFor(await this.primary.server.gtids());
  }

  /** A host's power fails: its server and its daemon die at once. */
  async dies({ server, daemon }: Host): Promise<void> {
    await Promise.all([server.kill9(), daemon.kill()]);
  }

  /** A failover: the replica becomes the primary, whatever the other host does. */
  async promote(): Promise<void> {
    const { replica } = this;
    await replica.server.promote();
    this.primary = replica;
  }

  /** A planned switchover: nothing is written while the servers exchange their parts. */
  async switchOver(): Promise<void> {
    const { primary, replica } = this;
    await primary.server.query('SET GLOBAL read_only = ON');
    await this.replicated();
    await this.promote();
    await this.#replicate(primary);
    if (this.primary !== replica) throw new Error('the parts were not exchanged');
  }

  /**
   * The other host comes back as a replica, its daemon too. Where its server has what the primary never had (a lost tail,
   * an errant write) it is built anew from the primary first, as a DBA has to, with its daemon stopped: until it replicates,
   * an empty log of the same server can't be told from one after RESET MASTER. `anew`: also where that doesn't show, since
   * replication went on over an errant write.
   */
  async rejoins({ anew = false }: { anew?: boolean } = {}): Promise<{ builtAnew: boolean }> {
    const { server, daemon } = this.replica;
    await server.kill9();
    await server.restart();
    const builtAnew = anew || (await this.#hasMore(server));
    if (builtAnew) {
      if (daemon.running) await daemon.stop();
      await this.#buildAnew(server);
    }
    await this.#replicate(this.replica);
    if (!daemon.running) await daemon.start();
    return { builtAnew };
  }

  /** Waits until all that the primary has committed is in the archive. Nothing must write meanwhile. */
  async settled(wait: WaitOptions = {}): Promise<void> {
    let stand = '';
    await until(
      'the archive reaches the primary’s last transaction',
      async () => {
        const reached = (await this.chain.end())?.id;
        const wanted = await this.primary.server.gtids();
        stand = `it is at ${reached} of ${wanted}`;
        return sorted(reached ?? '') === sorted(wanted);
      },
      { describe: () => `${stand}\n${this.tails()}`, ...wait },
    );
  }

  /**
   * The proof after every scenario: the chain is whole, as read here and by `verify --deep`, and what it restores, replayed
   * into an empty server, gives the primary's tables.
   */
  async verify(): Promise<void> {
    for (const daemon of this.daemons) await daemon.demandNoSurprise();
    await this.settled();
    await this.succeed(this.daemons[0]!, 'verify', STREAM, '--deep', '--json');
    const empty = await startMariadb({ serverId: 13, args: ['--innodb-flush-log-at-trx-commit=0'] });
    try {
      const restored = await this.restore('--replay', '--socket', empty.socket, '--user', 'root');
      await rm(restored, { recursive: true });
      const [expected, replayed] = await Promise.all([this.primary.server, empty].map((one) => checksums(one, 'shop')));
      if (!isDeepStrictEqual(expected, replayed)) {
        throw new Error(`the archive gives other tables: ${JSON.stringify({ expected, replayed })}\n${this.tails()}`);
      }
    } finally {
      await empty.stop();
    }
  }

  async #replicate({ server }: Host): Promise<void> {
    const other = this.hosts.find((host) => host.server !== server)!;
    await server.query('STOP ALL SLAVES'); // one that was a replica before it died goes on by itself
    await server.replicateFrom(other.server, { parallelThreads: this.#parallelThreads });
  }

  /** Whether a server has transactions that the primary lacks. */
  async #hasMore(server: Mariadb): Promise<boolean> {
    const own = parseGtids(await server.gtids());
    const there = await stateOf(this.primary.server);
    return own.some(({ domain, server: writer, sequence }) => {
      const ofDomain = there.filter((one) => one.domain === domain);
      const ofWriter = ofDomain.filter((one) => one.server === writer);
      return !(ofWriter.length > 0 ? ofWriter : ofDomain).some((one) => one.sequence >= sequence);
    });
  }

  /** As from a backup of the primary: its data, no binlogs, and the GTID position that the data stand at. */
  async #buildAnew(server: Mariadb): Promise<void> {
    const copy = join(this.dir, `data-copy-${this.#copies++}`);
    process.kill(this.primary.server.pid, 'SIGSTOP');
    try {
      await cp(this.primary.server.dataDir, copy, { recursive: true });
    } finally {
      process.kill(this.primary.server.pid, 'SIGCONT');
    }
    await server.kill9();
    for (const name of await readdir(server.dataDir)) await rm(join(server.dataDir, name), { recursive: true });
    await cp(copy, server.dataDir, { recursive: true });
    await rm(copy, { recursive: true });
    await server.restart();
    const [row] = await server.query('SELECT @@GLOBAL.gtid_binlog_pos AS at');
    await server.query('RESET MASTER');
    await server.query('SET GLOBAL gtid_slave_pos = ?', [row?.at]);
  }
}

interface Gtid {
  readonly domain: string;
  readonly server: string;
  readonly sequence: number;
}

const sorted = (gtids: string) => gtids.split(',').sort().join();

function parseGtids(gtids: string): Gtid[] {
  return gtids
    .split(',')
    .filter((gtid) => gtid !== '')
    .map((gtid) => {
      const [domain = '', server = '', sequence = ''] = gtid.split('-');
      return { domain, server, sequence: Number(sequence) };
    });
}

/** The last transaction of each server in each domain that this server has seen, as far as it remembers. */
async function stateOf(server: Mariadb): Promise<Gtid[]> {
  const [row] = await server.query("SELECT CONCAT_WS(',', @@gtid_binlog_state, @@gtid_slave_pos) AS state");
  return parseGtids(String(row?.state));
}
