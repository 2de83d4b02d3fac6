import { UsageError } from '../errors.ts';
import type { Database } from './databases.ts';

/** What was asked, or given by flags. */
export interface Answers {
  readonly node: string;
  readonly cluster: string;
  readonly stateDir: string;
  readonly listen: string;
  /** Null: solo, one daemon without etcd. */
  readonly endpoints: readonly string[] | null;
  /** The primary's config. */
  readonly store: Readonly<Record<string, string>>;
  readonly streams: readonly NamedDatabase[];
  /** System user that the daemon runs as. */
  readonly user: string;
}

export interface NamedDatabase {
  readonly name: string;
  readonly database: Database;
}

/** Statements for an administrator of one server, and what must be done beside them. */
export interface Preparation {
  readonly stream: string;
  /** How to get at the server as its administrator: `mariadb --socket=…`. */
  readonly client: string | null;
  readonly sql: readonly string[];
  /** Lines that belong into files: path to lines, to be put before all others. */
  readonly files: readonly { readonly file: string; readonly lines: readonly string[] }[];
  /** Commands of a shell, as root. */
  readonly shell: readonly string[];
  readonly notes: readonly string[];
}

/** Its role in a database; nothing but what the daemon needs. */
const ROLE = 'shipmate';
/** Kept out of the config, which stands for it by the variable's name. */
export const PASSWORD_VARIABLE = 'SHIPMATE_DB_PASSWORD';

/** A place as it is typed, as a store's config: a directory, or gs://bucket/prefix, s3://…, az://account/container/prefix. */
export function storeOf(place: string): Record<string, string> {
  if (place.startsWith('/')) return { type: 'file', path: place };
  const [, scheme, rest = ''] = /^(gs|s3|az):\/\/(.+)$/.exec(place) ?? [];
  const parts = rest.split('/').filter((part) => part !== '');
  const named = scheme === 'az' ? ['account', 'container'] : ['bucket'];
  if (scheme === undefined || parts.length < named.length) {
    throw new UsageError(
      `"${place}" is no place for the archive`,
      'a directory such as /mnt/backup, or gs://BUCKET/PREFIX, s3://BUCKET/PREFIX, az://ACCOUNT/CONTAINER/PREFIX',
    );
  }
  const prefix = parts.slice(named.length).join('/');
  return {
    type: { gs: 'gcs', s3: 's3', az: 'azure' }[scheme] ?? '',
    ...Object.fromEntries(named.map((name, at) => [name, parts[at]!])),
    ...(prefix && { prefix }),
  };
}

/** The config file's content. */
export function configOf({ node, cluster, stateDir, listen, endpoints, store, streams, user }: Answers): object {
  return {
    node,
    cluster,
    stateDir,
    coordination: endpoints === null ? 'solo' : { etcd: { endpoints } },
    stores: { main: store },
    streams: Object.fromEntries(
      streams.map(({ name, database }) => [name, { source: sourceOf(database, user), store: 'main' }]),
    ),
    admin: { listen },
  };
}

/** Of a host: its directory, and how its server is asked. */
export function sourceOf(database: Database, user: string): Record<string, unknown> {
  const { type, dir, socket, port } = database;
  if (type === 'redis') return { type: 'files', dir, layout: 'redis-aof' };
  if (type === 'postgres') {
    const at = `host=${socket ?? POSTGRES_SOCKETS}&port=${port ?? 5432}`;
    return { type, dir, url: `postgresql://${ROLE}@/postgres?${at}` };
  }
  const login = isKnownBySocket(database, user) ? ROLE : `${ROLE}:\${${PASSWORD_VARIABLE}}`;
  const at = socket === null ? `127.0.0.1:${port ?? 3306}` : `localhost/?socket=${socket}`;
  return { type, dir, url: `${type}://${login}@${at}` };
}

const POSTGRES_SOCKETS = '/var/run/postgresql';

/** By its socket a server knows the system user, and needs no password; MariaDB only one of the account's own name. */
const isKnownBySocket = ({ type, socket }: Database, user: string) =>
  socket !== null && (type === 'mysql' || user === ROLE);

/** Names of users and groups by their numbers. */
export interface Names {
  user(uid: number): string;
  group(gid: number): string;
}

/** What an administrator has to run so that the daemon may read and ask the database, and may do nothing else. */
export function preparationOf(named: NamedDatabase, { user }: Pick<Answers, 'user'>, names: Names): Preparation {
  const { database, name } = named;
  const rights = readingRights(database, user, names);
  const needsPassword = ['mariadb', 'mysql'].includes(database.type) && !isKnownBySocket(database, user);
  const notes = [
    ...(database.problem === null ? [] : [database.problem]),
    ...rights.notes,
    ...(needsPassword
      ? [
          `the daemon takes the password from $${PASSWORD_VARIABLE}: put it, percent-encoded as in a URL, into /etc/default/shipmate, of mode 0600`,
        ]
      : []),
  ];
  const common = { stream: name, files: [], shell: rights.shell, notes };
  switch (database.type) {
    case 'redis':
      return { ...common, client: null, sql: [] };
    case 'postgres':
      return { ...common, ...postgresAccess(database, { user, names }, notes) };
    default:
      return { ...common, ...mysqlAccess(database, user) };
  }
}

function mysqlAccess(database: Database, user: string): Pick<Preparation, 'client' | 'sql'> {
  const { type, socket } = database;
  const account = `'${ROLE}'@'${socket === null ? '127.0.0.1' : 'localhost'}'`;
  const bySocket = type === 'mysql' ? `WITH auth_socket AS '${user}'` : 'VIA unix_socket';
  const grants = type === 'mysql' ? 'REPLICATION CLIENT' : 'REPLICA MONITOR, BINLOG MONITOR';
  // Without its quotes the server refuses the stand-in.
  const identified = isKnownBySocket(database, user) ? bySocket : `BY <what ${PASSWORD_VARIABLE} holds, in quotes>`;
  return {
    client: `${type} ${socket === null ? '' : `--socket=${socket} `}--user=root`,
    sql: [`CREATE USER IF NOT EXISTS ${account} IDENTIFIED ${identified};`, `GRANT ${grants} ON *.* TO ${account};`],
  };
}

function postgresAccess(
  { socket, port, dir, owner }: Database,
  { user, names }: { user: string; names: Names },
  notes: readonly string[],
): Pick<Preparation, 'client' | 'sql' | 'files' | 'notes'> {
  return {
    client: `sudo -u ${names.user(owner.uid)} psql -h ${socket ?? POSTGRES_SOCKETS} -p ${port ?? 5432} postgres`,
    sql: [`CREATE ROLE ${ROLE} LOGIN REPLICATION;`, `GRANT pg_monitor TO ${ROLE};`, 'SELECT pg_reload_conf();'],
    files: [
      { file: 'pg_hba.conf', lines: [`local  postgres  ${ROLE}  peer map=${ROLE}`] },
      { file: 'pg_ident.conf', lines: [`${ROLE}  ${user}  ${ROLE}`] },
    ],
    notes: [...notes, `where pg_hba.conf is: SHOW hba_file; on Debian below /etc/postgresql, not in ${dir}`],
  };
}

/** The log is the server's own: whoever reads it is that user, or in its group, where that may read. */
function readingRights(
  { owner, isGroupReadable, dir }: Database,
  user: string,
  names: Names,
): { shell: string[]; notes: string[] } {
  const ownerName = names.user(owner.uid);
  if (ownerName === user || user === 'root') return { shell: [], notes: [] };
  const isRoots = owner.gid === 0; // whose group nobody should be put into
  if (isGroupReadable && !isRoots) return { shell: [`usermod -aG ${names.group(owner.gid)} ${user}`], notes: [] };
  const hint = `the log in ${dir} is ${ownerName}'s alone: run the daemon as ${ownerName} (setup --user ${ownerName})`;
  return { shell: [], notes: [hint] };
}
