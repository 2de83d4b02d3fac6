import type { BlockPool } from '../codec/blocks.ts';
import { type Encoder, encrypting } from '../codec/encoder.ts';
import { type Config, type StoreConfig, type StreamConfig, sharedDigest, storeOf, streamOf } from '../config.ts';
import type { Coordination } from '../coordination/coordination.ts';
import type { NodeLog } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import type { Governor } from '../ship/governor.ts';
import { StreamShipper } from '../ship/stream.ts';
import { countedStore } from '../store/counted.ts';
import type { ObjectStore } from '../store/store.ts';
import { throttledStore } from '../store/throttled.ts';
import { demandRecipients, localMemory, openSource, secretOf } from '../wiring.ts';
import { openStore } from './stores.ts';

/** What the streams of a daemon have in common. */
export interface Common {
  readonly coordination: Coordination;
  readonly encoder: Encoder;
  readonly pool: BlockPool;
  readonly governor: Governor;
  readonly metrics: Metrics;
  readonly log: NodeLog;
  /** Create archives that are not there. */
  readonly init: boolean;
  /** Solo: seal a term of another node. */
  readonly force: boolean;
  /** How long a twin whose config says otherwise is waited for, milliseconds; else as long as at a start. */
  readonly agreeWithinMs?: number;
  readonly decorateStore: (store: ObjectStore, config: StoreConfig) => ObjectStore;
  /** Told when what a stream publishes has changed. */
  readonly onChange: () => void;
}

/** A stream of the config, put together. */
export interface WiredStream {
  readonly stream: StreamConfig;
  readonly shipper: StreamShipper;
  /** Lets go of its log. Where that hangs in a dead mount, so does this. */
  close(): Promise<void>;
}

/** Throws what can be known to be wrong with a stream's config before it runs. */
export async function demandUsable(config: Config, stream: StreamConfig): Promise<void> {
  demandRecipients(stream);
  await openStore(config, stream.plan.primary);
}

/** Puts a stream together; nothing of it runs. `current` is the daemon's config as it is then. */
export function wireStream(config: Config, name: string, common: Common, current: () => Config): WiredStream {
  const { coordination, encoder, pool, governor, init, force, agreeWithinMs, decorateStore, onChange } = common;
  const stream = streamOf(config, name);
  const { plan, chunk, recipients } = stream;
  const { node, cluster } = config;
  const metrics = common.metrics.stream(name);
  const log = common.log.child({ stream: name });
  const openOwnStore = storesOpener(current, (store, own) => {
    metrics.store(store.name);
    return countedStore(decorateStore(store, own), (created) => metrics.upload(store.name, created));
  });
  const source = openSource(stream, { node, log });
  const shipping = governor.of('shipping');
  const secret = secretOf(config, name, coordination);
  const shipper = new StreamShipper({
    name,
    node,
    cluster,
    source,
    plan,
    openStore: openOwnStore,
    throttled: (store) => throttledStore(store, shipping),
    heldBack: () => shipping.waits,
    share: () => governor.of(plan.class),
    coordination,
    memory: localMemory(config, coordination),
    chunk,
    pool,
    encrypts: recipients.length > 0,
    encoder: recipients.length > 0 ? encrypting(encoder, { recipients, secret: () => secret.read() }) : encoder,
    metrics,
    log,
    config: (primary) => sharedDigest(config, stream, primary),
    init,
    force,
    ...(agreeWithinMs !== undefined && { agreeWithinMs }),
    onChange,
  });
  return { stream, shipper, close: () => source.close() };
}

/**
 * Opens a stream's stores, each when it is first needed: one that was promoted elsewhere may have come into the config since
 * the stream was put together.
 */
function storesOpener(current: () => Config, decorate: Common['decorateStore']) {
  const opened = new Map<string, Promise<ObjectStore>>();
  return (name: string): Promise<ObjectStore> => {
    const known = opened.get(name);
    if (known) return known;
    const config = current();
    const opening = openStore(config, name).then((store) => decorate(store, storeOf(config, name)));
    opening.catch(() => opened.delete(name));
    opened.set(name, opening);
    return opening;
  };
}
