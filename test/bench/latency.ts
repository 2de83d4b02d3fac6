import { setTimeout as delay } from 'node:timers/promises';
import type { Daemon } from '../helpers/daemon.ts';
import type { Twins } from '../helpers/twins.ts';
import { type CursorWatch, watchCursor } from './cursors.ts';
import { type Figure, percentile, type Report, round } from './figures.ts';
import { type BenchStore, type GcsBench, startBenchStore } from './gcs.ts';
import { usageOf } from './usage.ts';

/** A database with its twins, and what it takes to commit there. */
export interface LatencyBed {
  readonly twins: Twins;
  /** An empty table is there. */
  connect(): Promise<Committer>;
  /** An ID of the log as a number that grows along it. */
  placeOf(id: string): number;
  /** That the archive has all of it. */
  verify(): Promise<void>;
  stop(): Promise<void>;
}

/** A connection. */
export interface Committer {
  commit(note: string): Promise<Commit>;
  end(): Promise<unknown>;
}

/** A transaction whose COMMIT has returned. */
export interface Commit {
  /** The log is durable from here on backwards: so is the transaction. */
  readonly place: number;
  readonly atMs: number;
  readonly tookMs: number;
}

export interface BedOptions {
  readonly chunk: { readonly maxDelay: string };
  /** Where it ships to; by default to a directory. */
  readonly store?: Pick<BenchStore, 'store' | 'storePath'>;
}

export interface LatencyOptions {
  readonly start: (options: BedOptions) => Promise<LatencyBed>;
  readonly seconds?: number;
  readonly commitsPerSecond?: number;
  /** Ships to a double of GCS; by default to a directory. */
  readonly gcs?: GcsBench;
}

const AIM_MS = { file: { p50: 40, p99: 150 }, gcs: { p50: 150, p99: 400 } };
const WARM_UP_SECONDS = 3;
const CONNECTIONS = 8;

/** From a COMMIT's return to the moment when a twin hears that the transaction is durable in the archive. */
export async function benchLatency(options: LatencyOptions): Promise<Report> {
  const { start, seconds = 30, commitsPerSecond = 200, gcs } = options;
  const store = gcs ? await startBenchStore(gcs) : null;
  const bed = await start({ chunk: { maxDelay: '20ms' }, ...(store && { store }) });
  let cursors: CursorWatch | null = null;
  try {
    const twins = await bed.twins.ready();
    cursors = await watchCursor(bed.twins.etcd.endpoints);
    const rate = { commitsPerSecond };
    await commit(bed, { ...rate, seconds: WARM_UP_SECONDS });
    const { result: commits, cpuPercent } = await usedMeanwhile(twins, () => commit(bed, { ...rate, seconds }));
    const last = Math.max(...commits.map(({ place }) => place));
    await cursors.first('the last commit is shipped', ({ position }) => bed.placeOf(position?.id ?? '') >= last);
    const further = store ? [await store.uploadsAtOnce()] : [];
    await bed.verify();
    const latenciesMs = latencies(commits, { bed, cursors });
    return report({ seconds, commitsPerSecond, gcs, commits, latenciesMs, cpuPercent, further });
  } finally {
    await cursors?.close();
    await bed.stop();
    await store?.stop();
  }
}

/** Commits at a steady pace, whatever each takes. */
async function commit(
  bed: LatencyBed,
  { seconds, commitsPerSecond }: { seconds: number; commitsPerSecond: number },
): Promise<Commit[]> {
  const connections = await Promise.all(Array.from({ length: CONNECTIONS }, () => bed.connect()));
  const commits: Promise<Commit>[] = [];
  const beganMs = performance.now();
  for (let n = 0; n < seconds * commitsPerSecond; n++) {
    await delay(Math.max(0, beganMs + (n * 1_000) / commitsPerSecond - performance.now()));
    commits.push(connections[n % CONNECTIONS]!.commit(`${n} `.repeat(40)));
  }
  const done = await Promise.all(commits);
  await Promise.all(connections.map((connection) => connection.end()));
  return done;
}

function latencies(commits: readonly Commit[], { bed, cursors }: { bed: LatencyBed; cursors: CursorWatch }): number[] {
  const heard = cursors.heard.map(({ cursor, atMs }) => ({ place: bed.placeOf(cursor.position?.id ?? ''), atMs }));
  return commits.map(({ place, atMs }) => heard.find((cursor) => cursor.place >= place)!.atMs - atMs);
}

/** Shares of one core. */
interface CpuPercent {
  readonly master: number;
  readonly standby: number;
}

async function usedMeanwhile<T>(
  { master, standby }: { master: Daemon; standby: Daemon },
  work: () => Promise<T>,
): Promise<{ result: T; cpuPercent: CpuPercent }> {
  const look = () => Promise.all([usageOf(master), usageOf(standby)]);
  const beganMs = performance.now();
  const before = await look();
  const result = await work();
  const after = await look();
  const [ofMaster, ofStandby] = after.map(({ cpuSeconds }, n) => {
    return round(((cpuSeconds - before[n]!.cpuSeconds) / (performance.now() - beganMs)) * 100_000, 1);
  });
  return { result, cpuPercent: { master: ofMaster!, standby: ofStandby! } };
}

interface Measured {
  readonly seconds: number;
  readonly commitsPerSecond: number;
  readonly gcs: GcsBench | undefined;
  readonly further: readonly Figure[];
  readonly commits: readonly Commit[];
  readonly latenciesMs: readonly number[];
  readonly cpuPercent: CpuPercent;
}

function report(measured: Measured): Report {
  const { seconds, commitsPerSecond, gcs, commits, latenciesMs, cpuPercent, further } = measured;
  const aimMs = gcs ? AIM_MS.gcs : AIM_MS.file;
  const where = gcs ? `GCS double with ${gcs.latencyMs} ms latency` : 'file store';
  const spread = (ms: readonly number[]) => ({
    p50: round(percentile(ms, 50), 1),
    p99: round(percentile(ms, 99), 1),
    max: round(Math.max(...ms), 1),
  });
  const latencyMs = spread(latenciesMs);
  const commitMs = spread(commits.map(({ tookMs }) => tookMs));
  return {
    title: `From COMMIT to durable, ${commitsPerSecond} commits/s for ${seconds} s, maxDelay 20ms, two daemons, etcd, ${where}`,
    figures: [
      { what: 'p50', value: latencyMs.p50, unit: 'ms', atMost: aimMs.p50 },
      { what: 'p99', value: latencyMs.p99, unit: 'ms', atMost: aimMs.p99 },
      { what: 'longest', value: latencyMs.max, unit: 'ms' },
      { what: 'the commits themselves, p50', value: commitMs.p50, unit: 'ms' },
      { what: 'the commits themselves, p99', value: commitMs.p99, unit: 'ms' },
      { what: 'the master uses of one core', value: cpuPercent.master, unit: '%' },
      { what: 'the standby uses of one core', value: cpuPercent.standby, unit: '%' },
      ...further,
    ],
    data: { seconds, commitsPerSecond, ...gcs, commits: commits.length, latencyMs, commitMs, cpuPercent, further },
  };
}
