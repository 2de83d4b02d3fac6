import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compareIds, parseId } from '../../src/source/postgres/lsn.ts';
import { checkoutForServers } from './checkout.ts';
import { type Daemon, prepareDaemon } from './daemon.ts';
import { startEtcd } from './etcd.ts';
import { type GcsDoubleProcess, spawnGcsDouble } from './gcs-double-process.ts';
import { giveToServer, type Postgres, type Settings, startPostgres } from './postgres.ts';
import { STREAM, Twins, type TwinsParts } from './twins.ts';
import { until, type WaitOptions } from './wait.ts';

export interface PostgresPairOptions {
  /** Ships to a double of Google Cloud Storage; by default to a directory. */
  readonly gcs?: boolean;
  /** Of both servers. */
  readonly settings?: Settings;
  /** Whether the primary begins with pgbench's tables, and 15 MB of WAL; by default it does. */
  readonly tables?: boolean;
}

/** A database server, and the daemon beside it: they die together. */
export interface PostgresHost {
  readonly server: Postgres;
  readonly daemon: Daemon;
}

/** A moment at which nothing was written, as the living server was then. */
export interface Moment {
  /** `2/0/16B3748` */
  readonly id: string;
  /** RFC 3339 */
  readonly time: string;
  readonly checksums: Readonly<Record<string, string>>;
}

const NODES = ['db-1', 'db-2'] as const;
const BUCKET = 'archive';

/** Two hosts, each a real PostgreSQL with a daemon beside it, one the other's streaming standby; a real etcd, and a store. */
export class PostgresPair extends Twins {
  readonly hosts: readonly [PostgresHost, PostgresHost];
  /** Whose server the application writes to. */
  primary: PostgresHost;
  readonly #gcs: GcsDoubleProcess | null;

  private constructor(hosts: readonly [PostgresHost, PostgresHost], parts: TwinsParts, gcs: GcsDoubleProcess | null) {
    super(parts);
    this.hosts = hosts;
    this.primary = hosts[0];
    this.#gcs = gcs;
  }

  /** Starts everything but the daemons; the first host's server is the primary. */
  static async start(options: PostgresPairOptions = {}): Promise<PostgresPair> {
    const { gcs: inCloud = false, settings = {}, tables = true } = options;
    const dir = await mkdtemp(join(tmpdir(), 'shipmate-postgres-pair-'));
    // The servers' user recovers from what is restored here.
    await chmod(dir, 0o755);
    const objects = join(dir, 'store');
    await mkdir(objects);
    const [etcd, first, gcs] = await Promise.all([
      startEtcd({ nodes: 1 }),
      startPostgres({ settings }),
      inCloud ? spawnGcsDouble({ dir: objects, buckets: [BUCKET] }) : null,
    ]);
    if (tables) await first.initPgbench();
    const second = await first.standby();
    const storePath = gcs ? join(objects, BUCKET) : objects;
    const host = async (node: string, server: Postgres): Promise<PostgresHost> => ({
      server,
      daemon: await prepareDaemon({
        node,
        dir: join(dir, node),
        endpoints: etcd.endpoints,
        storePath,
        ...(gcs && { store: { type: 'gcs', bucket: BUCKET, apiEndpoint: gcs.url } }),
        source: { type: 'postgres', dir: server.dataDir, url: server.url },
      }),
    });
    const hosts = [await host(NODES[0], first), await host(NODES[1], second)] as const;
    const daemons = hosts.map(({ daemon }) => daemon);
    return new PostgresPair(hosts, { dir, etcd, storePath, daemons, proxies: new Map() }, gcs);
  }

  async stop(): Promise<void> {
    await this.stopDaemons();
    await Promise.all([...this.hosts.map(({ server }) => server.stop()), this.etcd.stop(), this.#gcs?.stop()]);
    await rm(this.dir, { recursive: true, force: true });
  }

  /** The host that is not the primary's. */
  get standby(): PostgresHost {
    return this.hosts.find((host) => host !== this.primary)!;
  }

  /** A host's power fails: all processes of its server and its daemon die at once. */
  async dies({ server, daemon }: PostgresHost): Promise<void> {
    await Promise.all([server.end('kill'), daemon.kill()]);
  }

  /** A failover: the standby becomes the primary, whatever the other host does. */
  async promote(): Promise<void> {
    const { standby } = this;
    await standby.server.promote();
    this.primary = standby;
  }

  /** The other host comes back as a standby, its daemon too; what its server has alone is rewound. */
  async rejoins(): Promise<void> {
    const { server, daemon } = this.standby;
    await server.end();
    await server.rewind(this.primary.server);
    await server.start();
    if (!daemon.running) await daemon.start();
  }

  /** Waits until all that a server has flushed now is in the archive. Returns that place. */
  async settled({ server }: PostgresHost = this.primary, wait: WaitOptions = {}): Promise<string> {
    const wanted = `${await server.timeline()}/${await server.lsn()}`;
    let stand = '';
    await until(
      `the archive reaches ${wanted}`,
      async () => {
        stand = (await this.chain.end())?.id ?? 'nothing';
        return stand !== 'nothing' && compareIds(parseId(stand), parseId(wanted)) >= 0;
      },
      { describe: () => `it is at ${stand}\n${this.tails()}`, ...wait },
    );
    return wanted;
  }

  /** Nothing may write while it is taken. */
  async moment(): Promise<Moment> {
    const checksums = await this.primary.server.checksums();
    const id = await this.settled();
    return { id, time: new Date().toISOString(), checksums };
  }

  /** The chain is whole, as read here and by `verify --deep`, and no daemon ended by itself. */
  async verify(): Promise<void> {
    for (const daemon of this.daemons) await daemon.demandNoSurprise();
    await this.settled();
    await this.chain.read();
    await this.succeed(this.daemons[0]!, 'verify', STREAM, '--deep', '--json');
  }

  /** A server that recovered a base backup from what `restore` gives, as its guide says; for the caller to stop. */
  async recover(backup: string, ...restoreArgs: string[]): Promise<Postgres> {
    const restored = await this.restore(...restoreArgs);
    await giveToServer(restored);
    const include = join(restored, 'recovery-settings.conf');
    return this.recovered(backup, { include, recovery_target_action: 'promote' });
  }

  /** A server that recovered a base backup to the archive's end, by `fetch` from the archive itself; for the caller to stop. */
  async recoverByFetch(backup: string): Promise<Postgres> {
    const { configFile } = this.daemons[0]!;
    const shipmate = join(await checkoutForServers(this.dir), 'bin', 'shipmate');
    return this.recovered(backup, { restore_command: `${shipmate} fetch ${STREAM} %f "%p" -c ${configFile}` });
  }

  /** A server that recovered a base backup by these settings, and is writable; for the caller to stop. */
  async recovered(backup: string, settings: Settings): Promise<Postgres> {
    const server = await startPostgres({ backup, recovers: true, settings });
    try {
      await until(
        'it has recovered',
        async () => (await server.sql('SELECT pg_is_in_recovery() AS yes'))[0]?.yes === false,
      );
      return server;
    } catch (error) {
      await server.stop();
      throw error;
    }
  }
}
