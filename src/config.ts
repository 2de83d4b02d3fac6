import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import { interpolate, missingProblem, unreadableFile, withoutMissing } from './config/environment.ts';
import { type Path, type Problem, problemsOf, YamlText } from './config/problems.ts';
import { fixedProblems } from './config/reload.ts';
import {
  type ClassName,
  type ConfigFile,
  configFile,
  type EtcdConfig,
  type LimitsFile,
  type PlanFile,
  type PostgresConfig,
  type SourceConfig,
  type StoreConfig,
} from './config/schema.ts';
import type { LogLevel } from './core/log.ts';
import { nearestHint } from './core/nearest.ts';
import { codeOf, messageOf, UsageError } from './errors.ts';

export interface StreamConfig {
  readonly name: string;
  /** Paths absolute; `url` may hold a password. */
  readonly source: SourceConfig;
  readonly plan: PlanConfig;
  readonly chunk: { readonly maxBytes: number; readonly maxDelayMs: number };
  /** Of age, `age1…`; empty: nothing is encrypted. */
  readonly recipients: readonly string[];
  /** What retention keeps; null: everything. */
  readonly keep: KeepConfig | null;
}

/** Names are those in `Config.stores`. */
export interface PlanConfig {
  readonly primary: string;
  readonly copies: readonly string[];
  /** To how many of them. */
  readonly count: number;
  /** The copy that comes k-th is due k times as late. */
  readonly delayMs: number;
  /** Those that come first. */
  readonly order: readonly string[];
  /** How many stores must hold a chunk before the source is acknowledged; the primary counts. */
  readonly ack: number;
  readonly class: ClassName;
}

/** Everything that any of these asks for is kept. */
export interface KeepConfig {
  readonly ageMs?: number;
  readonly segments?: number;
  readonly daily?: number;
  readonly weekly?: number;
  readonly monthly?: number;
}

export type CoordinationConfig = { readonly kind: 'solo' } | EtcdCoordinationConfig;

export interface EtcdCoordinationConfig extends Readonly<Omit<EtcdConfig, 'ttl'>> {
  readonly kind: 'etcd';
  readonly ttlMs: number;
}

/** Rates in bytes a second; `shipping` from 0 to 1; times of day `HH:MM`. */
export type LimitsConfig = Readonly<LimitsFile>;

/** A config file, checked, with every default filled in. */
export interface Config {
  readonly node: string;
  readonly cluster: string;
  readonly stateDir: string;
  readonly coordination: CoordinationConfig;
  readonly onEtcdLoss: 'continue' | 'stop';
  readonly stores: Readonly<Record<string, StoreConfig>>;
  readonly streams: Readonly<Record<string, StreamConfig>>;
  /** Null: bandwidth is not limited. */
  readonly limits: LimitsConfig | null;
  /** Where HTTP listens; null: nowhere. Port 0 is any free one. */
  readonly admin: { readonly host: string; readonly port: number } | null;
  readonly logLevel: LogLevel;
}

export interface ReadOptions {
  readonly environment?: NodeJS.ProcessEnv;
  /**
   * Lets environment variables be missing until the part of the config that needs one is read: for commands that open
   * one store, or etcd alone. Reading such a part throws a ShipmateError.
   */
  readonly lazy?: boolean;
  /** The config of a daemon that is to go on with this one: what can't change under it is refused. */
  readonly running?: Config;
}

export type { ClassName, EtcdConfig, SourceConfig, StoreConfig } from './config/schema.ts';

/** Reads and checks a config file. Throws UsageError; another ShipmateError where only a file that sets a variable can't be read. */
export async function loadConfig(file: string, options: ReadOptions = {}): Promise<Config> {
  return parseConfig(await textOf(file), { ...options, file });
}

/** The first line of a password file, read when it is needed. Throws a ShipmateError. */
export async function readPassword(file: string): Promise<string> {
  try {
    return (await readFile(file, 'utf8')).split(/\r?\n/, 1)[0] ?? '';
  } catch (error) {
    throw unreadableFile(`password file ${file} can't be read: ${messageOf(error)}`);
  }
}

async function textOf(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') {
      throw new UsageError(
        `config file ${file} does not exist`,
        'name one with -c or $SHIPMATE_CONFIG; "shipmate config example" prints one to begin with',
      );
    }
    throw new UsageError(`config file ${file} can't be read: ${messageOf(error)}`, 'check its path and its rights');
  }
}

/** `file` is for messages only. Throws as `loadConfig` does. */
export function parseConfig(
  text: string,
  { file, environment = process.env, lazy = false, running }: ReadOptions & { readonly file: string },
): Config {
  const yaml = new YamlText(text, file);
  const { value, missing, problems } = interpolate(yaml.value(), environment);
  const refuse = (found: readonly Problem[]) => {
    if (found.length > 0) throw yaml.error(found);
  };
  const unset = missing.filter(({ unreadable }) => unreadable === undefined);
  refuse([...problems, ...(lazy ? [] : unset.map(missingProblem))]);
  if (!lazy && missing.length > 0) throw unreadableFile(yaml.error(missing.map(missingProblem)).message);
  const parts = withoutMissing(value, missing);
  refuse(parts.problems);

  const parsed = configFile.safeParse(value, { reportInput: true });
  if (!parsed.success) throw yaml.error(problemsOf(parsed.error.issues));
  refuse([...danglingNames(parsed.data), ...samePlaces(parsed.data), ...sharedSlots(parsed.data)]);
  const config = toConfig(parsed.data);
  if (running) refuse(fixedProblems(running, config));
  parts.guard(config);
  return config;
}

function danglingNames({ stores, plans, streams }: ConfigFile): Problem[] {
  const missing = (path: Path, name: string | undefined, known: object): Problem[] =>
    name === undefined || Object.hasOwn(known, name)
      ? []
      : [
          {
            path,
            message: `"${name}" is not among the ${known === stores ? 'stores' : 'plans'}`,
            hint: nearestHint(name, Object.keys(known)),
          },
        ];
  return [
    ...Object.entries(plans).flatMap(([name, { primary, copies }]) => [
      ...missing(['plans', name, 'primary'], primary, stores),
      ...copies.flatMap((copy, index) => missing(['plans', name, 'copies', index], copy, stores)),
    ]),
    ...Object.entries(streams).flatMap(([name, { store, plan }]) => [
      ...missing(['streams', name, 'store'], store, stores),
      ...missing(['streams', name, 'plan'], plan, plans),
    ]),
  ];
}

/** A copy in the very place of another store of its plan would count twice, and be lost with it. */
function samePlaces({ plans, stores }: ConfigFile): Problem[] {
  return Object.entries(plans).flatMap(([name, { primary, copies }]) => {
    const owners = new Map<string, string>();
    return [primary, ...copies].flatMap((store, at) => {
      const place = JSON.stringify(addressOf(stores[store]));
      const owner = owners.get(place);
      owners.set(place, store);
      if (owner === undefined || owner === store || !Object.hasOwn(stores, store)) return [];
      const message = `"${store}" is the same place as "${owner}"`;
      const hint = 'name a store elsewhere: a copy there would be lost with it';
      return [{ path: ['plans', name, 'copies', at - 1], message, hint }];
    });
  });
}

/** Two streams of one server that advance one slot take from each other what is not shipped yet. */
function sharedSlots({ streams }: ConfigFile): Problem[] {
  const owners = new Map<string, string>();
  return Object.entries(streams).flatMap(([name, { source }]) => {
    if (source.type !== 'postgres') return [];
    const slot = slotOf(name, source);
    const owner = owners.get(`${source.dir} ${slot}`);
    owners.set(`${source.dir} ${slot}`, name);
    if (owner === undefined) return [];
    const message = `would share the replication slot ${slot} with stream ${owner}`;
    return [{ path: ['streams', name, 'source'], message, hint: 'give it a "slot" of its own' }];
  });
}

/** The replication slot of a PostgreSQL stream. */
export const slotOf = (stream: string, { slot }: PostgresConfig) =>
  slot ?? `shipmate_${stream.replaceAll(/[^a-z0-9]/g, '_')}`.slice(0, 63);

function toConfig(file: ConfigFile): Config {
  const streams = Object.entries(file.streams).map(([name, stream]): [string, StreamConfig] => [
    name,
    {
      name,
      source: absolute(stream.source),
      plan: stream.plan === undefined ? toStore(stream.store ?? '') : planOf(file.plans[stream.plan]!),
      chunk: { maxBytes: stream.chunk.maxBytes, maxDelayMs: stream.chunk.maxDelay },
      recipients: stream.encrypt?.recipients ?? [],
      keep: keepOf(stream.keep),
    },
  ]);
  return {
    node: file.node ?? hostname(),
    cluster: file.cluster,
    stateDir: file.stateDir,
    coordination: coordinationOf(file.coordination),
    onEtcdLoss: file.onEtcdLoss,
    stores: file.stores,
    streams: Object.fromEntries(streams),
    limits: file.limits ?? null,
    admin: typeof file.admin === 'object' ? file.admin.listen : null,
    logLevel: file.log.level,
  };
}

const planOf = ({ delay: delayMs, count, ...plan }: PlanFile): PlanConfig => ({
  ...plan,
  count: count ?? plan.copies.length,
  delayMs,
});

const toStore = (primary: string): PlanConfig => ({
  ...{ primary, copies: [], count: 0, delayMs: 0, order: [] },
  ...{ ack: 1, class: 'standard' },
});

function keepOf(keep: ConfigFile['streams'][string]['keep']): KeepConfig | null {
  if (keep === undefined) return null;
  const { age, ...counts } = keep;
  return { ...(age !== undefined && { ageMs: age }), ...counts };
}

function absolute(source: SourceConfig): SourceConfig {
  if (source.type !== 'mariadb' && source.type !== 'mysql') return source;
  return source.index === undefined ? source : { ...source, index: resolve(source.dir, source.index) };
}

function coordinationOf(given: ConfigFile['coordination']): CoordinationConfig {
  if (given === 'solo') return { kind: 'solo' };
  const { ttl: ttlMs, ...etcd } = given.etcd;
  return { kind: 'etcd', ttlMs, ...etcd };
}

/** A stream of the config by its name, as an operator typed it; throws UsageError naming the nearest. */
export function streamOf(config: Config, name: string): StreamConfig {
  return named(config.streams, name, 'stream');
}

/** A store of the config by its name; throws UsageError naming the nearest. */
export function storeOf(config: Config, name: string): StoreConfig {
  return named(config.stores, name, 'store');
}

function named<T>(all: Readonly<Record<string, T>>, name: string, what: string): T {
  const found = Object.hasOwn(all, name) ? all[name] : undefined;
  if (found === undefined)
    throw new UsageError(`the config has no ${what} "${name}"`, nearestHint(name, Object.keys(all)));
  return found;
}

/**
 * Digest of what the twins of a stream must agree on: where its primary is, the promoted one's where one was. What belongs
 * to a host, such as the source's paths, is not in it, and later keys are in it only where they are used, so that a digest
 * outlives an upgrade.
 */
export function sharedDigest(config: Config, stream: StreamConfig, primary = stream.plan.primary): string {
  const agreed = { primary: { name: primary, ...placeOf(storeOf(config, primary)) } };
  return createHash('sha256').update(JSON.stringify(agreed)).digest('hex').slice(0, 16);
}

/** Where a store is, seen from this host; undefined: nowhere that is known. */
function addressOf(store: StoreConfig | undefined): readonly unknown[] | undefined {
  if (store === undefined) return undefined;
  const { type, prefix } = store;
  if (type === 'file') return [type, prefix, store.path];
  if (type === 'gcs') return [type, prefix, store.bucket, store.apiEndpoint];
  if (type === 's3') return [type, prefix, store.bucket, store.endpoint];
  return [type, prefix, store.container, store.account, store.endpoint, store.connectionStringFile];
}

/** Where a store is, whoever looks: how a host reaches a bucket, as whom, and at what price, is its own affair. */
function placeOf(store: StoreConfig): object {
  if (store.type === 'file') return store;
  const { type, prefix } = store;
  if (type === 'azure') return { type, container: store.container, prefix };
  return { type, bucket: store.bucket, prefix };
}
