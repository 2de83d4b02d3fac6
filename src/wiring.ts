import { choosePrimary, type Primary } from './archive/generation.ts';
import type { Opener } from './archive/identity.ts';
import { WitnessSecret } from './archive/secret.ts';
import { parseRecipient } from './codec/age-keys.ts';
import { type Config, readPassword, type StreamConfig, slotOf, storeOf, streamOf } from './config.ts';
import type { ArchiveMemory, Coordination, Overview } from './coordination/coordination.ts';
import { SoloArchives } from './coordination/solo/boards.ts';
import { Folder } from './coordination/solo/folder.ts';
import { openSolo } from './coordination/solo.ts';
import type { Log } from './core/log.ts';
import { messageOf, UsageError } from './errors.ts';
import { createLog } from './log.ts';
import { copiesOf } from './ship/primary.ts';
import { openFilesSource } from './source/files.ts';
import { openMariadbSource } from './source/mariadb.ts';
import { askRetention, inspectPostgres } from './source/postgres/inspect.ts';
import { openServer } from './source/postgres/server.ts';
import { openSlot } from './source/postgres/slot.ts';
import { openPostgresSource } from './source/postgres.ts';
import type { Finding, LogSource } from './source/source.ts';
import { openStore } from './wiring/stores.ts';

/** A slice of the log, at most; a chunk's block holds at least one. */
export const SLICE_BYTES = 1 << 20;

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
  const { openEtcd } = await import('./coordination/etcd.ts');
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

/** What this host remembers by itself. */
export function localMemory(config: Config, coordination: Coordination): ArchiveMemory {
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
