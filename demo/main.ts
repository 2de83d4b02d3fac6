import { messageOf } from '../src/errors.ts';
import { Cluster, STREAM, startReplica } from '../test/helpers/cluster.ts';
import { startLoad } from '../test/helpers/load.ts';
import { theGoodbye, theMasterDies, theMasterFreezes, theProof, theTwins, theVerdict } from './acts.ts';
import { showLive } from './panel.ts';
import { Screen } from './screen.ts';

/** `npm run demo [-- --keep]`: everything real, on loopback, in a temporary folder; nothing of it is left behind. */
const TTL_SECONDS = 3;
const COMMITS_PER_SECOND = 200;

const screen = new Screen();
const keep = process.argv.includes('--keep');
const interrupted = new Promise<void>((resolve) => {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => resolve());
});
/** What was started is ended in reverse order, however the demo ends. */
const endings: (() => Promise<void>)[] = [];

/** Whether the archive was right; null until the proof was made. */
let right: boolean | null = null;

async function play(): Promise<void> {
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
  const startingReplica = startReplica();
  endings.push(async () => (await startingReplica).stop());
  const [cluster, replica] = await Promise.all([starting, startingReplica]);
  await cluster.ready();
  let load = await startLoad(cluster.server, { commitsPerSecond: COMMITS_PER_SECOND });
  endings.push(() => load.stop());
  await introduce(cluster, performance.now() - beganMs);

  const live = showLive(screen, cluster, () => load);
  endings.push(async () => live.stop());
  const stage = { screen, cluster, load, ttlSeconds: TTL_SECONDS };
  await theTwins(stage);
  const figures = [await theMasterDies(stage), await theMasterFreezes(stage), await theGoodbye(stage)];
  right = await theProof(stage, replica);
  await theVerdict(stage, { right, figures });
  if (keep) {
    live.stop();
    load = await startLoad(cluster.server, { commitsPerSecond: COMMITS_PER_SECOND, seed: 2 });
    tellHowToUseIt(cluster);
    await interrupted;
  }
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
  const [first, second] = daemons;
  screen.lines(
    '   It keeps running, under load. In another terminal:',
    '',
    `     export SHIPMATE_CONFIG=${first?.configFile}`,
    '     bin/shipmate status --watch',
    `     bin/shipmate handover ${STREAM}`,
    `     bin/shipmate ls; bin/shipmate verify --deep`,
    `     bin/shipmate restore ${STREAM} --to /tmp/restored`,
    `     kill -9 ${second?.pid}      # ${second?.node}; bin/shipmate run -c FILE starts it again`,
    '',
    ...daemons.map(({ node, url }) => `     ${node}    ${url}/  (status page; /metrics, /readyz)`),
    `     etcd    ${etcd.endpoints[0]}`,
    `     MariaDB mariadb --no-defaults -uroot -S ${server.socket}`,
    `     store   ${storePath}`,
    '',
    '   Ctrl-C ends all of it and removes its files.',
    '',
  );
}

// After Ctrl-C everything ends at once, and whatever an act waits for fails: that is no news then.
const failure = await Promise.race([play(), interrupted]).then(
  () => null,
  (error: unknown) => error,
);
for (const end of endings.reverse()) await end().catch(() => {}); // what did not start has been told already
if (failure) process.stderr.write(`\nThe demo broke off: ${messageOf(failure)}\n`);
screen.lines(`   Everything was ended and removed.${keep ? '' : ' To play with it: npm run demo -- --keep'}`, '');
process.exit(right ? 0 : right === null && !failure ? 130 : 1);
