import { mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { parse } from 'yaml';
import { encodeHeader } from '../../src/core/header.ts';
import { placeKey } from '../../src/core/keys.ts';
import { type FaultRule, switchFaults } from '../fakes/faulty-store.ts';
import { Cluster } from '../helpers/cluster.ts';
import type { Daemon } from '../helpers/daemon.ts';
import { DASHBOARD, dashboardQueries } from '../helpers/dashboard.ts';
import { type Load, startLoad } from '../helpers/load.ts';
import { describedMetrics, exportedMetrics } from '../helpers/metrics-table.ts';
import { type FiringAlert, type Prometheus, RULES, startPrometheus } from '../helpers/prometheus.ts';
import { STREAM } from '../helpers/twins.ts';
import { TwoServers } from '../helpers/two-servers.ts';
import { until } from '../helpers/wait.ts';

/** How long a pair is watched that nothing ails: two minutes, by hand rather an hour. */
const HEALTHY_SECONDS = Number(process.env.SHIPMATE_HEALTHY_SECONDS ?? 120);
/** The longest that a rule waits before it fires. */
const LONGEST_RULE_SECONDS = 10 * 60;
/** Of the pair that things happen to: minutes become seconds. */
const QUICKEN = 60;
const PATIENT = { withinMs: 180_000 };

jest.setTimeout(HEALTHY_SECONDS * 1_000 + 300_000);

/** A pair that nothing ails, and one that everything happens to. */
let healthy: Cluster;
let watchOfHealthy: Prometheus;
let healthyRun: Promise<number>;
let pair: TwoServers;
let watch: Prometheus;
let load: Load;
let dir: string;
const fired = new Map<string, FiringAlert>();

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'shipmate-watched-'));
  const copies = async (name: string) => {
    await mkdir(join(dir, name));
    return { nas: join(dir, name) };
  };
  healthy = await Cluster.start({
    etcd: { tls: 'mutual', tlsDays: 60 },
    mariadbArgs: ['--binlog-expire-logs-seconds=86400'],
    daemon: { cluster: 'healthy', ttl: '10s', copies: await copies('healthy'), limits: { link: '1GiB/s' } },
  });
  await healthy.ready(PATIENT);
  watchOfHealthy = await startPrometheus({
    targets: healthy.daemons.map(({ url }) => url),
    quicken: Math.max(1, LONGEST_RULE_SECONDS / HEALTHY_SECONDS),
  });
  healthyRun = runHealthy();
  healthyRun.catch(() => {}); // told by the test that awaits it

  pair = await TwoServers.start({
    faulty: true,
    etcd: { tls: 'mutual', tlsDays: 2 },
    mariadbArgs: ['--binlog-expire-logs-seconds=120'],
    daemon: { cluster: 'pair', ttl: '5s', copies: await copies('pair') },
  });
  await pair.ready(PATIENT);
  watch = await startPrometheus({ targets: pair.daemons.map(({ url }) => url), quicken: QUICKEN });
  load = await startLoad(pair.primary.server, { commitsPerSecond: 10 });
});
afterAll(async () => {
  await load?.stop();
  await Promise.all([watch?.stop(), watchOfHealthy?.stop()]);
  await Promise.all([healthy?.stop(), pair?.stop()]);
  await rm(dir, { recursive: true, force: true });
});

/** Resolves to how many transactions were committed. */
async function runHealthy(): Promise<number> {
  const running = await startLoad(healthy.server, { commitsPerSecond: 50 });
  await delay(HEALTHY_SECONDS * 1_000);
  await running.stop();
  return running.commits;
}

async function fires(alert: string, labels: Record<string, string> = {}): Promise<void> {
  fired.set(alert, await watch.fires(alert, labels, { ...PATIENT, describe: () => pair.tails() }));
}

async function clears(alert: string): Promise<void> {
  const stands = async () => (await watch.alerts()).some(({ labels }) => labels.alertname === alert);
  const wait = { ...PATIENT, everyMs: 250, describe: () => pair.tails() };
  await until(`${alert} clears`, async () => !(await stands()), wait);
}

/** The stores of the pair obey this from now on; without a rule they are well. */
function faults(...rules: FaultRule[]): void {
  for (const { faultsFile } of pair.daemons) switchFaults(faultsFile!, { seed: 7, rules });
}

const instanceOf = ({ url }: Daemon) => ({ instance: new URL(url).host });

describe('a copy', () => {
  let copy: string;
  beforeAll(() => {
    copy = join(dir, 'pair');
  });

  test('that is away is late', async () => {
    await rename(copy, `${copy}-away`);
    await fires('ShipmateCopyLate', { store: 'nas' });
  });

  test('that holds something else has diverged', async () => {
    const keys = (await pair.chain.read()).map(({ header }) => placeKey(STREAM, header));
    const there = await Promise.all(keys.map((key) => stat(join(`${copy}-away`, key)).catch(() => null)));
    const missing = join(`${copy}-away`, keys[there.indexOf(null)]!);
    await mkdir(dirname(missing), { recursive: true });
    await writeFile(missing, 'of somebody else');
    await rename(`${copy}-away`, copy);
    await fires('ShipmateCopyDiverged', { store: 'nas' });
  });
});

describe('a store that refuses everything for a minute', () => {
  beforeAll(() => faults({ kind: 'error' }));

  test('is told', () => fires('ShipmateStoreRefusing', { store: 'main' }));

  test('and nothing is shipped', () => fires('ShipmateNothingShipped'));

  test('and so are other things that happen meanwhile: etcd is away', async () => {
    await pair.etcd.nodes[0]!.kill('SIGKILL');
    for (const daemon of pair.daemons) await fires('ShipmateLeaseTrouble', instanceOf(daemon));
    await pair.etcd.nodes[0]!.restart();
    await clears('ShipmateLeaseTrouble');
  });

  test('and the log grows older', () => fires('ShipmateLagging', { cluster: 'pair', stream: STREAM }));

  test('until the server will soon purge it', () => fires('ShipmateLagNearRetention'));

  test('a store that takes six seconds for each object is slow', async () => {
    faults({ kind: 'slow', slowMs: 6_000 });
    await fires('ShipmateStoreSlow', { store: 'main' });
    faults();
    await clears('ShipmateLagging');
  });
});

describe('a pair', () => {
  test('whose certificates for etcd end within two weeks', async () => {
    await fires('ShipmateCertificateExpiring', { certificate: 'cert' });
  });

  test('of which one daemon dies', async () => {
    const { standby } = await pair.ready(PATIENT);
    await standby.kill();
    await fires('ShipmateDown', instanceOf(standby));
    await fires('ShipmateTwinMissing', { cluster: 'pair' });
  });

  test('that dies', async () => {
    await Promise.all(pair.daemons.map((daemon) => daemon.kill()));
    await fires('ShipmateNoMaster', { cluster: 'pair', stream: STREAM });
    await pair.ready(PATIENT);
    await clears('ShipmateNoMaster');
    await clears('ShipmateDown');
  });

  test('whose etcd remembers another archive', async () => {
    const key = `/shipmate/pair/streams/${STREAM}/archive`;
    const known = (await pair.etcd.ctl('get', '--print-value-only', key)).trim();
    const another = { ...JSON.parse(known), id: '00000000-0000-4000-8000-000000000000' };
    await pair.etcd.ctl('put', key, JSON.stringify(another));
    await fires('ShipmateArchiveRefused');
    await pair.etcd.ctl('put', key, known);
    await clears('ShipmateArchiveRefused');
  });

  test('that is told to read a config that is wrong', async () => {
    const [daemon] = pair.daemons;
    const config = await readFile(daemon!.configFile, 'utf8');
    const tellConfig = async (text: string) => {
      await writeFile(daemon!.configFile, text);
      daemon!.signal('SIGHUP');
    };
    await tellConfig(`${config}storse: {}\n`);
    await fires('ShipmateConfigRefused', instanceOf(daemon!));
    await tellConfig(config);
    await clears('ShipmateConfigRefused');
  });

  test('whose master changes again and again', async () => {
    const isFiring = async () =>
      (await watch.alerts()).some(({ labels, state }) => labels.alertname === 'ShipmateUnsteady' && state === 'firing');
    for (let n = 0; n < 30 && !(await isFiring()); n++) {
      const { master } = await pair.ready(PATIENT);
      await pair.succeed(master, 'handover', STREAM);
    }
    await fires('ShipmateUnsteady', { cluster: 'pair' });
  });

  test('whose master can’t read its log', async () => {
    const { master } = await pair.ready(PATIENT);
    const { server } = pair.hosts.find(({ daemon }) => daemon === master)!;
    const index = join(server.dataDir, 'binlog.index');
    await load.stop();
    await rename(index, `${index}.away`);
    await fires('ShipmateSourceFailing', instanceOf(master));
    await rename(`${index}.away`, index);
    await clears('ShipmateSourceFailing');
  });

  test('in whose term a stranger writes', async () => {
    const { master } = await pair.ready(PATIENT);
    await pair.settled();
    master.freeze();
    const { header, digest: prev } = (await pair.chain.read()).at(-1)!;
    const stranger = { ...header, slot: header.slot + 1, claim: 'of nobody', prev };
    await writeFile(join(pair.storePath, placeKey(STREAM, stranger)), encodeHeader(stranger).frame);
    await master.kill();
    await fires('ShipmateForeignObject');
    await pair.ready(PATIENT);
  });

  test('whose replica is written to', async () => {
    const { server, daemon } = pair.replica;
    await server.query('SET GLOBAL read_only = OFF');
    await server.query('CREATE DATABASE errant');
    await fires('ShipmateFork', instanceOf(daemon));
    await fires('ShipmateTwinNotReady', instanceOf(daemon));
  });

  test('whose log was purged before it was shipped', async () => {
    await Promise.all(pair.daemons.map((daemon) => daemon.kill()));
    const { server, daemon } = pair.primary;
    await server.query('CREATE DATABASE purged');
    await until('the server has removed what is not shipped', async () => {
      await server.query('FLUSH BINARY LOGS');
      const [end] = await server.query('SHOW MASTER STATUS');
      await server.query(`PURGE BINARY LOGS TO '${end?.File}'`);
      return (await server.query('SHOW BINARY LOGS')).length === 1;
    });
    await daemon.start();
    await fires('ShipmateGap', instanceOf(daemon));
  });
});

describe('what a pair exports', () => {
  /** Not on every server, or not at every moment. */
  const SOMETIMES = ['shipmate_source_retention_bytes', 'nodejs_active_handles', 'nodejs_active_requests'];

  test('is what docs/metrics.md says: names, types and labels, in both directions', async () => {
    const scrape = async ({ url }: Daemon) => (await fetch(`${url}/metrics`)).text();
    const exported = exportedMetrics(await Promise.all(healthy.daemons.map(scrape)));
    const described = await describedMetrics();
    expect(typesOf(exported)).toEqual(typesOf(described));
    for (const [metric, { labels }] of exported) {
      if (labels === null && SOMETIMES.includes(metric)) continue;
      expect({ metric, labels }).toEqual({ metric, labels: described.get(metric)!.labels });
    }
  });

  const typesOf = (metrics: ReadonlyMap<string, { type: string }>) =>
    Object.fromEntries([...metrics].map(([name, { type }]) => [name, type]));

  test('is what the dashboard asks Prometheus for', async () => {
    const answers = dashboardQueries(await readFile(DASHBOARD, 'utf8')).map(async (query) => {
      return { query, series: (await watchOfHealthy.query(query)).length };
    });
    const empty = (await Promise.all(answers)).flatMap(({ query, series }) => (series === 0 ? [query] : []));
    // What stands only when something is wrong, or is limited by bytes.
    expect(empty.filter((query) => !/ALERTS|== 1$|> 0$|retention_bytes/.test(query))).toEqual([]);
  });
});

test('each rule has fired, and says in words what is wrong', async () => {
  const groups: { rules: { alert: string }[] }[] = parse(await readFile(RULES, 'utf8')).groups;
  const rules = groups.flatMap((group) => group.rules.map(({ alert }) => alert));
  expect([...fired.keys()].sort()).toEqual(rules.sort());
  for (const [alert, { annotations }] of fired) {
    expect(JSON.stringify({ alert, ...annotations })).not.toMatch(/<no value>|error|\{\{|NaN|\(any\)/);
  }
});

test('of a pair that nothing ails no alert fires, under load, for as long as any of them takes', async () => {
  const commits = await healthyRun;
  expect(commits).toBeGreaterThan(HEALTHY_SECONDS * 10);
  const firing = await watchOfHealthy.query('count_over_time(ALERTS{alertstate="firing"}[1d])');
  expect(firing.map(({ metric }) => metric)).toEqual([]);
  // It has looked all the time, at both, and something was shipped.
  const [scraped] = await watchOfHealthy.query('count(avg_over_time(up[1d]) > 0.9)');
  expect(scraped?.value[1]).toBe('2');
  const [shipped] = await watchOfHealthy.query('sum(shipmate_plain_bytes_total)');
  expect(Number(shipped?.value[1])).toBeGreaterThan(commits * 50);
  await healthy.verify();
});
