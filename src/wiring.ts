import { type AdminServer, startAdmin } from './admin/server.ts';
import { choosePrimary, type Primary } from './archive/generation.ts';
import type { Opener } from './archive/identity.ts';
import { WitnessSecret } from './archive/secret.ts';
import { parseRecipient } from './codec/age-keys.ts';
import { openBlockPool } from './codec/blocks.ts';
import { type Encoder, encrypting, openEncoder } from './codec/encoder.ts';
import { type Config, readPassword, type StreamConfig, sharedDigest, slotOf, storeOf, streamOf } from './config.ts';
import type { ArchiveMemory, Coordination, Overview } from './coordination/coordination.ts';
import { openEtcd } from './coordination/etcd.ts';
import { SoloArchives } from './coordination/solo/boards.ts';
import { Folder } from './coordination/solo/folder.ts';
import { openSolo } from './coordination/solo.ts';
import type { Log } from './core/log.ts';
import { statusReport } from './core/status.ts';
import { messageOf, UsageError } from './errors.ts';
import { hostZone } from './host-zone.ts';
import { createLog, type NodeLog } from './log.ts';
import { Metrics } from './metrics.ts';
import { runDaemon } from './ship/daemon.ts';
import { Governor } from './ship/governor.ts';
import { BandwidthLimits } from './ship/limits.ts';
import { copiesOf } from './ship/primary.ts';
import { StreamShipper } from './ship/stream.ts';
import { Wake } from './ship/wake.ts';
import { filesFormat } from './source/files/format.ts';
import { openFilesSource } from './source/files.ts';
import { mariadbFormat } from './source/mariadb/format.ts';
import { openMariadbSource } from './source/mariadb.ts';
import { postgresFormat } from './source/postgres/format.ts';
import { askRetention, inspectPostgres } from './source/postgres/inspect.ts';
import { openServer } from './source/postgres/server.ts';
import { openSlot } from './source/postgres/slot.ts';
import { openPostgresSource } from './source/postgres.ts';
import type { Finding, LogFormat, LogSource } from './source/source.ts';
import { countedStore } from './store/counted.ts';
import type { ObjectStore } from './store/store.ts';
import { throttledStore } from './store/throttled.ts';
import { version } from './version.ts';
import { durableIn } from './wiring/durable.ts';
import { scrape } from './wiring/scrape.ts';
import { openStore } from './wiring/stores.ts';

/** A slice of the log, at most; a chunk's block holds at least one. */
const SLICE_BYTES = 1 << 20;
/** Plain bytes of all streams together that may wait for their encoding, at the least. */
const POOL_BYTES = 32 << 20;

/** What `check` says of a store beyond what every store must do. */
export async function inspectBackend(config: Config, name: string): Promise<Finding[]> {
  const store = storeOf(config, name);
  if (store.type === 'file') return [];
  if (store.type !== 'gcs') {
    const { inspectReading } = await import('./store/inspect.ts');
    return inspectReading(await openStore(config, name));
  }
  const { inspectBucket } = await import('./store/gcs/inspect.ts');
  return inspectBucket({ name, ...store });
}

/** Opens etcd, or the local state in solo mode. Waits for neither. */
export async function openCoordination(config: Config, log: Log): Promise<Coordination> {
  const { coordination, cluster, node, stateDir, onEtcdLoss } = config;
  if (coordination.kind === 'solo') return openSolo({ node, stateDir });
  const { kind: _, username, passwordFile, tls, ...etcd } = coordination;
  return openEtcd({
    ...etcd,
    ...(tls && { tls }),
    ...(username && { username, password: passwordFile ? await readPassword(passwordFile) : '' }),
    cluster,
    node,
    onEtcdLoss,
    log,
  });
}

/** `node`: whose files are read, where the twins' are not the same. */
export function openSource(stream: StreamConfig, { node, log }: { node: string; log: Log }): LogSource {
  const { source } = stream;
  const common = {
    stream: stream.name,
    busyPollMs: stream.chunk.maxDelayMs,
    maxSliceBytes: Math.min(SLICE_BYTES, stream.chunk.maxBytes),
    log,
  };
  switch (source.type) {
    case 'mariadb':
    case 'mysql': {
      const { type: flavour, ...binlogs } = source;
      return openMariadbSource({ ...common, ...binlogs, flavour });
    }
    case 'files': {
      const { settle: settleMs, ...files } = source;
      return openFilesSource({ ...common, ...files, settleMs, node });
    }
    case 'postgres': {
      const { url, dir } = source;
      const slotName = slotOf(stream.name, source);
      const server = openServer({ url, dir, stream: stream.name });
      const slot = openSlot({ server, name: slotName, log });
      const asked = { url, dir, slotName, stream: stream.name };
      const inspect = () => inspectPostgres(asked);
      const retention = () => askRetention(asked);
      return openPostgresSource({ ...common, dir, server, slot, inspect, retention });
    }
  }
}

/**
 * How a stream's segments are cut and indexed; opens nothing, and asks nothing of the config that belongs to a host, for
 * that may stand in a variable which is not set here. MariaDB's and MySQL's binlogs have one format.
 */
export function logFormatOf({ source }: StreamConfig): LogFormat {
  if (source.type === 'postgres') return postgresFormat();
  if (source.type !== 'files') return mariadbFormat();
  const { layout, match, order, live, cut, settle: settleMs } = source;
  return filesFormat({ layout, match, order, live, cut, settleMs });
}

/** What opening a stream's archive takes, for one command. */
export async function withOpener<T>(
  config: Config,
  name: string,
  coordination: Coordination,
  use: (opener: Opener) => Promise<T>,
): Promise<T> {
  const stream = streamOf(config, name);
  const source = openSource(stream, { node: config.node, log: createLog({ node: config.node, level: 'error' }) });
  try {
    return await use({
      store: await openStore(config, (await primaryOf(config, stream, coordination)).store),
      stream: name,
      cluster: config.cluster,
      node: config.node,
      identity: await source.identity(),
      memories: memoriesOf(config, coordination),
      encrypts: stream.recipients.length > 0,
      signal: new AbortController().signal,
    });
  } finally {
    await source.close();
  }
}

function localMemory(config: Config, coordination: Coordination): ArchiveMemory {
  return coordination.kind === 'solo' ? coordination.archives : new SoloArchives(new Folder(config.stateDir, 'local'));
}

/** What the twins remember together, and what this host does. */
export function memoriesOf(config: Config, coordination: Coordination): Opener['memories'] {
  return [coordination.archives, localMemory(config, coordination)];
}

/** The stream's effective primary: the config's, unless another store was promoted. */
export function primaryOf(config: Config, { name, plan }: StreamConfig, coordination: Coordination): Promise<Primary> {
  return choosePrimary({
    stream: name,
    primary: plan.primary,
    stores: [plan.primary, ...plan.copies],
    openStore: (store) => openStore(config, store),
    memories: memoriesOf(config, coordination),
  });
}

/** What compares a stream's encrypted chunks with its log. */
export function secretOf(config: Config, stream: string, coordination: Coordination): WitnessSecret {
  return new WitnessSecret({ stream, memories: memoriesOf(config, coordination) });
}

/** Throws UsageError where a recipient was mistyped: nobody could read what is encrypted for it. */
export function demandRecipients({ name, recipients }: StreamConfig): void {
  for (const [index, recipient] of recipients.entries()) {
    try {
      parseRecipient(recipient);
    } catch (error) {
      const hint = error instanceof UsageError ? error.hint : undefined;
      throw new UsageError(`streams.${name}.encrypt.recipients[${index}]: ${messageOf(error)}`, hint);
    }
  }
}

function encoderOf(stream: StreamConfig, encoder: Encoder, secret: WitnessSecret): Encoder {
  const { recipients } = stream;
  return recipients.length > 0 ? encrypting(encoder, { recipients, secret: () => secret.read() }) : encoder;
}

export interface DaemonStart {
  /** Create archives that are not there. */
  readonly init: boolean;
  /** Solo: seal a term of another node. */
  readonly force?: boolean;
  readonly log?: NodeLog;
  /** For tests of failing stores. */
  readonly decorateStore?: (store: ObjectStore) => ObjectStore;
}

export interface Daemon {
  /** Where HTTP listens; null where it does not. */
  readonly url: string | null;
  /** Resolves after `stop`; rejects with what ended the daemon otherwise. */
  readonly done: Promise<void>;
  /** Leaves every stream in order, handing it over at once. */
  stop(): Promise<void>;
}

/** Puts a daemon together and lets it run. Waits for nothing outside this process but the listening port. */
export async function startDaemon(config: Config, start: DaemonStart): Promise<Daemon> {
  const { init, force = false, log = createLog({ node: config.node }), decorateStore = (store) => store } = start;
  for (const stream of Object.values(config.streams)) demandRecipients(stream);
  const metrics = new Metrics({ version, node: config.node, cluster: config.cluster });
  const coordination = await openCoordination(config, log);
  const streams = Object.values(config.streams);
  const encoder = openEncoder();
  const changed = new Wake();
  const governor = new Governor({ nowMs: () => performance.now(), onSent: (sent) => metrics.bandwidth.sent(sent) });
  const sources: LogSource[] = [];
  const blockBytes = Math.max(SLICE_BYTES, ...streams.map(({ chunk }) => chunk.maxBytes));
  // Each stream gathers in one block; beyond that, enough for the encoder's threads to stay busy.
  const pool = openBlockPool({ blockBytes, maxBytes: Math.max(POOL_BYTES, (streams.length + 2) * blockBytes) });
  const numbers = streams.map(({ name }) => metrics.stream(name));
  const stores = numbers.map((number) =>
    storesOpener(config, (store) => {
      number.store(store.name);
      return countedStore(decorateStore(store), (created) => number.upload(store.name, created));
    }),
  );
  await Promise.all(streams.map(({ plan }, index) => stores[index]!(plan.primary))); // a config that can't work is told at once
  const shippers = streams.map((stream, index) => {
    const streamLog = log.child({ stream: stream.name });
    const source = openSource(stream, { node: config.node, log: streamLog });
    sources.push(source);
    const shipping = governor.of('shipping');
    return new StreamShipper({
      name: stream.name,
      node: config.node,
      cluster: config.cluster,
      source,
      plan: stream.plan,
      openStore: stores[index]!,
      throttled: (store) => throttledStore(store, shipping),
      share: () => governor.of(stream.plan.class),
      coordination,
      memory: localMemory(config, coordination),
      chunk: stream.chunk,
      pool,
      encrypts: stream.recipients.length > 0,
      encoder: encoderOf(stream, encoder, secretOf(config, stream.name, coordination)),
      metrics: numbers[index]!,
      log: streamLog,
      config: (primary) => sharedDigest(config, stream, primary),
      init,
      force,
      onChange: () => changed.nudge(),
    });
  });

  const stopping = new AbortController();
  const view = {
    metrics: () => scrape(metrics, coordination),
    ready: () => readinessOf(shippers, coordination),
    status: async () => {
      const overview = await coordination.overview();
      return statusReport(overview, { cluster: config.cluster, stores: storesOf(config, overview) });
    },
    durable: durableIn(streams.map((stream, index) => ({ stream, shipper: shippers[index]! }))),
  };
  let admin: AdminServer | null = null;
  const release = async () => {
    await admin?.close();
    await coordination.close(); // first: a source may hang in a dead mount, and its lease must not outlive that
    await Promise.all(sources.map((source) => source.close()));
    await encoder.close();
  };
  try {
    admin = config.admin && (await startAdmin({ ...config.admin, view, log }));
  } catch (error) {
    await release();
    throw error;
  }
  log.info(`shipmate ${version} runs`, { streams: shippers.map(({ name }) => name), ...(admin && { url: admin.url }) });
  const limits = new BandwidthLimits({
    limits: config.limits,
    node: config.node,
    zone: hostZone(),
    board: coordination.limits,
    governor,
    metrics: metrics.bandwidth,
    log,
    nowMs: () => Date.now(),
  });
  const options = { node: config.node, version, streams: shippers, coordination, metrics, log, limits, changed };
  const done = runDaemon(options, stopping.signal).finally(release);
  done.catch(() => {}); // whoever started the daemon awaits it
  return {
    url: admin?.url ?? null,
    done,
    async stop() {
      stopping.abort(new Error('the daemon was told to stop'));
      await done;
    },
  };
}

/** Opens a stream's stores, each when it is first needed. */
function storesOpener(config: Config, decorate: (store: ObjectStore) => ObjectStore) {
  const opened = new Map<string, Promise<ObjectStore>>();
  return (name: string): Promise<ObjectStore> => {
    const known = opened.get(name);
    if (known) return known;
    const opening = openStore(config, name).then(decorate);
    opening.catch(() => opened.delete(name));
    opened.set(name, opening);
    return opening;
  };
}

function readinessOf(shippers: readonly StreamShipper[], coordination: Coordination) {
  const reasons = shippers.flatMap((shipper) => shipper.notReady());
  if (!coordination.health().reachable) reasons.push('etcd does not answer');
  return { ok: reasons.length === 0, reasons };
}

/** Names of each stream's stores for the status, its effective primary first. */
export function storesOf(config: Config, { streams }: Overview): Record<string, string[]> {
  return Object.fromEntries(
    Object.values(config.streams).map(({ name, plan }) => {
      const promoted = streams.find((stream) => stream.name === name)?.promotion?.store;
      const copies = promoted === undefined ? plan.copies : copiesOf(plan, promoted);
      return [name, [promoted ?? plan.primary, ...copies]];
    }),
  );
}
