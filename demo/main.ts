import { messageOf } from '../src/errors.ts';
import { Cluster, STREAM } from '../test/helpers/cluster.ts';
import { startLoad } from '../test/helpers/load.ts';
import { startMariadb } from '../test/helpers/mariadb.ts';
import { theGoodbye, theMasterDies, theMasterFreezes, theProof, theTwins, theVerdict } from './acts.ts';
import { showLive } from './panel.ts';
import { Screen } from './screen.ts';

/** `npm run demo [-- --keep]`: everything real, on loopback, in a temporary folder; nothing of it is left behind. */
const TTL_SECONDS = 3;
const COMMITS_PER_SECOND = 200;

const screen = new Screen();
const keep = process.argv.includes('--keep');
const interrupted = new Promise<'interrupted'>((resolve) => {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => resolve('interrupted'));
});
/** What was started is ended in reverse order, however the demo ends. */
const endings: (() => Promise<void> | void)[] = [];

/** Returns whether the archive was right. */
async function play(): Promise<boolean> {
  const beganMs = performance.now();
  screen.lines(
    '',
    `   ${screen.paint('bold', 'Shipmate')}  a database’s log, shipped by two daemons, lost by none`,
    '',
  );
  screen.say('Starting an etcd, two MariaDBs (the second one for the end), and two Shipmate daemons …');
  // An ending waits for the start: interrupted in between, nothing may be left behind either.
  const starting = Cluster.start({ proxied: true, daemon: { ttl: `${TTL_SECONDS}s` } });
  endings.push(async () => (await starting).stop());
  const startingReplica = startMariadb({ serverId: 2 });
  endings.push(async () => (await startingReplica).stop());
  const [cluster, replica] = await Promise.all([starting, startingReplica]);
  await cluster.ready();
  let load = await startLoad(cluster.server, { commitsPerSecond: COMMITS_PER_SECOND });
  endings.push(() => load.stop());
  await introduce(cluster, performance.now() - beganMs);

  const live = showLive(screen, cluster, () => load);
  endings.push(() => live.stop());
  const stage = { screen, cluster, load, ttlSeconds: TTL_SECONDS };
  await theTwins(stage);
  await theMasterDies(stage);
  await theMasterFreezes(stage);
  await theGoodbye(stage);
  const right = await theProof(stage, replica);
  await theVerdict(stage, right);
  if (keep) {
    load = await startLoad(cluster.server, { commitsPerSecond: COMMITS_PER_SECOND, seed: 2 });
    tellHowToUseIt(cluster);
    await interrupted;
  }
  return right;
}

async function introduce({ server, etcd, storePath, daemons, dir }: Cluster, tookMs: number): Promise<void> {
  const [version] = await server.query('SELECT VERSION() AS v');
  screen.lines(
    '',
    `   database   MariaDB ${version?.v}, ${COMMITS_PER_SECOND} commits a second, no backup of any kind`,
    `   daemons    ${daemons.map(({ node, pid }) => `${node} (pid ${pid})`).join(' and ')}, as on two hosts`,
    `   etcd       ${etcd.endpoints.join(', ')}, leases of ${TTL_SECONDS} s`,
    `   store      ${storePath}`,
    '',
    `   All of it real, on loopback, below ${dir}; ready after ${(tookMs / 1000).toFixed(1)} s.`,
  );
}

function tellHowToUseIt({ server, daemons, etcd, storePath }: Cluster): void {
  const config = daemons[0]?.configFile;
  screen.lines(
    '   It keeps running, under load. In another terminal:',
    '',
    ...daemons.map(({ node, url }) => `     ${url}/   status page of ${node} (also /metrics, /readyz, /api/v1/status)`),
    `     bin/shipmate status --watch -c ${config}`,
    `     bin/shipmate handover ${STREAM} -c ${config}`,
    `     bin/shipmate ls -c ${config}`,
    `     bin/shipmate restore ${STREAM} --to DIR -c ${config}`,
    ...daemons.map(({ node, pid }) => `     kill -9 ${pid}   (${node})`),
    `     mariadb --no-defaults -uroot -S ${server.socket}`,
    `     ETCDCTL_API=3 etcdctl --endpoints ${etcd.endpoints[0]} get --prefix /shipmate`,
    `     ls -R ${storePath}`,
    '',
    '   Ctrl-C ends all of it and removes its files.',
    '',
  );
}

const playing = play().catch((error: unknown) => {
  // After Ctrl-C everything ends at once, and each act that waits for something fails.
  return error instanceof Error ? error : new Error(messageOf(error));
});
const outcome = await Promise.race([playing, interrupted]);
for (const end of endings.reverse()) await end();
if (outcome instanceof Error) process.stderr.write(`\nThe demo broke off: ${outcome.message}\n`);
else if (outcome !== 'interrupted' || keep) screen.lines('   Everything was ended and removed.', '');
process.exit(outcome === true || (outcome === 'interrupted' && keep) ? 0 : outcome === 'interrupted' ? 130 : 1);
