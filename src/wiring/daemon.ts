import { type AdminServer, type AdminView, startAdmin } from '../admin/server.ts';
import { openBlockPool } from '../codec/blocks.ts';
import { openEncoder } from '../codec/encoder.ts';
import type { Config, StoreConfig } from '../config.ts';
import type { Coordination } from '../coordination/coordination.ts';
import { statusReport } from '../core/status.ts';
import { hostZone } from '../host-zone.ts';
import { createLog, logLevel, type NodeLog } from '../log.ts';
import { Metrics } from '../metrics.ts';
import { runDaemon } from '../ship/daemon.ts';
import { Governor } from '../ship/governor.ts';
import { BandwidthLimits } from '../ship/limits.ts';
import type { Standing } from '../ship/stream.ts';
import { Wake } from '../ship/wake.ts';
import type { ObjectStore } from '../store/store.ts';
import { version } from '../version.ts';
import { openCoordination, storesOf } from '../wiring.ts';
import { durableIn } from './durable.ts';
import { poolFor, type ReloadOutcome, reload } from './reload.ts';
import { scrape } from './scrape.ts';
import { turnsAtDirectories } from './stores.ts';
import { demandUsable } from './stream.ts';
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
  /** How each stream stands. */
  standing(): Standing[];
  /** Whether every stream has a role, or knows why not. */
  isTried(): boolean;
  /** Names of streams that only a new start helps; to be asked a few times a minute. */
  stuck(): string[];
  /** One at a time; see `reload`. */
  reload(read: (running: Config) => Promise<Config>): Promise<ReloadOutcome>;
  /** Leaves every stream in order, handing it over at once. */
  stop(): Promise<void>;
}

/** Puts a daemon together and lets it run. Waits for nothing outside this process but the listening port. */
export async function startDaemon(config: Config, start: DaemonStart): Promise<Daemon> {
  const { node, cluster } = config;
  const { init, force = false, decorateStore = (store) => store } = start;
  const log = start.log ?? createLog({ node, level: logLevel(process.env, config.logLevel) });
  for (const stream of Object.values(config.streams)) await demandUsable(config, stream);
  const metrics = new Metrics({ version, node, cluster });
  const coordination = await openCoordination(config, log);
  const governor = new Governor({ nowMs: () => performance.now(), onSent: (sent) => metrics.bandwidth.sent(sent) });
  const encoder = openEncoder();
  const pool = openBlockPool(poolFor(config));
  const changed = new Wake();
  const inTurns = turnsAtDirectories();
  const common = {
    ...{ coordination, encoder, pool, governor, metrics, log, init, force },
    decorateStore: (store: ObjectStore, own: StoreConfig) => decorateStore(inTurns(store, own)),
  };
  const streams = new ConfiguredStreams(config, { ...common, onChange: () => changed.nudge() });
  let admin: AdminServer | null = null;
  const release = async () => {
    await admin?.close();
    await coordination.close(); // first: a source may hang in a dead mount, and its lease must not outlive that
    await streams.close();
    await encoder.close();
  };
  try {
    const view = viewOf({ streams, coordination, metrics });
    admin = config.admin && (await startAdmin({ ...config.admin, view, log }));
  } catch (error) {
    await release();
    throw error;
  }
  log.info(`shipmate ${version} runs`, { streams: Object.keys(config.streams), ...(admin && { url: admin.url }) });
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
  const parts = { node, version, streams: streams.running, coordination, log, limits, changed };
  const done = runDaemon(parts, stopping.signal).finally(release);
  done.catch(() => {}); // whoever started the daemon awaits it
  return {
    url: admin?.url ?? null,
    done,
    standing: () => streams.running.shippers.map(({ standing }) => standing),
    isTried: () => streams.running.shippers.every((shipper) => shipper.isTried),
    stuck: () => streams.running.stuck(),
    reload: (read) => reload({ streams, pool, limits, metrics, log }, read),
    async stop() {
      stopping.abort(new Error('the daemon was told to stop'));
      await done;
    },
  };
}

interface Viewed {
  readonly streams: ConfiguredStreams;
  readonly coordination: Coordination;
  readonly metrics: Metrics;
}

function viewOf({ streams, coordination, metrics }: Viewed): AdminView {
  return {
    metrics: () => scrape(metrics, coordination),
    stuck: () => streams.running.stuck(),
    ready: () => {
      const reasons = streams.running.shippers.flatMap((shipper) => shipper.notReady());
      if (!coordination.health().reachable) reasons.push('etcd does not answer');
      return { ok: reasons.length === 0, reasons };
    },
    status: async () => {
      const overview = await coordination.overview();
      const { config } = streams;
      return statusReport(overview, { cluster: config.cluster, stores: storesOf(config, overview) });
    },
    durable: durableIn((name) => streams.find(name)),
  };
}
