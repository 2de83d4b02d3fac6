import { readdir, readFile, readlink, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** A process of this host, as far as this user may see it. */
export interface SeenProcess {
  readonly pid: number;
  readonly program: string;
  readonly args: readonly string[];
  /** Null: another user's. Servers work in their data directory. */
  readonly cwd: string | null;
  /** Files that it has open; empty where they can't be seen. */
  readonly files: readonly string[];
  /** Paths of the sockets that it listens on. */
  readonly sockets: readonly string[];
  /** TCP ports that it listens on. */
  readonly ports: readonly number[];
  readonly uid: number;
}

const LISTENS = '0A';
const ACCEPTS = '00010000';

/** Processes whose program has one of these names, of this mount namespace: what a container sees is elsewhere. */
export async function findProcesses(programs: ReadonlySet<string>): Promise<SeenProcess[]> {
  const pids = (await readdir('/proc').catch(() => [])).map(Number).filter((pid) => pid > 0);
  const own = await readlink('/proc/self/ns/mnt').catch(() => null);
  const listening = await listeners();
  const seen = await Promise.all(
    pids.map(async (pid) => {
      const program = (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')).trim();
      if (!programs.has(program)) return null;
      const namespace = await readlink(`/proc/${pid}/ns/mnt`).catch(() => own);
      return namespace === own ? look({ pid, program }, listening).catch(() => null) : null;
    }),
  );
  return seen.filter((process) => process !== null);
}

async function look(
  { pid, program }: Pick<SeenProcess, 'pid' | 'program'>,
  listening: Listening,
): Promise<SeenProcess> {
  const [args, cwd, open, { uid }] = await Promise.all([
    readFile(`/proc/${pid}/cmdline`, 'utf8'),
    readlink(`/proc/${pid}/cwd`).catch(() => null),
    openFiles(pid),
    stat(`/proc/${pid}`),
  ]);
  const inodes = open.flatMap((path) => /^socket:\[(\d+)\]$/.exec(path)?.[1] ?? []);
  return {
    pid,
    program,
    args: args.split('\0').filter((arg) => arg !== ''),
    cwd,
    files: open.filter((path) => path.startsWith('/')),
    sockets: inodes.flatMap((inode) => listening.sockets.get(inode) ?? []),
    ports: [...new Set(inodes.flatMap((inode) => listening.ports.get(inode) ?? []))],
    uid,
  };
}

async function openFiles(pid: number): Promise<string[]> {
  const dir = `/proc/${pid}/fd`;
  const numbers = await readdir(dir).catch(() => []);
  return Promise.all(numbers.map((number) => readlink(join(dir, number)).catch(() => '')));
}

/** By inode. */
interface Listening {
  readonly sockets: ReadonlyMap<string, string>;
  readonly ports: ReadonlyMap<string, number>;
}

async function listeners(): Promise<Listening> {
  const rows = async (name: string) =>
    (await readFile(`/proc/net/${name}`, 'utf8').catch(() => '')).split('\n').map((line) => line.trim().split(/\s+/));
  const tcp = [...(await rows('tcp')), ...(await rows('tcp6'))].filter(([, , , state]) => state === LISTENS);
  const unix = (await rows('unix')).filter(([, , , flags, , , , path]) => flags === ACCEPTS && path?.startsWith('/'));
  return {
    sockets: new Map(unix.map((row) => [row[6]!, row[7]!])),
    ports: new Map(tcp.map((row) => [row[9]!, Number.parseInt(row[1]!.split(':')[1]!, 16)])),
  };
}
