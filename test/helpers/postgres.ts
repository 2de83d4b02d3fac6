import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Client } from 'pg';
import { freePort } from './ports.ts';
import { until } from './wait.ts';

const run = promisify(execFile);

export type Settings = Readonly<Record<string, string | number>>;

export interface PostgresOptions {
  /** More of its configuration, or other values than here. */
  readonly settings?: Settings;
  /** By default 1 MiB, the smallest: tests want to see segments end. */
  readonly walSegmentMiB?: 1 | 2 | 4 | 8 | 16;
  /** All others are copies of one installation and share its system identifier; with `true` it is installed anew. */
  readonly ownSystemId?: boolean;
  /** A base backup to start on, which is copied; by default an empty cluster. */
  readonly backup?: string;
  /** Whether it recovers from an archive first, by the `restore_command` and `recovery_target…` of its settings. */
  readonly recovers?: boolean;
}

export interface StandbyOptions {
  readonly settings?: Settings;
  /** Another port to reach the primary by: a proxy's. */
  readonly port?: number;
  /** A physical slot on the primary, made there, which keeps the WAL that this standby has not received. */
  readonly slot?: string;
}

export type Ending = 'fast' | 'immediate' | 'kill';

export interface PgbenchOptions {
  readonly clients?: number;
  readonly transactions?: number;
  /** Transactions a second, at most. */
  readonly rate?: number;
}

export interface Load {
  /** Nothing is written any more when it returns. */
  stop(): Promise<void>;
}

export interface Row {
  [column: string]: unknown;
}

export interface Postgres {
  /** Holds the WAL in pg_wal. */
  readonly dataDir: string;
  readonly port: number;
  /** Directory of the Unix socket. */
  readonly socketDir: string;
  /** As Shipmate's config takes it, as a superuser; `urlOf` names another user. */
  readonly url: string;
  urlOf(user: string, password?: string): string;
  /** Over the Unix socket. */
  readonly socketUrl: string;
  /** The postmaster's. */
  readonly pid: number;
  /** One statement on a connection of the server's own, as a superuser. */
  sql(text: string, values?: readonly unknown[]): Promise<Row[]>;
  /** Another connection, for the caller to end. */
  connect(options?: { user?: string; database?: string }): Promise<Client>;
  /** Up to where its WAL is flushed: on a standby, replayed. `0/16B3748` */
  lsn(): Promise<string>;
  /** The timeline that it writes or replays. */
  timeline(): Promise<number>;
  /** Resolves once a standby has replayed up to an LSN, by default all that the given server has flushed. */
  waitFor(upTo: string | Pick<Postgres, 'lsn'>): Promise<void>;
  /** A streaming standby, built from a base backup. */
  standby(options?: StandbyOptions): Promise<Postgres>;
  /** A base backup without WAL, in a new directory: to start on it, WAL must come from an archive. */
  baseBackup(): Promise<string>;
  /** Resolves once it is writable. */
  promote(): Promise<void>;
  /** Ends it and waits until all its processes are gone. `kill`: SIGKILL to all of them, as when a host dies. */
  end(how?: Ending): Promise<void>;
  /** Starts it again after `end`, on the same ports and directory; settings given here stay. */
  start(settings?: Settings): Promise<void>;
  /** After `end`: makes it a standby of that server by pg_rewind, which needs `wal_log_hints` here. `start` it then. */
  rewind(to: Pick<Postgres, 'port' | 'sql'>): Promise<void>;
  /** SIGSTOP to all its processes; `thaw` undoes it. */
  freeze(): void;
  thaw(): void;
  /** Makes pgbench's tables; scale 1 is 15 MB. */
  initPgbench(scale?: number): Promise<void>;
  /** Runs pgbench's TPC-B until so many transactions of each client are committed. */
  pgbench(options?: PgbenchOptions): Promise<void>;
  /** Runs pgbench's TPC-B at that pace, until `stop` or the server's death. */
  startPgbench(options?: Pick<PgbenchOptions, 'clients' | 'rate'>): Load;
  /** Per table `schema.name` its number of rows and a digest of them that knows no order. */
  checksums(): Promise<Record<string, string>>;
  /** Checks all tables and indexes; throws with what is wrong. Writable servers only: it adds the extension. */
  amcheck(): Promise<void>;
  /** One of PostgreSQL's programs, as the server's user; resolves to its standard output. */
  program(name: string, ...args: string[]): Promise<string>;
  /** Ends it and removes its folder. */
  stop(): Promise<void>;
}

const START_WITHIN_MS = 60_000;
/** A load that nobody stops. */
const LOAD_SECONDS = 600;
const ENDINGS = { fast: 'SIGINT', immediate: 'SIGQUIT' } as const;

/** Small and quick, synced to disk, fit for standbys and pg_rewind. */
const SETTINGS: Settings = {
  wal_level: 'replica',
  hot_standby: 'on',
  wal_log_hints: 'on',
  fsync: 'on',
  wal_keep_size: '32MB',
  max_wal_size: '64MB',
  shared_buffers: '16MB',
  wal_receiver_status_interval: '1s',
  wal_retrieve_retry_interval: '200ms',
  autovacuum: 'off',
  log_checkpoints: 'off',
  max_wal_senders: 10,
  max_replication_slots: 10,
  max_connections: 40,
};

/** The user that servers run as: PostgreSQL refuses root. Empty where this process is not root. */
export const serverUser = userOf('postgres');

/** Starts a real PostgreSQL primary on a free loopback port, in a temporary folder. */
export async function startPostgres(options: PostgresOptions = {}): Promise<Postgres> {
  const { walSegmentMiB = 1, ownSystemId = false, backup, recovers = false, settings = {} } = options;
  const folder = await serverFolder('shipmate-postgres-');
  const data = join(folder, 'data');
  if (ownSystemId) await initdb(data, walSegmentMiB);
  else await program('cp', ['-a', backup ?? (await emptyCluster(walSegmentMiB)), data]);
  if (recovers) await program('touch', [join(data, 'recovery.signal')]);
  return started(new Server({ folder, port: await freePort(), settings }));
}

async function started(server: Server): Promise<Postgres> {
  try {
    await server.start();
    return server;
  } catch (error) {
    await server.stop();
    throw error;
  }
}

class Server implements Postgres {
  readonly dataDir: string;
  readonly port: number;
  readonly socketDir: string;
  #settings: Settings;
  #process: ChildProcess | null = null;
  #client: Client | null = null;

  constructor({ folder, port, settings }: { folder: string; port: number; settings: Settings }) {
    this.socketDir = folder;
    this.dataDir = join(folder, 'data');
    this.port = port;
    this.#settings = settings;
  }

  get url(): string {
    return this.urlOf('postgres');
  }

  urlOf(user: string, password?: string): string {
    return `postgresql://${user}${password === undefined ? '' : `:${password}`}@127.0.0.1:${this.port}/postgres`;
  }

  get socketUrl(): string {
    return `postgresql://postgres@/postgres?host=${encodeURIComponent(this.socketDir)}&port=${this.port}`;
  }

  get pid(): number {
    if (!this.#process?.pid) throw new Error('postgres does not run');
    return this.#process.pid;
  }

  /** Outside the data directory, so that neither a base backup nor pg_rewind brings another server's. */
  get #config(): string {
    return join(this.socketDir, 'postgresql.conf');
  }

  get #log(): string {
    return join(this.socketDir, 'log');
  }

  async start(settings: Settings = {}): Promise<void> {
    this.#settings = { ...this.#settings, ...settings };
    await writeFile(this.#config, this.#configuration());
    // Ends with the test that started it, however that ends. Its own children end with it.
    const server = [programPath('postgres'), '-D', this.dataDir, '-c', `config_file=${this.#config}`];
    const child = spawn('/bin/sh', ['-c', `exec setpriv --pdeathsig KILL -- "$@" 2>>${this.#log}`, 'sh', ...server], {
      ...serverUser,
      stdio: 'ignore',
      cwd: this.socketDir,
      env: ENVIRONMENT,
    });
    this.#process = child;
    const deadline = performance.now() + START_WITHIN_MS;
    while (!this.#client) {
      if (child.exitCode !== null || performance.now() > deadline) {
        throw new Error(`postgres did not start:\n${await readFile(this.#log, 'utf8').catch(String)}`);
      }
      this.#client = await this.connect().catch(() => null);
      if (!this.#client) await delay(30);
    }
  }

  #configuration(): string {
    const own = { port: this.port, listen_addresses: '127.0.0.1', unix_socket_directories: this.socketDir };
    return Object.entries({ ...own, ...SETTINGS, ...this.#settings })
      .map(([name, value]) => `${name} = '${String(value).replaceAll("'", "''")}'\n`)
      .join('');
  }

  async connect({ user = 'postgres', database = 'postgres' } = {}): Promise<Client> {
    const client = new Client({ host: this.socketDir, port: this.port, user, database });
    // Losing its server is what some of these connections are for: the next statement says so.
    client.on('error', () => {});
    await client.connect();
    return client;
  }

  async sql(text: string, values: readonly unknown[] = []): Promise<Row[]> {
    if (!this.#client) throw new Error('postgres does not run');
    const answer = await this.#client.query<Row>(text, [...values]);
    return answer.rows;
  }

  async #value(text: string): Promise<string> {
    const [row] = await this.sql(`SELECT (${text})::text AS value`);
    return String(row?.value);
  }

  lsn(): Promise<string> {
    return this.#value(
      'CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END',
    );
  }

  async timeline(): Promise<number> {
    if ((await this.#value('pg_is_in_recovery()')) === 'false') {
      return Number.parseInt((await this.#value('pg_walfile_name(pg_current_wal_lsn())')).slice(0, 8), 16);
    }
    const received = await this.#value('SELECT received_tli FROM pg_stat_wal_receiver');
    return Number(
      received === 'null' ? await this.#value('SELECT timeline_id FROM pg_control_checkpoint()') : received,
    );
  }

  async waitFor(upTo: string | Pick<Postgres, 'lsn'>): Promise<void> {
    const lsn = typeof upTo === 'string' ? upTo : await upTo.lsn();
    await until(
      `${lsn} is replayed`,
      async () => (await this.#value(`pg_last_wal_replay_lsn() >= '${lsn}'::pg_lsn`)) === 'true',
    );
  }

  async standby({ settings = {}, port = this.port, slot }: StandbyOptions = {}): Promise<Postgres> {
    const folder = await serverFolder('shipmate-postgres-');
    const from = ['-h', '127.0.0.1', '-p', String(port), '-U', 'postgres', ...(slot ? ['-C', '-S', slot] : [])];
    await this.program('pg_basebackup', '-D', join(folder, 'data'), '-R', '-X', 'stream', '-c', 'fast', '-N', ...from);
    return started(new Server({ folder, port: await freePort(), settings: { ...this.#settings, ...settings } }));
  }

  async baseBackup(): Promise<string> {
    const folder = await serverFolder('shipmate-postgres-backup-');
    const from = ['-h', this.socketDir, '-p', String(this.port), '-U', 'postgres'];
    await this.program('pg_basebackup', '-D', folder, '-X', 'none', '--no-slot', '-c', 'fast', '-N', ...from);
    return folder;
  }

  async promote(): Promise<void> {
    if ((await this.#value('pg_promote(true, 60)')) !== 'true') throw new Error('it was not promoted within 60 s');
  }

  async end(how: Ending = 'fast'): Promise<void> {
    const [child, client] = [this.#process, this.#client];
    this.#process = this.#client = null;
    await client?.end().catch(() => {});
    if (!child?.pid || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    const pids = processesOf(child.pid);
    if (how === 'kill') for (const pid of pids) signal(pid, 'SIGKILL');
    else child.kill(ENDINGS[how]);
    await gone;
    await until('all processes of the server are gone', () => !pids.some(isAlive));
  }

  async rewind(to: Pick<Postgres, 'port' | 'sql'>): Promise<void> {
    // Until a promoted server's first checkpoint, pg_rewind takes it to be on the old timeline still, and does nothing.
    await to.sql('CHECKPOINT');
    const source = `host=127.0.0.1 port=${to.port} user=postgres dbname=postgres`;
    // It recovers the server first: with another configuration that would remove WAL and forget the hints.
    const config = `--config-file=${this.#config}`;
    await this.program('pg_rewind', '-D', this.dataDir, `--source-server=${source}`, '-R', config);
  }

  freeze(): void {
    for (const pid of processesOf(this.pid)) signal(pid, 'SIGSTOP');
  }

  thaw(): void {
    for (const pid of processesOf(this.pid)) signal(pid, 'SIGCONT');
  }

  async initPgbench(scale = 1): Promise<void> {
    await this.program('pgbench', ...this.#pgbenchArgs('-i', '-q', '-s', String(scale)));
  }

  async pgbench({ clients = 2, transactions = 100, rate }: PgbenchOptions = {}): Promise<void> {
    const pace = rate === undefined ? [] : ['-R', String(rate)];
    const args = ['-n', '-c', String(clients), '-t', String(transactions), ...pace];
    await this.program('pgbench', ...this.#pgbenchArgs(...args));
  }

  startPgbench({ clients = 2, rate = 300 }: Pick<PgbenchOptions, 'clients' | 'rate'> = {}): Load {
    const args = this.#pgbenchArgs('-n', '-c', String(clients), '-R', String(rate), '-T', String(LOAD_SECONDS));
    const own = ['--pdeathsig', 'KILL', '--', programPath('pgbench'), ...args];
    const child = spawn('setpriv', own, { ...serverUser, stdio: 'ignore', env: ENVIRONMENT });
    const ended = once(child, 'exit');
    return {
      stop: async () => {
        child.kill('SIGTERM');
        await ended;
        await this.#withoutPgbench();
      },
    };
  }

  #pgbenchArgs(...args: string[]): string[] {
    return ['-h', this.socketDir, '-p', String(this.port), '-U', 'postgres', ...args, 'postgres'];
  }

  /** Waits until the backends of a pgbench that ended have committed what they were at. */
  async #withoutPgbench(): Promise<void> {
    const backends = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'";
    await until('pgbench has left', async () => !this.#client || (await this.#value(backends)) === '0');
  }

  async checksums(): Promise<Record<string, string>> {
    const tables = await this.sql(
      `SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables
       WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1`,
    );
    const sums: Record<string, string> = {};
    for (const { name } of tables) {
      const sum = `SELECT count(*) || ':' || coalesce(sum(hashtextextended(t::text, 0)), 0) FROM ${name} t`;
      sums[String(name)] = await this.#value(sum);
    }
    return sums;
  }

  async amcheck(): Promise<void> {
    const at = ['-h', this.socketDir, '-p', String(this.port), '-U', 'postgres', '-d', 'postgres'];
    await this.program('pg_amcheck', '--install-missing', '--heapallindexed', ...at);
  }

  program(name: string, ...args: string[]): Promise<string> {
    return program(programPath(name), args);
  }

  async stop(): Promise<void> {
    await this.end('kill');
    await rm(this.socketDir, { recursive: true, force: true });
  }
}

const ENVIRONMENT = { PATH: process.env.PATH, LC_ALL: 'C', TZ: 'UTC' };

async function program(path: string, args: readonly string[]): Promise<string> {
  const { stdout } = await run(path, args, { ...serverUser, env: ENVIRONMENT, cwd: '/' });
  return stdout;
}

/** Debian keeps the server's programs off the PATH, and has wrappers there that choose among versions. */
export function programPath(name: string): string {
  const directories = ['/usr/lib/postgresql/15/bin', ...(process.env.PATH ?? '').split(delimiter)];
  const found = directories.map((directory) => join(directory, name)).find(existsSync);
  if (!found) throw new Error(`${name} is not installed: run scripts/setup`);
  return found;
}

function userOf(name: string): { uid: number; gid: number } | Record<string, never> {
  if (process.getuid?.() !== 0) return {};
  const id = (kind: string) => Number(execFileSync('id', [kind, name], { encoding: 'utf8' }));
  return { uid: id('-u'), gid: id('-g') };
}

/** A temporary folder of the server's user; short, since a socket's path must be. */
export async function serverFolder(prefix: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), prefix));
  if (serverUser.uid !== undefined) chownSync(folder, serverUser.uid, serverUser.gid);
  chmodSync(folder, 0o700);
  return folder;
}

/** Lets servers read what was restored beside them, as whoever restores for them must. */
export async function giveToServer(path: string): Promise<void> {
  if (serverUser.uid !== undefined) await run('chown', ['-R', `${serverUser.uid}:${serverUser.gid}`, path]);
}

/** The postmaster, held still meanwhile so that it starts no other, and its children, which have sessions of their own. */
function processesOf(postmaster: number): number[] {
  signal(postmaster, 'SIGSTOP');
  const children = readdirSync('/proc')
    .map(Number)
    .filter((pid) => pid > 0 && statOf(pid)?.parent === postmaster);
  signal(postmaster, 'SIGCONT');
  return [postmaster, ...children];
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended by itself.
  }
}

function isAlive(pid: number): boolean {
  const state = statOf(pid)?.state;
  return state !== undefined && state !== 'Z' && state !== 'X';
}

function statOf(pid: number): { state: string; parent: number } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [state = '', parent = ''] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return { state, parent: Number(parent) };
  } catch {
    return undefined;
  }
}

const installed = new Map<number, Promise<string>>();

/** An empty cluster, installed once and kept for later runs: copying it takes a tenth of the time. */
function emptyCluster(walSegmentMiB: number): Promise<string> {
  const known = installed.get(walSegmentMiB) ?? install(walSegmentMiB);
  installed.set(walSegmentMiB, known);
  return known;
}

async function install(walSegmentMiB: number): Promise<string> {
  const version = (await program(programPath('postgres'), ['--version'])).match(/[\d.]+/)?.[0] ?? 'unknown';
  const kept = join(tmpdir(), `shipmate-postgres-empty-${version}-${walSegmentMiB}-${process.getuid?.()}`);
  if (existsSync(join(kept, 'PG_VERSION'))) return kept;
  const folder = await serverFolder('shipmate-postgres-install-');
  const fresh = join(folder, 'data');
  await initdb(fresh, walSegmentMiB);
  // Another test may have been quicker; its cluster is as good.
  await rename(fresh, kept).catch(() => {});
  await rm(folder, { recursive: true, force: true });
  return kept;
}

async function initdb(directory: string, walSegmentMiB: number): Promise<void> {
  const kind = ['-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', `--wal-segsize=${walSegmentMiB}`];
  await program(programPath('initdb'), ['-D', directory, '--no-sync', '--no-instructions', ...kind]);
}
