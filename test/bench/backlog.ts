import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { STREAM } from '../helpers/cluster.ts';
import { type Daemon, shipmate, startDaemon } from '../helpers/daemon.ts';
import { type Etcd, startEtcd } from '../helpers/etcd.ts';
import { type Binlogs, provideBinlogs } from './binlogs.ts';
import { watchCursor } from './cursors.ts';
import { type Figure, MIB, median, type Report, round } from './figures.ts';
import { type GcsBench, startBenchStore } from './gcs.ts';
import { usageOf } from './usage.ts';

export interface BacklogOptions {
  readonly mib?: number;
  readonly runs?: number;
  /** Where binlogs are found from an earlier run, and left for a later one; by default they are made each time. */
  readonly binlogs?: string;
  /** Ships to a double of GCS; by default to a directory. */
  readonly gcs?: GcsBench;
}

const AIM = { ratio: 0.8, rssMib: 200 };
const WITHIN_MS = 15 * 60_000;

interface Run {
  readonly seconds: number;
  /** Processor time, user and system. */
  readonly cpuSeconds: number;
}

interface DaemonRun extends Run {
  /** From the start of its process on. */
  readonly sinceStartSeconds: number;
  readonly maxRssMib: number;
  readonly further: readonly Figure[];
}

/**
 * A daemon started on a backlog of binlogs, against `zstd -1 -T2` of the same files with its output fsynced; the two take
 * turns, so that what else the machine does meets both.
 */
export async function benchBacklog({ mib = 2_048, runs = 5, binlogs, gcs }: BacklogOptions = {}): Promise<Report> {
  const folder = await mkdtemp(join(tmpdir(), 'shipmate-bench-'));
  let etcd: Etcd | null = null;
  try {
    const logs = await provideBinlogs(binlogs ?? join(folder, 'binlogs'), mib);
    etcd = await startEtcd();
    const pairs: { zstd: Run; shipmate: DaemonRun }[] = [];
    for (let n = 0; n < runs; n++) {
      const dir = join(folder, `run-${n}`);
      await mkdir(dir);
      const zstd = await compress(logs, dir);
      const options = { dir, cluster: `bench-${n}`, endpoints: etcd.endpoints, gcs };
      pairs.push({ zstd, shipmate: await ship(logs, { ...options, verify: n === runs - 1 }) });
      await rm(dir, { recursive: true });
    }
    return report(logs, pairs, gcs);
  } finally {
    await etcd?.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

interface ShipOptions {
  readonly dir: string;
  readonly cluster: string;
  readonly endpoints: readonly string[];
  readonly verify: boolean;
  readonly gcs: GcsBench | undefined;
}

async function ship(logs: Binlogs, { dir, cluster, endpoints, verify, gcs }: ShipOptions): Promise<DaemonRun> {
  const bucket = gcs ? await startBenchStore(gcs) : null;
  const { storePath, ...store } = bucket ?? { storePath: join(dir, 'store') };
  await mkdir(storePath, { recursive: true });
  const last = logs.files.at(-1)!;
  const end = { segment: basename(last), offset: (await stat(last)).size };
  const cursors = await watchCursor(endpoints, cluster);
  const startedMs = performance.now();
  const source = { dir: logs.dir };
  const chunk = { maxDelay: '1s' };
  const daemon = await startDaemon({ node: 'bench', dir, cluster, endpoints, storePath, ...store, source, chunk });
  try {
    const { atMs: beganMs } = await daemon.becomesMaster();
    const before = await usageOf(daemon);
    const isEnd = ({ position }: { position: { segment: string; offset: number } | null }) =>
      position?.segment === end.segment && position.offset === end.offset;
    const ended = await cursors.first('all is shipped', isEnd, { withinMs: WITHIN_MS, describe: () => daemon.tail() });
    const { cpuSeconds, maxRssMib } = await usageOf(daemon);
    if (verify) await demandWhole(daemon);
    return {
      seconds: (ended.atMs - beganMs) / 1_000,
      sinceStartSeconds: (ended.atMs - startedMs) / 1_000,
      cpuSeconds: cpuSeconds - before.cpuSeconds,
      maxRssMib,
      further: bucket ? [await bucket.uploadsAtOnce()] : [],
    };
  } finally {
    await daemon.stop();
    await cursors.close();
    await bucket?.stop();
  }
}

async function demandWhole({ configFile }: Daemon): Promise<void> {
  const { code, stderr } = await shipmate(configFile, 'verify', STREAM, '--deep', '--json');
  if (code !== 0) throw new Error(`what was shipped does not verify: ${stderr}`);
}

async function compress({ files }: Binlogs, dir: string): Promise<Run> {
  const output = join(dir, 'zstd');
  await mkdir(output);
  const script = 'zstd -q -1 -T2 --output-dir-flat "$0" "$@" && sync "$0"/* && times';
  const beganMs = performance.now();
  const child = spawn('sh', ['-c', script, output, ...files], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [times, [status]] = await Promise.all([text(child.stdout), once(child, 'exit')]);
  const seconds = (performance.now() - beganMs) / 1_000;
  if (status !== 0) throw new Error(`zstd ended with ${status}`);
  await rm(output, { recursive: true });
  // The second line is the children's: 0m3.110000s 0m0.370000s
  const [user, system] = [...times.split('\n')[1]!.matchAll(/(\d+)m([\d.]+)s/g)].map(
    ([, m, s]) => Number(m) * 60 + Number(s),
  );
  return { seconds, cpuSeconds: user! + system! };
}

function report(
  logs: Binlogs,
  pairs: readonly { zstd: Run; shipmate: DaemonRun }[],
  gcs: GcsBench | undefined,
): Report {
  const where = gcs ? ` to a GCS double with ${gcs.latencyMs} ms latency` : '';
  const mb = logs.bytes / 1e6;
  const shipmate = pairs.map((pair) => pair.shipmate);
  const ratio = (of: (run: Run) => number) => round(median(pairs.map((pair) => of(pair.zstd) / of(pair.shipmate))));
  const mbPerSecond = (runs: readonly Run[]) => Math.round(mb / median(runs.map(({ seconds }) => seconds)));
  const speed = { shipmate: mbPerSecond(shipmate), zstd: mbPerSecond(pairs.map(({ zstd }) => zstd)) };
  const seconds = round(median(shipmate.map((run) => run.seconds)), 1);
  const maxRssMib = Math.round(Math.max(...shipmate.map((run) => run.maxRssMib)));
  return {
    title: `A backlog of ${Math.round(logs.bytes / MIB)} MiB in ${logs.files.length} binlogs${where}, medians of ${pairs.length} alternating runs`,
    figures: [
      { what: 'from the first opening to lag 0', value: seconds, unit: 's' },
      { what: 'speed', value: speed.shipmate, unit: 'MB/s' },
      { what: 'speed of zstd -1 -T2, fsynced', value: speed.zstd, unit: 'MB/s' },
      { what: 'of its speed', value: ratio((run) => run.seconds), unit: '', atLeast: AIM.ratio },
      { what: 'processor time of zstd by ours', value: ratio((run) => run.cpuSeconds), unit: '' },
      { what: 'largest RSS of the daemon', value: maxRssMib, unit: 'MiB', atMost: AIM.rssMib },
      ...shipmate.at(-1)!.further,
    ],
    data: { ...gcs, bytes: logs.bytes, ratio: ratio((run) => run.seconds), mbPerSecond: speed, maxRssMib, runs: pairs },
  };
}
