import { rm } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { bytesText } from '../src/core/format.ts';
import { differences, type Reign, readBinlogs } from '../test/helpers/archive.ts';
import { type Cluster, checksums, replay, STREAM } from '../test/helpers/cluster.ts';
import { shipmate } from '../test/helpers/daemon.ts';
import type { Load } from '../test/helpers/load.ts';
import type { Mariadb } from '../test/helpers/mariadb.ts';
import type { Screen } from './screen.ts';

/** What the acts play with. */
export interface Stage {
  readonly screen: Screen;
  readonly cluster: Cluster;
  readonly load: Load;
  /** The twins' lease, seconds. */
  readonly ttlSeconds: number;
}

/** What an act measured: `['take-over after kill -9', '2.63 s']`. */
export type Figure = readonly [what: string, took: string];

const seconds = (ms: number) => `${(ms / 1000).toFixed(2)} s`;
const count = (value: number) => value.toLocaleString('en');

export async function theTwins({ screen, cluster }: Stage): Promise<void> {
  screen.act(1, 'Two twins, one master');
  const { master, standby } = await cluster.ready();
  screen.say(
    `Both daemons watch the same binlogs. ${master.node} was elected master and ships what the database writes as it ` +
      `is written; ${standby.node} ships nothing. It follows the cursor, the last GTID that is safe in the archive, and ` +
      'works out all the time whether it could go on from exactly there.',
  );
  await delay(7_000);
  const links = await cluster.chain.read();
  screen.good(`${links.length} objects in the store so far, each naming the digest of the one before it: a chain.`);
  screen.lesson('One ships, the other is ready, and “ready” is checked before it is needed.');
  await delay(1_500);
}

export async function theMasterDies({ screen, cluster, ttlSeconds }: Stage): Promise<Figure> {
  screen.act(2, 'The master dies');
  const { master, standby } = await cluster.ready();
  screen.say(`kill -9 for ${master.node}, in the middle of its work. Nobody is told; the database goes on writing.`);
  await delay(1_500);
  const since = standby.mark();
  const killedMs = performance.now();
  await master.kill();
  screen.event(`${master.node} is dead. Its lease in etcd runs out ${ttlSeconds} s after its last sign of life …`);
  const { term, atMs } = await standby.becomesMaster({ since });
  screen.good(`${standby.node} is master of term ${term}, ${seconds(atMs - killedMs)} after the kill.`);
  await cluster.ships();
  const [before, now] = (await cluster.chain.reigns()).slice(-2);
  screen.say(
    `It sealed term ${before?.term} behind its last object, and went on at ${goesOnAt(now)}: at the very byte where the ` +
      'archive ended. What was written meanwhile was waiting in the binlog, so nothing had to be saved anywhere else.',
  );
  screen.lesson('The logs on disk are the queue. A dead master costs a few seconds of lag, and no byte.');
  await delay(2_000);
  screen.event(`${master.node} is started again, and comes back as standby.`);
  await cluster.ready();
  await delay(1_500);
  return ['take-over after kill -9', `${seconds(atMs - killedMs)}, with a lease of ${ttlSeconds} s`];
}

function goesOnAt(reign: Reign | undefined): string {
  const opening = reign?.opening.header;
  return opening?.kind === 'opening' && opening.at ? `${opening.at.segment}:${opening.at.offset}` : 'its start';
}

export async function theMasterFreezes({ screen, cluster, ttlSeconds }: Stage): Promise<Figure> {
  screen.act(3, 'The master freezes, and wakes');
  const { master, standby } = await cluster.ready();
  screen.say(
    `Worse than dying: ${master.node} is stopped in the middle of its work, as when a hypervisor pauses a machine. When ` +
      'it wakes, its lease is long gone, but for a moment it still believes that it is master. To make it harder, it will ' +
      'not reach etcd either.',
  );
  await delay(3_000);
  const since = { master: master.mark(), standby: standby.mark() };
  const frozenMs = performance.now();
  master.freeze();
  screen.event(`${master.node} is frozen (SIGSTOP), beyond its lease of ${ttlSeconds} s.`);
  const { term, atMs } = await standby.becomesMaster({ since: since.standby });
  screen.good(`${standby.node} is master of term ${term}, ${seconds(atMs - frozenMs)} after the freeze.`);
  await delay(2_000);
  cluster.link(master).cut();
  const wokenMs = performance.now();
  master.thaw();
  screen.event(`${master.node} wakes, cut off from etcd, and goes on shipping where it was …`);
  const fenced = await master.logged(/^deposed/, { since: since.master });
  screen.good(
    `Fenced by the store after ${seconds(fenced.atMs - wokenMs)}: “${fenced.message.replace('deposed: ', '')}”.`,
  );
  screen.say(
    'Each object is created only if its name is still free, and the seal had taken the next name. So the write failed, ' +
      `and ${master.node} knew. No clock, no lease and no etcd had a say in that.`,
  );
  await delay(2_500);
  screen.lines('', ...(await chainLines(screen, cluster)));
  screen.lesson('etcd elects, the store decides: two masters can’t both write, whatever anybody believes.');
  cluster.link(master).heal();
  await cluster.ready();
  await delay(2_500);
  return ['from waking to being fenced by the store', seconds(fenced.atMs - wokenMs)];
}

/** A line a term: who reigned, for how many chunks, and who sealed it. */
async function chainLines(screen: Screen, cluster: Cluster): Promise<string[]> {
  const reigns = await cluster.chain.reigns();
  const most = Math.max(1, ...reigns.map(({ chunks }) => chunks));
  return reigns.map(({ term, node, chunks, sealedBy }) => {
    const bar = '▪'.repeat(Math.max(1, Math.round((chunks / most) * 30))).padEnd(30);
    const end = sealedBy ? `▌ sealed by ${sealedBy}` : '… open';
    const colour = node === cluster.daemons[0]?.node ? 'magenta' : 'blue';
    return `   term ${term}  ${screen.paint(colour, `${node}  ${bar}`)} ${String(chunks).padStart(5)} chunks  ${end}`;
  });
}

export async function theGoodbye({ screen, cluster }: Stage): Promise<Figure> {
  screen.act(4, 'A polite goodbye');
  const { master, standby } = await cluster.ready();
  screen.say(`For planned work nobody waits for a lease: \`shipmate handover ${STREAM}\`, from any twin’s config.`);
  await delay(1_500);
  const since = { master: master.mark(), standby: standby.mark() };
  await cluster.succeed(standby, 'handover', STREAM);
  const left = await master.logged(/^role: leaving/, { since: since.master });
  const { term, atMs } = await standby.becomesMaster({ since: since.standby });
  screen.good(
    `${standby.node} is master of term ${term}, ${Math.round(atMs - left.atMs)} ms after ${master.node} left.`,
  );
  screen.lesson('Upgrades and reboots cost no lag worth speaking of: SIGTERM does the same.');
  await delay(2_500);
  return ['take-over after shipmate handover', seconds(atMs - left.atMs)];
}

/** Returns whether everything is as it must be. */
export async function theProof({ screen, cluster, load }: Stage, replica: Mariadb): Promise<boolean> {
  screen.act(5, 'The proof');
  screen.say('The load stops. Every binlog is restored from the store alone: no daemon and no etcd is asked.');
  await load.stop();
  await cluster.settled();
  const deep = await shipmate(cluster.daemons[0]!.configFile, 'verify', STREAM, '--deep');
  const whole = deep.code === 0;
  const restored = await cluster.restore();
  const expected = await readBinlogs(cluster.server.dataDir);
  const wrong = differences(expected, await readBinlogs(restored));
  const bytes = [...expected.values()].reduce((sum, { length }) => sum + length, 0);

  tell(screen, whole, 'shipmate verify --deep: every link and every digest of the chain is right');
  tell(
    screen,
    wrong.length === 0,
    `shipmate restore: ${expected.size} binlogs, ${bytesText(bytes)}, byte for byte the server’s`,
  );
  for (const line of [...wrong, ...(whole ? [] : [deep.stderr.trim()])]) screen.bad(line);

  screen.event('The restored binlogs are replayed into a second, empty MariaDB …');
  await replay(restored, replica);
  await rm(restored, { recursive: true });
  const same = await compareTables(screen, cluster.server, replica, load.database);
  return whole && wrong.length === 0 && same;
}

async function compareTables(screen: Screen, server: Mariadb, replica: Mariadb, database: string): Promise<boolean> {
  const here = await checksums(server, database);
  const there = await checksums(replica, database);
  for (const [table, sum] of Object.entries(here)) {
    const [row] = await replica.query(`SELECT COUNT(*) AS n FROM \`${database}\`.\`${table}\``);
    const rows = `${count(Number(row?.n))} rows`.padStart(13);
    const sums = `CHECKSUM TABLE ${String(sum).padStart(10)} = ${String(there[table]).padStart(10)}`;
    tell(screen, there[table] === sum, `${`${database}.${table}`.padEnd(15)} ${rows}   ${sums}`);
  }
  return (
    Object.keys(here).length > 0 && Object.keys(here).join() === Object.keys(there).join() && sameValues(here, there)
  );
}

const sameValues = (a: Record<string, number>, b: Record<string, number>) =>
  Object.entries(a).every(([name, value]) => b[name] === value);

function tell(screen: Screen, holds: boolean, text: string): void {
  if (holds) screen.good(text);
  else screen.bad(text);
}

export async function theVerdict(
  { screen, cluster, load }: Stage,
  { right, figures }: { right: boolean; figures: readonly Figure[] },
): Promise<void> {
  const terms = (await cluster.chain.reigns()).length;
  const paint = (colour: 'green' | 'red', text: string) =>
    text.replace(/\S+/g, (word) => screen.paint(['bold', colour], word));
  screen.lines('', ...figures.map(([what, took]) => `     ${what.padEnd(42)} ${took}`), '');
  const summary = `${count(load.commits)} commits, ${terms} terms, one master killed, one frozen and fenced, one handover`;
  if (right) screen.good(paint('green', `${summary}: nothing lost, nothing forked, nothing invented.`));
  else screen.bad(paint('red', `${summary}: and the archive is not right. Please report what is above.`));
  screen.lines('');
}
