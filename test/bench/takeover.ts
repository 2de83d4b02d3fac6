import { Cluster, STREAM, TTL_MS } from '../helpers/cluster.ts';
import type { Daemon } from '../helpers/daemon.ts';
import { startLoad } from '../helpers/load.ts';
import { type CursorWatch, watchCursor } from './cursors.ts';
import { type Figure, median, type Report } from './figures.ts';
import { type GcsBench, startBenchStore } from './gcs.ts';

export interface TakeoverOptions {
  readonly rounds?: number;
  /** Ships to a double of GCS; by default to a directory. */
  readonly gcs?: GcsBench;
}

const ROUND_TRIPS = 8;

interface Twins {
  readonly master: Daemon;
  readonly standby: Daemon;
}

/** What makes a master leave; resolves to when its twin should have begun. */
interface Cause {
  readonly name: string;
  readonly atMost: number;
  readonly begin: (cluster: Cluster, twins: Twins) => Promise<number>;
}

const CAUSES: readonly Cause[] = [
  {
    name: 'SIGKILL',
    atMost: TTL_MS + 1_000,
    async begin(_, { master }) {
      const atMs = performance.now();
      await master.kill();
      return atMs;
    },
  },
  {
    name: 'SIGTERM',
    atMost: 300,
    async begin(_, { master }) {
      const atMs = performance.now();
      await master.stop();
      return atMs;
    },
  },
  {
    // Not from the command's start: starting Node is no part of the hand-over.
    name: 'handover',
    atMost: 300,
    async begin(cluster, { master, standby }) {
      const since = master.mark();
      await cluster.succeed(standby, 'handover', STREAM);
      return (await master.logged(/^request: handover/, { since })).atMs;
    },
  },
];

interface Takeover {
  /** Until the twin has opened its term. */
  readonly openedMs: number;
  /** Until a twin hears that something is durable in that term: shipping goes on. */
  readonly shippedMs: number;
}

/** How long a stream is without a master, under load, whatever made the old one leave. */
export async function benchTakeover({ rounds = 7, gcs }: TakeoverOptions = {}): Promise<Report> {
  const store = gcs ? await startBenchStore(gcs) : null;
  const cluster = await Cluster.start(store ? { store } : {});
  let cursors: CursorWatch | null = null;
  try {
    await cluster.ready();
    cursors = await watchCursor(cluster.etcd.endpoints);
    const load = await startLoad(cluster.server);
    const measured = new Map<Cause, Takeover[]>(CAUSES.map((cause) => [cause, []]));
    for (let round = 0; round < rounds; round++) {
      for (const [cause, takeovers] of measured) takeovers.push(await takeOver(cluster, cursors, cause));
    }
    await load.stop();
    await cluster.settled();
    await cluster.verify();
    return report(measured, gcs);
  } finally {
    await cursors?.close();
    await cluster.stop();
    await store?.stop();
  }
}

async function takeOver(cluster: Cluster, cursors: CursorWatch, cause: Cause): Promise<Takeover> {
  const twins = await cluster.ready();
  await cluster.ships();
  const since = twins.standby.mark();
  const beganMs = await cause.begin(cluster, twins);
  const opened = await twins.standby.becomesMaster({ since });
  const shipped = await cursors.first('the new term ships', ({ term, slot }) => term >= opened.term && slot > 0);
  return { openedMs: opened.atMs - beganMs, shippedMs: shipped.atMs - beganMs };
}

function report(measured: ReadonlyMap<Cause, readonly Takeover[]>, gcs: GcsBench | undefined): Report {
  const rounded = (values: readonly number[]) => ({
    median: Math.round(median(values)),
    longest: Math.round(Math.max(...values)),
  });
  const figures: Figure[] = [];
  const data: Record<string, unknown> = { ttlMs: TTL_MS, ...gcs };
  for (const [{ name, atMost: onDisk }, takeovers] of measured) {
    // The round trips that a take-over takes: the seal, its check, the opening, and what is looked up between.
    const atMost = onDisk + ROUND_TRIPS * (gcs?.latencyMs ?? 0);
    const opened = rounded(takeovers.map(({ openedMs }) => openedMs));
    const shipped = rounded(takeovers.map(({ shippedMs }) => shippedMs));
    figures.push(
      { what: `${name}: the twin is master, median`, value: opened.median, unit: 'ms', atMost },
      { what: `${name}: the twin is master, longest`, value: opened.longest, unit: 'ms', atMost },
      { what: `${name}: it has shipped, median`, value: shipped.median, unit: 'ms' },
      { what: `${name}: it has shipped, longest`, value: shipped.longest, unit: 'ms' },
    );
    data[name] = { rounds: takeovers.length, openedMs: opened, shippedMs: shipped };
  }
  const where = gcs ? `, GCS double with ${gcs.latencyMs} ms latency` : '';
  return { title: `Take-over under load, TTL ${TTL_MS / 1_000} s${where}`, figures, data };
}
