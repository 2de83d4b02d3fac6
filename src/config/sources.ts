import { z } from 'zod';
import { duration, object, path, withHint } from './values.ts';

function hasKnownParameters(url: string): boolean {
  return [...(URL.parse(url)?.searchParams.keys() ?? [])].every((name) => name === 'socket');
}

const binlogSource = object({
  type: z.enum(['mariadb', 'mysql']).describe('Whose binlogs (docs/mariadb.md).'),
  dir: path.describe('Where the binlogs are.'),
  index: z.string().min(1).exactOptional().meta({
    title: 'path',
    description: 'The index file, absolute or below "dir". By default the one that is found there.',
  }),
  url: z
    .url({
      protocol: /^(mariadb|mysql)$/,
      hostname: /^.*$/,
      error: 'must be a URL such as mariadb://shipmate@127.0.0.1:3306',
    })
    .refine(hasKnownParameters, 'takes no parameter but "socket"')
    .exactOptional()
    .meta({
      title: 'URL',
      description:
        '"mariadb://USER:PASSWORD@HOST:PORT", or "mariadb://USER@localhost/?socket=PATH", for what only SQL knows: ' +
        'whether the server is writable, replicates, what it purges. A pair needs it: without it no fork is taken by ' +
        'itself.',
    }),
});

/** As libpq takes it: with a socket's directory in its query, a URL may have a user and no host. */
function isPostgresUrl(text: string): boolean {
  const { protocol } = URL.parse(text.replace(/@(?=[/?]|$)/, '@localhost')) ?? {};
  return protocol === 'postgresql:' || protocol === 'postgres:';
}

const postgresSource = object({
  type: z.literal('postgres').describe('The WAL of a server (docs/postgres.md).'),
  dir: path.describe('The data directory, with "pg_wal" below it.'),
  url: z
    .string()
    .refine(isPostgresUrl, 'must be a URL such as postgresql://shipmate@/postgres?host=/run/postgresql')
    .meta({
      title: 'URL',
      description:
        '"postgresql://USER:PASSWORD@HOST:PORT/DATABASE", or "postgresql://USER@/DATABASE?host=DIRECTORY" with its ' +
        'socket\'s: the server that runs on "dir", which says up to where its WAL is safe. A user with "pg_monitor" and ' +
        '"REPLICATION".',
    }),
  slot: z
    .string()
    .regex(/^[a-z0-9_]{1,63}$/, withHint('is not a valid slot name', 'use lower-case letters, digits and "_"'))
    .exactOptional()
    .meta({
      title: 'text: lower-case letters, digits, "_"',
      description:
        'The physical replication slot that keeps WAL until it is shipped. By default "shipmate_" and the stream\'s ' +
        'name, with "_" for anything else in that.',
    }),
});

const fileName = z
  .string()
  .regex(/^[^/]+$/, 'must be a name, without a directory')
  .meta({ title: 'file name' });

const filesSource = object({
  type: z.literal('files').describe('A directory of files that are only appended to (docs/files.md).'),
  dir: path.describe('Where the files are.'),
  layout: z
    .enum(['plain', 'redis-aof'])
    .default('plain')
    .describe(
      '"redis-aof" is the append-only directory of Redis 7: its manifest says which files there are, and in what order, ' +
        'without "match", "order", "live" and "cut".',
    ),
  match: z.string().min(1).prefault('*').meta({ title: 'glob', description: 'Which of them, by their names.' }),
  order: z
    .enum(['number', 'name'])
    .default('number')
    .describe('How names follow each other: by the numbers in them, or bytewise.'),
  live: fileName
    .exactOptional()
    .describe('The file that is written, where rotation renames it ("audit.log", then "audit.log.1").'),
  cut: z
    .enum(['byte', 'line'])
    .default('byte')
    .describe('Whether bytes are shipped as they come, or whole lines only while a file grows.'),
  settle: duration({ min: '0s', max: '1h' })
    .prefault('5s')
    .describe('How long a file must not have grown, once another follows it, to count as ended.'),
  shared: z
    .boolean()
    .default(false)
    .describe('Whether the twins see this very directory. Otherwise no twin of another host takes over.'),
}).refine(
  ({ layout, match, order, live, cut }) =>
    layout === 'plain' || (match === '*' && order === 'number' && live === undefined && cut === 'byte'),
  '"match", "order", "live" and "cut" are for the layout "plain": of Redis the manifest tells all',
);

export const source = z.discriminatedUnion('type', [binlogSource, postgresSource, filesSource]);

export type BinlogConfig = z.output<typeof binlogSource>;
export type PostgresConfig = z.output<typeof postgresSource>;
export type FilesConfig = z.output<typeof filesSource>;
