import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { seededRandom } from '../fakes/faulty-store.ts';
import { Cluster, checksums, replay, startReplica } from '../helpers/cluster.ts';
import { troubles } from './faults.ts';
import { runSchedule } from './schedule.ts';

/**
 * A random schedule of everything that the cluster tests do one at a time. The same seed gives the same schedule:
 * SHIPMATE_CHAOS_SEED=… SHIPMATE_CHAOS_SECONDS=… npm run jest -- test/chaos/chaos
 */
const SECONDS = Number(process.env.SHIPMATE_CHAOS_SECONDS ?? 60);
const SEED = Number(process.env.SHIPMATE_CHAOS_SEED ?? Math.floor(Math.random() * 2 ** 31));

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start({ etcdNodes: 3, proxied: true, faulty: true });
}, 120_000);
afterAll(() => cluster?.stop());

test(
  'whatever goes wrong, and whatever else meanwhile: no byte is lost, none is invented',
  async () => {
    const random = seededRandom(SEED);
    await cluster.ready();
    const victim = {
      underLoad: (act: () => Promise<void>) => cluster.underLoad(act),
      ready: () => cluster.ready(),
      figures: () => cluster.figures(),
    };
    await runSchedule({ troubles: troubles(cluster, random), victim, random, seed: SEED, seconds: SECONDS });
    await demandSameTables();
  },
  (SECONDS + 240) * 1000,
);

async function demandSameTables(): Promise<void> {
  const replica = await startReplica();
  try {
    await replay(await cluster.restore(), replica);
    expect(await checksums(replica, 'shop')).toEqual(await checksums(cluster.server, 'shop'));
  } finally {
    await replica.stop();
  }
}
