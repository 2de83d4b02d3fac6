import { isAbsolute, normalize } from 'node:path';
import { z } from 'zod';
import { nearestHint } from '../core/nearest.ts';
import { DURATION, parseDuration, parseRate, parseSize, RATE, SIZE } from './units.ts';

/**
 * What a config file may hold, as written there.
 * Names of this version's stores, sources and keys are a contract: they are added to, never changed.
 */

/** An object that refuses keys it does not know, naming the nearest that it does; the hint is below the message. */
function object<T extends z.core.$ZodShape>(shape: T) {
  return z.strictObject(shape, {
    error: (issue) =>
      issue.code === 'unrecognized_keys'
        ? withHint('unknown key', nearestHint(issue.keys[0] ?? '', Object.keys(shape)))
        : undefined,
  });
}

const HINT = '\n';
export const withHint = (message: string, hint: string) => `${message}${HINT}${hint}`;
export function splitHint(text: string): { message: string; hint?: string } {
  const [message = '', hint] = text.split(HINT);
  return hint === undefined ? { message } : { message, hint };
}

const name = z
  .string()
  .max(100)
  .regex(
    /^[a-z0-9][a-z0-9._-]*$/,
    withHint(
      'is not a valid name',
      'use lower-case letters, digits, "-", "_" and ".", and begin with a letter or digit',
    ),
  );

const notEmpty = (all: object) => Object.keys(all).length > 0;

/** Hosts and clusters keep their capitals. */
const hostLikeName = z
  .string()
  .max(200)
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9._-]*$/,
    withHint('is not a valid name', 'use letters, digits, "-", "_" and ".", and begin with a letter or digit'),
  );

// A relative path would mean another place in every working directory.
const path = z
  .string()
  .refine(isAbsolute, 'must be an absolute path')
  .transform((given) => (given === '/' ? given : normalize(given).replace(/\/$/, '')));

function size({ min, max }: { min: string; max: string }) {
  return quantity(parseSize, { min, max, pattern: SIZE, like: 'a size with its unit, such as 64KiB, 8MiB or 1GB' });
}

function duration({ min, max }: { min: string; max: string }) {
  return quantity(parseDuration, {
    min,
    max,
    pattern: DURATION,
    like: 'a time with its unit, such as 20ms, 5s or 15m',
  });
}

const rate = () =>
  quantity(parseRate, {
    min: '1KiB/s',
    max: '1TB/s',
    pattern: RATE,
    like: 'a rate with its unit, such as 40MiB/s or 1Gbit/s',
  });

interface Quantity {
  min: string;
  max: string;
  pattern: RegExp;
  like: string;
}

function quantity(parse: (text: string) => number | null, { min, max, pattern, like }: Quantity) {
  const inRange = (text: string) => {
    const value = parse(text);
    return value !== null && value >= parse(min)! && value <= parse(max)!;
  };
  return z
    .string({ error: `must be ${like}` })
    .regex(pattern, { error: `must be ${like}`, abort: true })
    .refine(inRange, `must be from ${min} to ${max}`)
    .transform((text) => parse(text) ?? 0);
}

const ttl = duration({ min: '2s', max: '5m' }).refine(
  (ms) => ms % 1000 === 0,
  'must be whole seconds: etcd knows no others',
);

const etcd = object({
  endpoints: z
    .array(z.url({ protocol: /^https?$/, error: 'must be a URL such as http://127.0.0.1:2379' }))
    .min(1, 'must name at least one endpoint')
    .describe('Client URLs of the etcd nodes.'),
  ttl: ttl.prefault('5s').describe('Lease of a daemon: how long after its death another takes over.'),
  tls: object({
    ca: path.exactOptional().describe('CA certificate, PEM; by default the system knows whom to trust.'),
    cert: path.exactOptional().describe('Client certificate, PEM.'),
    key: path.exactOptional().describe('Its private key, PEM.'),
  })
    .refine(({ cert, key }) => (cert === undefined) === (key === undefined), '"cert" and "key" go together')
    .exactOptional()
    .describe('For https endpoints.'),
  username: z.string().min(1).exactOptional(),
  passwordFile: path.exactOptional().describe('File whose first line is the password; read when etcd is first used.'),
})
  .refine(
    ({ username, passwordFile }) => (username === undefined) === (passwordFile === undefined),
    '"username" and "passwordFile" go together',
  )
  .refine(({ endpoints, tls }) => tls === undefined || endpoints.every((url) => url.startsWith('https:')), {
    path: ['endpoints'],
    message: 'must all be https, since "tls" is given',
  });

const prefix = z
  .string()
  .regex(/^([A-Za-z0-9_-][A-Za-z0-9._-]*(\/[A-Za-z0-9_-][A-Za-z0-9._-]*)*\/?)?$/, 'must be names with "/" between them')
  .transform((given) => given.replace(/\/$/, ''));

const fileStore = object({
  type: z.literal('file'),
  path: path.describe('An existing directory; it is never created, so that a lost mount is seen.'),
  prefix: prefix.prefault('').describe('Directory below it.'),
});

const quota = size({ min: '1MiB', max: '1000TiB' }).describe(
  'How much the archives in it may take, where copies go to the store with the most room; by default no limit.',
);

const BUCKET = /^[a-z0-9](?!.*\.\.)[a-z0-9._-]{1,220}[a-z0-9]$/;
const ACCESS_TIERS = ['Hot', 'Cool', 'Cold'] as const;
const STORAGE_CLASSES = ['STANDARD', 'NEARLINE', 'COLDLINE', 'ARCHIVE'] as const;

const gcsStore = object({
  type: z.literal('gcs'),
  bucket: z
    .string()
    .regex(
      BUCKET,
      withHint('is not a valid bucket name', 'the name alone, without gs:// and without a path, such as acme-logs'),
    )
    .describe('An existing bucket; it is never created.'),
  prefix: prefix.prefault('').describe('Of all names in it, as a directory.'),
  apiEndpoint: z
    .url({ protocol: /^https?$/, hostname: /^.+$/, error: 'must be a URL such as http://127.0.0.1:4443' })
    .refine((url) => URL.parse(url)?.username === '', 'must not hold a user or password')
    .transform((url) => url.replace(/\/+$/, ''))
    .exactOptional()
    .describe("By default Google's. One with http is an emulator: it is shown no credentials."),
  storageClass: z.enum(STORAGE_CLASSES).exactOptional().describe("Of new objects; by default the bucket's."),
  keyFile: path.exactOptional().describe("Credentials in a JSON file; by default the environment's."),
  quota: quota.exactOptional(),
}).refine(({ apiEndpoint, keyFile }) => keyFile === undefined || !apiEndpoint?.startsWith('http:'), {
  path: ['apiEndpoint'],
  message: 'must be https, since "keyFile" is given',
});

const endpoint = (like: string) =>
  z
    .url({ protocol: /^https?$/, hostname: /^.+$/, error: `must be a URL such as ${like}` })
    .refine((url) => URL.parse(url)?.username === '', 'must not hold a user or password')
    .transform((url) => url.replace(/\/+$/, ''));

const s3Store = object({
  type: z.literal('s3'),
  bucket: z
    .string()
    .regex(
      /^[a-z0-9](?!.*\.\.)[a-z0-9.-]{1,61}[a-z0-9]$/,
      withHint('is not a valid bucket name', 'the name alone, without s3:// and without a path, such as acme-logs'),
    )
    .describe('An existing bucket; it is never created.'),
  prefix: prefix.prefault('').describe('Of all names in it, as a directory.'),
  region: z
    .string()
    .regex(/^[a-z0-9-]+$/, 'must be a region such as eu-central-1')
    .exactOptional()
    .describe("Of the bucket; by default the environment's."),
  endpoint: endpoint('https://s3.example.com').exactOptional().describe("By default AWS's for the region."),
  forcePathStyle: z.boolean().exactOptional().describe("The bucket in the path, not in the host's name."),
  storageClass: z
    .string()
    .regex(/^[A-Z0-9_-]+$/, 'must be a storage class such as STANDARD_IA')
    .exactOptional()
    .describe("Of new objects; by default the bucket's."),
  quota: quota.exactOptional(),
});

const azureStore = object({
  type: z.literal('azure'),
  container: z
    .string()
    .regex(
      /^[a-z0-9](?!.*--)[a-z0-9-]{1,61}[a-z0-9]$/,
      withHint('is not a valid container name', 'the name alone, without the account and without a path'),
    )
    .describe('An existing container; it is never created.'),
  prefix: prefix.prefault('').describe('Of all names in it, as a directory.'),
  account: z
    .string()
    .regex(/^[a-z0-9]{3,24}$/, 'must be the name of a storage account')
    .exactOptional()
    .describe("The storage account; credentials are the environment's."),
  endpoint: endpoint('https://acme.blob.core.windows.net')
    .refine((url) => url.startsWith('https:'), 'must be https: an emulator is named by "connectionStringFile"')
    .exactOptional()
    .describe('The same by its address, where it has another than usual.'),
  connectionStringFile: path.exactOptional().describe('The same by a file, whose first line holds its key too.'),
  accessTier: z.enum(ACCESS_TIERS).exactOptional().describe("Of new objects; by default the account's."),
  quota: quota.exactOptional(),
}).refine(
  (store) =>
    [store.account, store.endpoint, store.connectionStringFile].filter((one) => one !== undefined).length === 1,
  'needs exactly one of "account", "endpoint" and "connectionStringFile"',
);

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

const counted = (what: string) => z.int().min(1).max(100_000).exactOptional().describe(what);

/** What retention keeps: everything that any of these asks for. */
const keep = object({
  age: duration({ min: '1m', max: `${100 * 365}d` })
    .exactOptional()
    .describe('The log of so long.'),
  segments: counted('So many of the newest segments.'),
  daily: counted('The log back to the oldest of so many days that have any.'),
  weekly: counted('The same in weeks (ISO 8601, UTC).'),
  monthly: counted('The same in months.'),
}).refine(notEmpty, 'must say what is kept: "age", "segments", "daily", "weekly" or "monthly"');

/** Bech32 of 32 bytes; the checksum is checked where the key is used. */
const RECIPIENT = /^age1[02-9ac-hj-np-z]{58}$/;

const encrypt = object({
  recipients: z
    .array(
      z
        .string()
        .regex(
          RECIPIENT,
          withHint(
            'is not an age recipient',
            'the public key that "age-keygen -y KEYFILE" prints: age1 and 58 characters',
          ),
        ),
    )
    .min(1, 'must name at least one recipient')
    .refine((all) => new Set(all).size === all.length, 'must not name a recipient twice')
    .describe('Public keys of age; whoever has the private key of one of them can read what is shipped from now on.'),
});

const stream = object({
  source: z.discriminatedUnion('type', [binlogSource, postgresSource, filesSource]),
  store: name.exactOptional().describe('Where it goes: a name below "stores". This or "plan".'),
  plan: name.exactOptional().describe('Where it goes: a name below "plans". This or "store".'),
  chunk: object({
    maxBytes: size({ min: '1KiB', max: '1GiB' }).prefault('8MiB').describe('Log bytes shipped at once, at most.'),
    maxDelay: duration({ min: '1ms', max: '1h' })
      .prefault('1s')
      .describe('How long bytes wait for others to be shipped with; the first ones after a pause leave at once.'),
  }).prefault({}),
  encrypt: encrypt.exactOptional().describe('Encrypts what is shipped; nothing on this host can read it again.'),
  keep: keep.exactOptional().describe('What "shipmate prune" leaves in the stores; without it, everything.'),
}).refine(
  ({ store, plan }) => (store === undefined) !== (plan === undefined),
  'needs exactly one of "store" and "plan"',
);

const className = z.enum(['slow', 'standard', 'fast']);

const plan = object({
  primary: name.describe('A name below "stores".'),
  copies: z
    .array(name)
    .refine((all) => new Set(all).size === all.length, 'must not name a store twice')
    .default([])
    .describe('Names below "stores", to which the archive is copied from the primary.'),
  count: z.int().min(1).exactOptional().describe('To how many of them; by default to all.'),
  delay: duration({ min: '0s', max: '365d' })
    .prefault('0s')
    .describe('How much later: the first copy after so long, the second after twice that, and so on.'),
  order: z
    .array(name)
    .refine((all) => new Set(all).size === all.length, 'must not name a store twice')
    .default([])
    .describe('Which copies come first; the others follow in the order of their free capacity.'),
  ack: z
    .int()
    .min(1)
    .default(1)
    .describe('How many stores, the primary among them, must hold a chunk before the source may let go of it.'),
  class: className.default('standard').describe('The bandwidth class in which copies are made.'),
})
  .refine(({ primary, copies }) => !copies.includes(primary), {
    path: ['copies'],
    message: 'must not name the primary',
  })
  .refine(({ copies, count }) => count === undefined || count <= copies.length, {
    path: ['count'],
    message: 'must not be more than there are copies',
  })
  .refine(({ copies, count, ack }) => ack <= 1 + (count ?? copies.length), {
    path: ['ack'],
    message: 'must not be more than the primary and its copies',
  })
  .refine(({ copies, order }) => order.every((one) => copies.includes(one)), {
    path: ['order'],
    message: 'must name copies only',
  });

const TIME_OF_DAY = /^([01]\d|2[0-3]):[0-5]\d$/;
const timeOfDay = z.string().regex(TIME_OF_DAY, 'must be a time of day such as "22:00"');

const share = z
  .string()
  .regex(/^\d{1,3}%$/, { error: 'must be a share such as 50%', abort: true })
  .transform((text) => Number.parseInt(text, 10) / 100)
  .refine((part) => part <= 1, 'must be at most 100%');

const bandwidth = {
  link: rate().describe('What may be sent to stores at all, of every stream of this daemon together.'),
  shipping: share.describe('The share of it that log shipping is always given when it wants it.'),
  classes: object({
    slow: rate().exactOptional(),
    standard: rate().exactOptional(),
    fast: rate().exactOptional(),
  }).describe('What copies of a class are always given when they want it.'),
};

const limits = object({
  link: bandwidth.link,
  shipping: bandwidth.shipping.prefault('50%'),
  classes: bandwidth.classes.prefault({}),
  schedule: z
    .array(
      object({
        from: timeOfDay,
        to: timeOfDay,
        link: bandwidth.link.exactOptional(),
        shipping: bandwidth.shipping.exactOptional(),
        classes: bandwidth.classes.exactOptional(),
      }),
    )
    .default([])
    .describe('Other limits at times of the day, in the time zone of the host; the first that fits counts.'),
});

const LISTEN = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/;
const listen = z
  .string()
  .regex(LISTEN, { error: 'must be HOST:PORT, such as 127.0.0.1:9187 or [::1]:9187', abort: true })
  .transform((text) => {
    const [, ipv6, host, port] = LISTEN.exec(text) ?? [];
    return { host: ipv6 ?? host ?? '', port: Number(port) };
  })
  .refine(({ port }) => port <= 65535, 'must have a port of at most 65535');

export const configFile = object({
  node: hostLikeName.exactOptional().describe("This twin's name, unique among the twins; by default the host's name."),
  cluster: hostLikeName.describe("The twins' shared name space in etcd and on the status page."),
  stateDir: path.prefault('/var/lib/shipmate').describe('Archive ids and secrets; mode 0700.'),
  coordination: z.union([z.literal('solo'), object({ etcd })], {
    error: 'must be "solo", or hold "etcd"',
  }),
  onEtcdLoss: z
    .enum(['continue', 'stop'])
    .default('continue')
    .describe('What a master does whose lease runs out while etcd cannot be reached.'),
  stores: z
    .record(name, z.discriminatedUnion('type', [fileStore, gcsStore, s3Store, azureStore]))
    .refine(notEmpty, 'must hold at least one store'),
  plans: z.record(name, plan).default({}),
  limits: limits.exactOptional().describe('Bandwidth; without it nothing is held back.'),
  streams: z.record(name, stream).refine(notEmpty, 'must hold at least one stream'),
  admin: z
    .union([z.literal(false), z.literal('off'), object({ listen })], { error: 'must be "off", or hold "listen"' })
    .default('off')
    .describe('HTTP for metrics, health and status; reads only.'),
});

export type ConfigFile = z.output<typeof configFile>;
export type StoreConfig = ConfigFile['stores'][string];
export type SourceConfig = ConfigFile['streams'][string]['source'];
export type BinlogConfig = z.output<typeof binlogSource>;
export type PostgresConfig = z.output<typeof postgresSource>;
export type FilesConfig = z.output<typeof filesSource>;
export type EtcdConfig = z.output<typeof etcd>;
export type PlanFile = ConfigFile['plans'][string];
export type LimitsFile = NonNullable<ConfigFile['limits']>;
export type ClassName = z.output<typeof className>;
