import { type AdminServer, type AdminView, startAdmin } from '../admin/server.ts';
import { openBlockPool } from '../codec/blocks.ts';
import { openEncoder } from '../codec/encoder.ts';
import type { Config } from '../config.ts';
import type { Coordination } from '../coordination/coordination.ts';
import { statusReport } from '../core/status.ts';
import { hostZone } from '../host-zone.ts';
import { createLog, type NodeLog } from '../log.ts';
import { Metrics } from '../metrics.ts';
import { runDaemon } from '../ship/daemon.ts';
import { Governor } from '../ship/governor.ts';
import { BandwidthLimits } from '../ship/limits.ts';
import { Wake } from '../ship/wake.ts';
import type { ObjectStore } from '../store/store.ts';
import { version } from '../version.ts';
import { demandRecipients, openCoordination, SLICE_BYTES, storesOf } from '../wiring.ts';
import { durableIn } from './durable.ts';
import { scrape } from './scrape.ts';
import { ConfiguredStreams } from './streams.ts';

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
  const { node, cluster } = config;
  const metrics = new Metrics({ version, node, cluster });
  const coordination = await openCoordination(config, log);
  const governor = new Governor({ nowMs: () => performance.now(), onSent: (sent) => metrics.bandwidth.sent(sent) });
  const encoder = openEncoder();
  const pool = openBlockPool(poolFor(config));
  const changed = new Wake();
  const common = { coordination, encoder, pool, governor, metrics, log, init, force, decorateStore };
  const streams = new ConfiguredStreams(config, { ...common, onChange: () => changed.nudge() });
  let admin: AdminServer | null = null;
  const release = async () => {
    await admin?.close();
    await coordination.close(); // first: a source may hang in a dead mount, and its lease must not outlive that
    await streams.close();
    await encoder.close();
  };
  try {
    await streams.wire();
    const view = viewOf({ config, streams, coordination, metrics });
    admin = config.admin && (await startAdmin({ ...config.admin, view, log }));
  } catch (error) {
    await release();
    throw error;
  }
  log.info(`shipmate ${version} runs`, { streams: streams.names, ...(admin && { url: admin.url }) });
  const limits = new BandwidthLimits({
    limits: config.limits,
    node,
    zone: hostZone(),
    board: coordination.limits,
    governor,
    metrics: metrics.bandwidth,
    log,
    nowMs: () => Date.now(),
  });
  streams.start();
  const stopping = new AbortController();
  const parts = { node, version, streams: streams.running, coordination, metrics, log, limits, changed };
  const done = runDaemon(parts, stopping.signal).finally(release);
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

/** Plain bytes of all streams together that may wait for their encoding, at the least. */
const POOL_BYTES = 32 << 20;

/** Each stream gathers in one block; beyond that, enough for the encoder's threads to stay busy. */
function poolFor(config: Config): { blockBytes: number; maxBytes: number } {
  const streams = Object.values(config.streams);
  const blockBytes = Math.max(SLICE_BYTES, ...streams.map(({ chunk }) => chunk.maxBytes));
  return { blockBytes, maxBytes: Math.max(POOL_BYTES, (streams.length + 2) * blockBytes) };
}

interface Viewed {
  readonly config: Config;
  readonly streams: ConfiguredStreams;
  readonly coordination: Coordination;
  readonly metrics: Metrics;
}

function viewOf({ config, streams, coordination, metrics }: Viewed): AdminView {
  return {
    metrics: () => scrape(metrics, coordination),
    ready: () => {
      const reasons = streams.running.shippers.flatMap((shipper) => shipper.notReady());
      if (!coordination.health().reachable) reasons.push('etcd does not answer');
      return { ok: reasons.length === 0, reasons };
    },
    status: async () => {
      const overview = await coordination.overview();
      return statusReport(overview, { cluster: config.cluster, stores: storesOf(config, overview) });
    },
    durable: durableIn((name) => streams.find(name)),
  };
}
