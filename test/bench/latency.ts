import { setTimeout as delay } from 'node:timers/promises';
import type { Connection } from 'mariadb';
import { Cluster } from '../helpers/cluster.ts';
import type { Daemon } from '../helpers/daemon.ts';
import type { Mariadb } from '../helpers/mariadb.ts';
import { type CursorWatch, watchCursor } from './cursors.ts';
import { type Figure, percentile, type Report, round } from './figures.ts';
import { type GcsBench, startBenchStore } from './gcs.ts';
import { usageOf } from './usage.ts';

export interface LatencyOptions {
  readonly seconds?: number;
  readonly commitsPerSecond?: number;
  /** Ships to a double of GCS; by default to a directory. */
  readonly gcs?: GcsBench;
}

const AIM_MS = { file: { p50: 40, p99: 150 }, gcs: { p50: 150, p99: 400 } };
const WARM_UP_SECONDS = 3;
const CONNECTIONS = 8;
const SERVER_ARGS = [
  // What a server does by default, but for the files' size: some rotations are part of what is measured.
  ...['--sync-binlog=0', '--innodb-flush-log-at-trx-commit=1', '--max-binlog-size=4M'],
];

/** A transaction whose COMMIT has returned. */
interface Commit {
  /** Of its GTID. */
  readonly sequence: number;
  readonly atMs: number;
  readonly tookMs: number;
}

/** From a COMMIT's return to the moment when a twin hears that the transaction is durable in the archive. */
export async function benchLatency(options: LatencyOptions = {}): Promise<Report> {
  const { seconds = 30, commitsPerSecond = 200, gcs } = options;
  const store = gcs ? await startBenchStore(gcs) : null;
  const daemon = { chunk: { maxDelay: '20ms' } };
  const cluster = await Cluster.start({ mariadbArgs: SERVER_ARGS, daemon, ...(store && { store }) });
  let cursors: CursorWatch | null = null;
  try {
    const twins = await cluster.ready();
    cursors = await watchCursor(cluster.etcd.endpoints);
    const rate = { commitsPerSecond };
    await commit(cluster.server, { ...rate, seconds: WARM_UP_SECONDS });
    const { result: commits, cpuPercent } = await usedMeanwhile(twins, () =>
      commit(cluster.server, { ...rate, seconds }),
    );
    const last = Math.max(...commits.map(({ sequence }) => sequence));
    await cursors.first('the last commit is shipped', ({ position }) => sequenceOf(position?.id) >= last);
    const further = store ? [await store.uploadsAtOnce()] : [];
    await cluster.verify();
    const latenciesMs = latencies(commits, cursors);
    return report({ seconds, commitsPerSecond, gcs, commits, latenciesMs, cpuPercent, further });
  } finally {
    await cursors?.close();
    await cluster.stop();
    await store?.stop();
  }
}

/** Commits at a steady pace, whatever each takes. */
async function commit(
  server: Mariadb,
  { seconds, commitsPerSecond }: { seconds: number; commitsPerSecond: number },
): Promise<Commit[]> {
  await server.query('CREATE DATABASE IF NOT EXISTS shop');
  await server.query(
    'CREATE TABLE IF NOT EXISTS shop.beats (id BIGINT PRIMARY KEY AUTO_INCREMENT, note TEXT NOT NULL)',
  );
  const connections = await Promise.all(Array.from({ length: CONNECTIONS }, () => server.connect()));
  const commits: Promise<Commit>[] = [];
  const beganMs = performance.now();
  for (let n = 0; n < seconds * commitsPerSecond; n++) {
    await delay(Math.max(0, beganMs + (n * 1_000) / commitsPerSecond - performance.now()));
    commits.push(commitOne(connections[n % CONNECTIONS]!, n));
  }
  const done = await Promise.all(commits);
  await Promise.all(connections.map((connection) => connection.end()));
  return done;
}

async function commitOne(connection: Connection, n: number): Promise<Commit> {
  const beganMs = performance.now();
  const committed = connection.query('INSERT INTO shop.beats (note) VALUES (?)', [`${n} `.repeat(40)]);
  const asked = connection.query('SELECT @@last_gtid AS gtid');
  await committed;
  const atMs = performance.now();
  const [{ gtid }] = await asked;
  return { sequence: sequenceOf(gtid), atMs, tookMs: atMs - beganMs };
}

/** The server writes one replication domain only: `0-1-345`. */
const sequenceOf = (gtid: string | undefined) => Number(gtid?.split('-')[2] ?? 0);

function latencies(commits: readonly Commit[], { heard }: CursorWatch): number[] {
  return commits.map(({ sequence, atMs }) => {
    const covering = heard.find(({ cursor }) => sequenceOf(cursor.position?.id) >= sequence)!;
    return covering.atMs - atMs;
  });
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
