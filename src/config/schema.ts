import { z } from 'zod';
import { LOG_LEVELS } from '../core/log.ts';
import { encrypt, keep, plan } from './delivery.ts';
import { limits } from './limits.ts';
import { source } from './sources.ts';
import { store } from './stores.ts';
import { duration, hostLikeName, name, namesNobody, notEmpty, object, path, size, withHint } from './values.ts';

/**
 * What a config file may hold, as written there.
 * Names of this version's stores, sources and keys are a contract: they are added to, never changed.
 */

const ttl = duration({ min: '2s', max: '5m' })
  .refine((ms) => ms % 1000 === 0, 'must be whole seconds: etcd knows no others')
  .meta({ title: 'time, 2s to 5m, whole seconds' });

const etcd = object({
  endpoints: z
    .array(
      z
        .url({ protocol: /^https?$/, error: 'must be a URL such as http://127.0.0.1:2379' })
        .refine(
          namesNobody,
          withHint('must not hold a user or password', 'they go into "username" and "passwordFile"'),
        ),
    )
    .min(1, 'must name at least one endpoint')
    .meta({ title: 'list of URLs', description: 'Client URLs of the etcd members; all https if "tls" is given.' }),
  ttl: ttl.prefault('5s').describe('Lease of a daemon: how long after its death another takes over.'),
  tls: object({
    ca: path.exactOptional().describe('CA certificate, PEM. By default those that the system trusts.'),
    cert: path.exactOptional().describe('Client certificate, PEM; with "key".'),
    key: path.exactOptional().describe('Private key of "cert", PEM.'),
  })
    .refine(({ cert, key }) => (cert === undefined) === (key === undefined), '"cert" and "key" go together')
    .exactOptional()
    .describe('For https endpoints.'),
  username: z
    .string()
    .min(1)
    .exactOptional()
    .meta({ title: 'text', description: 'The user in etcd, where it demands one; with "passwordFile".' }),
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

const stream = object({
  source,
  store: name.exactOptional().describe('Where it goes: a name below "stores". Either this or "plan".'),
  plan: name.exactOptional().describe('Where it goes: a name below "plans". Either this or "store".'),
  chunk: object({
    maxBytes: size({ min: '1KiB', max: '1GiB' }).prefault('8MiB').describe('Log bytes shipped at once, at most.'),
    maxDelay: duration({ min: '1ms', max: '1h' })
      .prefault('1s')
      .describe('How long bytes wait for others to be shipped with. The first ones after a pause leave at once.'),
  }).prefault({}),
  encrypt: encrypt.exactOptional().describe('Encrypts what is shipped from now on (docs/encryption.md).'),
  keep: keep
    .exactOptional()
    .describe(
      'What "shipmate prune" leaves in the stores: all that any of its keys asks for. Without it, everything ' +
        '(docs/retention.md).',
    ),
}).refine(
  ({ store, plan }) => (store === undefined) !== (plan === undefined),
  'needs exactly one of "store" and "plan"',
);

const LISTEN = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/;
const listen = z
  .string()
  .regex(LISTEN, { error: 'must be HOST:PORT, such as 127.0.0.1:9187 or [::1]:9187', abort: true })
  .transform((text) => {
    const [, ipv6, host, port] = LISTEN.exec(text) ?? [];
    return { host: ipv6 ?? host ?? '', port: Number(port) };
  })
  .refine(({ port }) => port <= 65535, 'must have a port of at most 65535')
  .meta({
    title: 'HOST:PORT',
    description: 'Where it listens, such as "127.0.0.1:9187" or "[::1]:9187"; port 0 takes any free one.',
  });

export const configFile = object({
  node: hostLikeName.exactOptional().describe("This twin's name, unique among the twins. By default the host's name."),
  cluster: hostLikeName.describe("The twins' shared name space in etcd and on the status page."),
  stateDir: path.prefault('/var/lib/shipmate').describe('Archive ids and secrets of this host; mode 0700.'),
  coordination: z.union([z.literal('solo'), object({ etcd })], { error: 'must be "solo", or hold "etcd"' }).meta({
    title: '"solo", or a map with "etcd"',
    description: 'Who settles which daemon leads a stream: etcd; or nobody, for one daemon alone.',
  }),
  onEtcdLoss: z
    .enum(['continue', 'stop'])
    .default('continue')
    .describe(
      'What a master does whose lease runs out while etcd cannot be reached: it ships on, since only a successor that ' +
        "reaches both etcd and the store can end its term; or it stops, and the database's disk fills.",
    ),
  stores: z
    .record(name, store)
    .refine(notEmpty, 'must hold at least one store')
    .describe('Where archives lie, under names of your own (docs/stores.md).'),
  plans: z
    .record(name, plan)
    .default({})
    .describe('For streams that go to several stores: which, in what order, and when (docs/delivery.md).'),
  limits: limits.exactOptional().describe('Bandwidth. Without it nothing is held back (docs/bandwidth.md).'),
  streams: z
    .record(name, stream)
    .refine(notEmpty, 'must hold at least one stream')
    .describe('The logs that are shipped, under names of your own.'),
  admin: z
    .union([z.literal(false), z.literal('off'), object({ listen })], { error: 'must be "off", or hold "listen"' })
    .prefault('off')
    .meta({
      title: '"off", or a map with "listen"',
      description:
        'HTTP for "/metrics", "/healthz", "/readyz", "/api/v1/status" and a page. It only reads, and has no authentication.',
    }),
  log: object({
    level: z
      .enum(LOG_LEVELS)
      .default('info')
      .describe('Least important lines that the daemon logs. Where "SHIPMATE_LOG_LEVEL" is set, that counts.'),
  }).prefault({}),
});

/** For editors and docs/configuration.md: what may be written, where the file is still as its author wrote it. */
export const jsonSchema = () => z.toJSONSchema(configFile, { io: 'input' });

export type ConfigFile = z.output<typeof configFile>;
export type StoreConfig = ConfigFile['stores'][string];
export type SourceConfig = ConfigFile['streams'][string]['source'];
export type EtcdConfig = z.output<typeof etcd>;
export type PlanFile = ConfigFile['plans'][string];
export type LimitsFile = NonNullable<ConfigFile['limits']>;
export type { ClassName } from './delivery.ts';
export type { BinlogConfig, FilesConfig, PostgresConfig } from './sources.ts';
