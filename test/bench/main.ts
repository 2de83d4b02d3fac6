import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { benchBacklog } from './backlog.ts';
import { benchBandwidth } from './bandwidth.ts';
import { benchColdRestore } from './cold-restore.ts';
import { benchFetch } from './fetch.ts';
import { type Report, round, table } from './figures.ts';
import { benchLatency } from './latency.ts';
import { startMariadbBed } from './latency-mariadb.ts';
import { startPostgresBed } from './latency-postgres.ts';
import { describeMachine } from './machine.ts';
import { benchTakeover } from './takeover.ts';

const USAGE = `npm run bench -- [latency | postgres-latency | backlog | takeover | gcs-latency | gcs-backlog |
                 gcs-takeover | cold-restore | fetch | bandwidth | all] [options]

latency    from COMMIT to durable in the archive, at a steady pace of commits
postgres-latency  the same of a PostgreSQL server
backlog    a daemon that starts on 2 GiB of binlogs, against the zstd program
takeover   after SIGKILL, SIGTERM and handover
gcs-…      the same with a double of Google Cloud Storage in the place of a directory
cold-restore  an hour from the middle of a week's archive, in a store that is far away
fetch      a real PostgreSQL recovery through fetch, against cp from a local directory
bandwidth  a copy at slow beside log shipping, on a limited link: the log's lag, slow's rate, and when it is lent more

  --seconds N     how long latency is measured (default 30)
  --latency N     the double's and the cold restore's store's, ms (default 50)
  --rounds N      take-overs of each kind (default 7)
  --mib N         the backlog's or the copy's size (default 2048), or the recovery's (1024)
  --link N        the limited link, MiB/s (default 24)
  --runs N        of the backlog, alternating with zstd, or of the recovery with cp (default 5)
  --chunks N      in the cold restore's archive (default 600000)
  --binlogs DIR   keep the backlog's binlogs there, and use them again
  --json FILE     write all figures there as well

Everything runs on this machine's loopback and in temporary folders below $TMPDIR, which must be on a disk: what is
measured is mostly how long it takes to make bytes durable. Nothing else should run meanwhile.
`;

const BENCHES = [
  'latency',
  'postgres-latency',
  'backlog',
  'takeover',
  'gcs-latency',
  'gcs-backlog',
  'gcs-takeover',
  'cold-restore',
  'fetch',
  'bandwidth',
] as const;
type Bench = (typeof BENCHES)[number];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: 'string' },
    latency: { type: 'string', default: '50' },
    rounds: { type: 'string' },
    mib: { type: 'string' },
    runs: { type: 'string' },
    link: { type: 'string' },
    binlogs: { type: 'string' },
    chunks: { type: 'string' },
    json: { type: 'string' },
    help: { type: 'boolean' },
  },
});

function run(bench: Bench): Promise<Report> {
  const store = bench.startsWith('gcs-') ? { gcs: { latencyMs: positive('latency', values.latency) } } : {};
  switch (bench) {
    case 'latency':
    case 'gcs-latency':
      return benchLatency({ start: startMariadbBed, ...given({ seconds: values.seconds }), ...store });
    case 'postgres-latency':
      return benchLatency({ start: startPostgresBed, commitsPerSecond: 300, ...given({ seconds: values.seconds }) });
    case 'backlog':
    case 'gcs-backlog':
      return benchBacklog({
        ...given({ mib: values.mib, runs: values.runs }),
        ...(values.binlogs !== undefined && { binlogs: values.binlogs }),
        ...store,
      });
    case 'takeover':
    case 'gcs-takeover':
      return benchTakeover({ ...given({ rounds: values.rounds }), ...store });
    case 'fetch':
      return benchFetch(given({ mib: values.mib, runs: values.runs }));
    case 'bandwidth':
      return benchBandwidth(given({ mib: values.mib, link: values.link }));
    case 'cold-restore':
      return benchColdRestore(given({ chunks: values.chunks, requestMs: values.latency }));
  }
}

/** The numbers that were given. */
function given(options: Record<string, string | undefined>): Record<string, number> {
  const named = Object.entries(options).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return Object.fromEntries(named.map(([name, text]) => [name, positive(name, text)]));
}

function positive(name: string, text: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new Error(`--${name} must be a number above 0, not "${text}"`);
  return value;
}

const asked = positionals.length === 0 ? ['all'] : positionals;
const wanted = asked.includes('all') ? BENCHES : BENCHES.filter((bench) => asked.includes(bench));
if (values.help || asked.some((name) => name !== 'all' && !BENCHES.some((bench) => bench === name))) {
  process.stdout.write(USAGE);
  process.exit(values.help ? 0 : 2);
}

// Servers and daemons end with this process, but not when a signal ends it.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));

const machine = await describeMachine();
process.stdout.write(
  `${machine.cpu}, ${round(machine.memoryMib / 1024, 0)} GiB, ${machine.system}, Node ${machine.node}, ` +
    `load ${machine.load}, fsync ${machine.fsyncMs} ms\n`,
);
const results: Record<string, unknown> = {};
for (const bench of wanted) {
  const report = await run(bench);
  process.stdout.write(`\n${table(report)}\n`);
  results[bench] = report.data;
}
if (values.json !== undefined) {
  const time = new Date().toISOString();
  await writeFile(values.json, `${JSON.stringify({ time, machine, ...results }, null, 2)}\n`);
}
