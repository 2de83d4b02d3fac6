import { z } from 'zod';
import { duration, object, path, withHint } from './values.ts';

const binlogSource = object({
  type: z.enum(['mariadb', 'mysql']),
  dir: path.describe('Where the binlogs are.'),
  index: z.string().min(1).exactOptional().describe('The index file, absolute or below dir; found there by default.'),
  url: z
    .url({
      protocol: /^(mariadb|mysql)$/,
      hostname: /^.*$/,
      error: 'must be a URL such as mariadb://shipmate@127.0.0.1:3306',
    })
    .exactOptional()
    .describe('For what only SQL knows: whether the server is writable, replicates, what it purges.'),
});

/** As libpq takes it: with a socket's directory in its query, a URL may have a user and no host. */
function isPostgresUrl(text: string): boolean {
  const { protocol } = URL.parse(text.replace(/@(?=[/?]|$)/, '@localhost')) ?? {};
  return protocol === 'postgresql:' || protocol === 'postgres:';
}

const postgresSource = object({
  type: z.literal('postgres'),
  dir: path.describe('The data directory; the WAL is in pg_wal below it.'),
  url: z
    .string()
    .refine(isPostgresUrl, 'must be a URL such as postgresql://shipmate@/postgres?host=/run/postgresql')
    .describe('How to ask the server up to where its WAL is safe; a user with pg_monitor and REPLICATION.'),
  slot: z
    .string()
    .regex(/^[a-z0-9_]{1,63}$/, withHint('is not a valid slot name', 'use lower-case letters, digits and "_"'))
    .exactOptional()
    .describe("The physical replication slot; by default shipmate_ and the stream's name."),
});

const fileName = z.string().regex(/^[^/]+$/, 'must be a name, without a directory');

const filesSource = object({
  type: z.literal('files'),
  dir: path.describe('Where the files are.'),
  layout: z
    .enum(['plain', 'redis-aof'])
    .default('plain')
    .describe("redis-aof: Redis 7's append-only directory; its manifest says which files, and in what order."),
  match: z.string().min(1).prefault('*').describe('Which of them: a glob over their names.'),
  order: z
    .enum(['number', 'name'])
    .default('number')
    .describe('How names follow each other: numbers in them as numbers, or bytewise.'),
  live: fileName.exactOptional().describe('The name of the file that is written, where rotation renames it.'),
  cut: z.enum(['byte', 'line']).default('byte').describe('Whether only whole lines are shipped while a file grows.'),
  settle: duration({ min: '0s', max: '1h' })
    .prefault('5s')
    .describe('How long a file must not have grown, once another follows it, to count as ended.'),
  shared: z
    .boolean()
    .default(false)
    .describe('Whether the twins see the same directory; otherwise no twin of another host takes over.'),
}).refine(
  ({ layout, match, order, live, cut }) =>
    layout === 'plain' || (match === '*' && order === 'number' && live === undefined && cut === 'byte'),
  '"match", "order", "live" and "cut" are for the layout "plain": of Redis the manifest tells all',
);

export const source = z.discriminatedUnion('type', [binlogSource, postgresSource, filesSource]);

export type BinlogConfig = z.output<typeof binlogSource>;
export type PostgresConfig = z.output<typeof postgresSource>;
export type FilesConfig = z.output<typeof filesSource>;
