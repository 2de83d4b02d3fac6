import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { findProcesses, type SeenProcess } from './processes.ts';

/** A database of this host whose log can be shipped. */
export interface Database {
  readonly type: 'mariadb' | 'mysql' | 'postgres' | 'redis';
  /** As the config takes it: where the binlogs are, the data directory, or the append-only directory. */
  readonly dir: string;
  /** Where the server is asked: a socket's path (PostgreSQL: its directory). Null: not known. */
  readonly socket: string | null;
  readonly port: number | null;
  /** System user and group that the log belongs to. */
  readonly owner: { readonly uid: number; readonly gid: number };
  /** Whether the group may read the log. */
  readonly isGroupReadable: boolean;
  /** What must be mended before anything can be shipped; null: nothing is known. */
  readonly problem: string | null;
}

const SERVERS = new Set(['mariadbd', 'mysqld', 'postgres', 'redis-server']);

/** The database servers that run here, by directory. Only root, or a server's own user, sees all of one. */
export async function findDatabases(): Promise<Database[]> {
  const processes = await findProcesses(SERVERS);
  const found = await Promise.all(processes.map((process) => databaseOf(process).catch(() => null)));
  const byDir = new Map(found.filter((one) => one !== null).map((one) => [one.dir, one]));
  return [...byDir.values()].sort((a, b) => (a.dir < b.dir ? -1 : 1));
}

/** What a directory holds, whether or not its server was seen. Null: nothing that is known. */
export async function databaseIn(dir: string, running: readonly Database[]): Promise<Database | null> {
  const path = resolve(dir);
  const seen = running.find((one) => one.dir === path);
  if (seen) return seen;
  const names = await namesIn(path);
  if (names.includes('PG_VERSION')) return postgresIn(path);
  if (names.some((name) => name.endsWith('.manifest'))) return redisIn(path);
  if (names.some((name) => name.endsWith('.index'))) return binlogsIn('mariadb', path, {});
  return null;
}

function databaseOf(process: SeenProcess): Promise<Database | null> {
  switch (process.program) {
    case 'postgres':
      return postgresOf(process);
    case 'redis-server':
      return redisOf(process);
    default:
      return mysqlOf(process, process.program === 'mysqld' ? 'mysql' : 'mariadb');
  }
}

/** `--name=value` and `--name value`. */
function argument({ args }: SeenProcess, ...names: string[]): string | null {
  for (const [at, arg] of args.entries()) {
    for (const name of names) {
      if (arg === name) return args[at + 1] ?? null;
      if (arg.startsWith(`${name}=`)) return arg.slice(name.length + 1);
    }
  }
  return null;
}

async function mysqlOf(process: SeenProcess, type: 'mariadb' | 'mysql'): Promise<Database> {
  const data = argument(process, '--datadir') ?? process.cwd ?? '/var/lib/mysql';
  // It holds its newest binlog open, wherever that is; a relay log's name says so.
  const open = process.files.find((path) => /\.\d{6,}$/.test(path) && !/relay/.test(basename(path)));
  const named = argument(process, '--log-bin', '--log_bin');
  const dir = open ? dirname(open) : named?.startsWith('/') ? dirname(named) : resolve(data);
  const socket = process.sockets.find((path) => !/mysqlx/.test(path)) ?? argument(process, '--socket');
  const port = process.ports[0] ?? Number(argument(process, '--port') ?? 3306);
  const isHidden = process.files.length === 0;
  return binlogsIn(type, dir, { socket, port, uid: process.uid, writes: isHidden || open !== undefined });
}

/** What its process tells. */
interface BinlogServer {
  readonly socket?: string | null;
  readonly port?: number | null;
  readonly uid?: number;
  readonly writes?: boolean;
}

async function binlogsIn(
  type: 'mariadb' | 'mysql',
  dir: string,
  { socket = null, port = null, uid = 0, writes = true }: BinlogServer,
): Promise<Database> {
  const names = await namesIn(dir);
  const newest = names
    .filter((name) => /\.\d{6,}$/.test(name) && !/relay/.test(name))
    .sort()
    .at(-1);
  const problem = writes ? null : 'it writes no binlogs: set log_bin in its configuration, and restart it';
  return { type, dir, socket, port, problem, ...(await rightsOf(newest === undefined ? dir : join(dir, newest), uid)) };
}

async function postgresOf(process: SeenProcess): Promise<Database | null> {
  const dir = process.cwd ?? argument(process, '-D'); // which may be its configuration's
  if (dir === null || process.args[0]?.includes(':')) return null; // `postgres: walwriter` is a part of one
  return postgresIn(resolve(dir), process.uid);
}

async function postgresIn(dir: string, uid = 0): Promise<Database> {
  // Pid, directory, start, port, socket's directory, address; see the server's miscadmin.h.
  const [, , , port, socket] = (await readFile(join(dir, 'postmaster.pid'), 'utf8').catch(() => '')).split('\n');
  const problem = port === undefined ? "its server does not run, or its directory can't be read" : null;
  return {
    type: 'postgres',
    dir,
    socket: socket || null,
    port: Number(port) || null,
    problem,
    ...(await rightsOf(dir, uid)),
  };
}

async function redisOf(process: SeenProcess): Promise<Database | null> {
  if (process.cwd === null) return null;
  const names = await namesIn(process.cwd);
  const folders = names.filter((name) => /appendonly/.test(name));
  for (const folder of folders) {
    const dir = join(process.cwd, folder);
    if ((await namesIn(dir)).some((name) => name.endsWith('.manifest'))) return redisIn(dir);
  }
  return null; // without an append-only log there is nothing to ship
}

async function redisIn(dir: string): Promise<Database> {
  return { type: 'redis', dir, socket: null, port: null, problem: null, ...(await rightsOf(dir)) };
}

const namesIn = (dir: string): Promise<string[]> => readdir(dir).catch(() => []);

/** Of what can't be looked at: the server's own, as its process tells. */
async function rightsOf(path: string, serverUid = 0): Promise<Pick<Database, 'owner' | 'isGroupReadable'>> {
  const { uid, gid, mode } = await stat(path).catch(() => ({ uid: serverUid, gid: 0, mode: 0 }));
  return { owner: { uid, gid }, isGroupReadable: (mode & 0o040) !== 0 };
}
