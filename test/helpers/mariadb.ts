import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, readFile, rename, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { type Connection, createConnection } from 'mariadb';
import { freePort } from './ports.ts';
import { until } from './wait.ts';

const run = promisify(execFile);

export interface MariadbOptions {
  readonly serverId?: number;
  /** More arguments of mariadbd, after those given here. */
  readonly args?: readonly string[];
  /** A data directory to start on, left in place at the end; by default an empty one, removed at the end. */
  readonly dataDir?: string;
}

export interface Replication {
  /** Appliers that work at the same time: transactions of different domains then end in another order; one by default. */
  readonly parallelThreads?: number;
  /** The GTID position to start after; by default all that this server has, so that an old primary can come back. */
  readonly from?: string;
}

export interface Mariadb {
  /** Holds the binlogs too: binlog.index, binlog.000001 … */
  readonly dataDir: string;
  readonly socket: string;
  readonly port: number;
  /** As Shipmate's config takes it. */
  readonly url: string;
  readonly pid: number;
  readonly serverId: number;
  /** One statement on a connection of the server's own. */
  query(sql: string, values?: readonly unknown[]): Promise<Record<string, unknown>[]>;
  /** Another connection, for the caller to end. */
  connect(): Promise<Connection>;
  /**
   * Begins a new binlog, and waits until the server has added its own checkpoint event, which comes by itself a little
   * later: what is compared right afterwards must not grow meanwhile.
   */
  rotate(): Promise<void>;
  /** Makes this server a read-only replica by GTID. Start it with `--log-slave-updates`, or its binlogs lack what it gets. */
  replicateFrom(primary: Pick<Mariadb, 'port'>, options?: Replication): Promise<void>;
  /** Stops replicating; with `applierOnly` it still receives, but falls behind. `startReplica` goes on. */
  stopReplica(options?: { applierOnly?: boolean }): Promise<void>;
  startReplica(): Promise<void>;
  /** A failover's last step: replicates no more, knows no primary, is writable. */
  promote(): Promise<void>;
  /** Its whole GTID position: `0-1-52,1-1-7`. */
  gtids(): Promise<string>;
  /** Resolves once a replica has applied all that a GTID position names. */
  waitFor(gtids: string): Promise<void>;
  /** SIGKILL, and waits until it is gone. */
  kill9(): Promise<void>;
  /** An orderly shutdown, and waits for it. */
  shutDown(): Promise<void>;
  /** Starts it again after `kill9` or `shutDown`, on the same port, socket and directory. */
  restart(options?: { args?: readonly string[] }): Promise<void>;
  /** Ends it and removes its folder. */
  stop(): Promise<void>;
}

const START_WITHIN_MS = 30_000;
const WAIT_SECONDS = 30;
// Small and quick: nothing in the tests needs a large InnoDB.
const INNODB = ['--innodb-buffer-pool-size=16M', '--innodb-log-file-size=8M', '--innodb-fast-shutdown=2'];

/** Starts a real MariaDB that writes binlogs, on a free loopback port, in a temporary folder. */
export async function startMariadb({ serverId = 1, args = [], dataDir }: MariadbOptions = {}): Promise<Mariadb> {
  const folder = await mkdtemp(join(tmpdir(), 'shipmate-mariadb-'));
  const data = dataDir ?? join(folder, 'data');
  if (!dataDir) await cp(await emptyDataDir(), data, { recursive: true });
  const server = new Server({ folder, dataDir: data, port: await freePort(), serverId, args });
  try {
    await server.restart();
  } catch (error) {
    await server.stop();
    throw error;
  }
  return server;
}

class Server implements Mariadb {
  readonly dataDir: string;
  readonly socket: string;
  readonly port: number;
  readonly url: string;
  readonly serverId: number;
  readonly #folder: string;
  readonly #args: readonly string[];
  #process: ChildProcess | null = null;
  #connection: Connection | null = null;

  constructor(options: { folder: string; dataDir: string; port: number; serverId: number; args: readonly string[] }) {
    this.#folder = options.folder;
    this.dataDir = options.dataDir;
    this.port = options.port;
    this.serverId = options.serverId;
    this.socket = join(options.folder, 'socket');
    this.url = `mariadb://root@127.0.0.1:${options.port}`;
    this.#args = [
      ...['--no-defaults', `--datadir=${options.dataDir}`, `--socket=${this.socket}`, `--port=${options.port}`],
      ...['--bind-address=127.0.0.1', `--log-error=${this.#log}`, `--pid-file=${join(options.folder, 'pid')}`],
      ...[`--server-id=${options.serverId}`, '--log-bin=binlog', '--binlog-checksum=CRC32', '--skip-name-resolve'],
      ...(process.getuid?.() === 0 ? ['--user=root'] : []),
      ...INNODB,
      ...options.args,
    ];
  }

  get #log(): string {
    return join(this.#folder, 'error.log');
  }

  get pid(): number {
    if (!this.#process?.pid) throw new Error('mariadbd does not run');
    return this.#process.pid;
  }

  async restart({ args = [] }: { args?: readonly string[] } = {}): Promise<void> {
    // Ends with the test that started it, however that ends.
    const program = ['--pdeathsig', 'KILL', '--', 'mariadbd', ...this.#args, ...args];
    const path = `${process.env.PATH}:/usr/sbin:/usr/local/sbin`;
    const child = spawn('setpriv', program, { stdio: 'ignore', env: { ...process.env, PATH: path } });
    this.#process = child;
    const deadline = performance.now() + START_WITHIN_MS;
    for (;;) {
      if (child.exitCode !== null || performance.now() > deadline) {
        throw new Error(`mariadbd did not start:\n${await readFile(this.#log, 'utf8').catch(String)}`);
      }
      const connection = await this.connect().catch(() => null);
      if (connection) {
        this.#connection = connection;
        return;
      }
      await delay(30);
    }
  }

  connect(): Promise<Connection> {
    return createConnection({ socketPath: this.socket, user: 'root', allowPublicKeyRetrieval: false });
  }

  async query(sql: string, values?: readonly unknown[]): Promise<Record<string, unknown>[]> {
    if (!this.#connection) throw new Error('mariadbd does not run');
    const answer: unknown = await this.#connection.query(sql, values);
    return Array.isArray(answer) ? answer : [];
  }

  async rotate(): Promise<void> {
    await this.query('FLUSH BINARY LOGS');
    const [status] = await this.query('SHOW MASTER STATUS');
    const file = String(status?.File);
    await until(`${file} has its checkpoint event`, async () => {
      // All of it: under load any number of transactions may come before that event.
      const events = await this.query(`SHOW BINLOG EVENTS IN '${file}'`);
      return events.some(({ Event_type, Info }) => Event_type === 'Binlog_checkpoint' && Info === file);
    });
  }

  async replicateFrom({ port }: Pick<Mariadb, 'port'>, { parallelThreads = 0, from }: Replication = {}): Promise<void> {
    await this.query('SET GLOBAL read_only = ON');
    await this.query(`SET GLOBAL slave_parallel_threads = ${parallelThreads}`);
    await this.query('SET GLOBAL gtid_slave_pos = ?', [from ?? (await this.gtids())]);
    await this.query(
      `CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = ${port}, MASTER_USER = 'root', MASTER_PASSWORD = '', ` +
        'MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1',
    );
    await this.startReplica();
  }

  async stopReplica({ applierOnly = false } = {}): Promise<void> {
    await this.query(applierOnly ? 'STOP SLAVE SQL_THREAD' : 'STOP SLAVE');
  }

  async startReplica(): Promise<void> {
    await this.query('START SLAVE');
  }

  async promote(): Promise<void> {
    await this.query('STOP SLAVE');
    await this.query('RESET SLAVE ALL');
    await this.query('SET GLOBAL read_only = OFF');
  }

  async gtids(): Promise<string> {
    const [row] = await this.query('SELECT @@GLOBAL.gtid_current_pos AS gtids');
    return String(row?.gtids);
  }

  async waitFor(gtids: string): Promise<void> {
    const [row] = await this.query('SELECT MASTER_GTID_WAIT(?, ?) AS failed', [gtids, WAIT_SECONDS]);
    if (Number(row?.failed) === 0) return;
    const [status] = await this.query('SHOW SLAVE STATUS');
    const error = String(status?.Last_SQL_Error || status?.Last_IO_Error || 'no error');
    throw new Error(`${gtids} was not applied within ${WAIT_SECONDS} s, it is at ${await this.gtids()}: ${error}`);
  }

  kill9(): Promise<void> {
    return this.#end('SIGKILL');
  }

  shutDown(): Promise<void> {
    return this.#end('SIGTERM');
  }

  async stop(): Promise<void> {
    await this.#end('SIGKILL');
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    this.#connection?.destroy();
    this.#connection = null;
    const child = this.#process;
    this.#process = null;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    await gone;
  }
}

let installed: Promise<string> | undefined;

/** An empty data directory, installed once a MariaDB version and kept for later runs: copying it takes a tenth of the time. */
function emptyDataDir(): Promise<string> {
  installed ??= install();
  return installed;
}

async function install(): Promise<string> {
  const version = (await run('mariadb', ['--version'])).stdout.match(/[\d.]+-MariaDB/)?.[0] ?? 'unknown';
  const kept = join(tmpdir(), `shipmate-mariadb-empty-${version}-${process.getuid?.()}`);
  if (await stat(join(kept, 'mysql')).catch(() => null)) return kept;
  const fresh = await mkdtemp(join(tmpdir(), 'shipmate-mariadb-install-'));
  await run('mariadb-install-db', [
    ...['--no-defaults', `--datadir=${fresh}`, '--auth-root-authentication-method=normal', '--skip-test-db'],
    ...(process.getuid?.() === 0 ? ['--user=root'] : []),
    ...INNODB,
  ]);
  // Another test may have been quicker; its directory is as good.
  await rename(fresh, kept).catch(() => rm(fresh, { recursive: true, force: true }));
  return kept;
}
