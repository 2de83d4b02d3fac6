import { afterAll, beforeAll, test } from '@jest/globals';
import { seededRandom } from '../fakes/faulty-store.ts';
import { type Load, startLoad } from '../helpers/load.ts';
import { TwoServers } from '../helpers/two-servers.ts';
import { type Application, pairTroubles } from './pair-faults.ts';
import { runSchedule, type Victim } from './schedule.ts';

/**
 * A random schedule over two hosts that ship to a double of Google Cloud Storage: its faults, those of daemons, etcd and the
 * network between, and failovers of the database. The same seed gives the same schedule:
 * SHIPMATE_CHAOS_SEED=… SHIPMATE_CHAOS_SECONDS=… npm run jest -- test/chaos/two-servers
 */
const SECONDS = Number(process.env.SHIPMATE_CHAOS_SECONDS ?? 60);
/** Always the same schedule unless told: it has failovers, both ways. */
const SEED = Number(process.env.SHIPMATE_CHAOS_SEED ?? 4242);

let pair: TwoServers;
beforeAll(async () => {
  pair = await TwoServers.start({ etcdNodes: 3, proxied: true, gcs: true, parallelThreads: 4 });
}, 120_000);
afterAll(() => pair?.stop());

test(
  'whatever goes wrong with two hosts: what the archive gives is the primary’s database',
  async () => {
    const random = seededRandom(SEED);
    await pair.ready();
    const application = new Shop();
    const victim: Victim = {
      async underLoad(act) {
        await application.write();
        try {
          await act();
        } finally {
          await application.rest();
        }
        await pair.verify();
      },
      ready: () => pair.ready(),
      figures: () => pair.figures(),
    };
    const troubles = pairTroubles({ pair, random, application });
    await runSchedule({ troubles, victim, random, seed: SEED, seconds: SECONDS });
  },
  (SECONDS + 240) * 1000,
);

/** Writes to the server that is the primary, and to another once it is told. */
class Shop implements Application {
  #load: Load | null = null;
  #seed = 1;

  async write(): Promise<void> {
    await this.rest();
    this.#load = await startLoad(pair.primary.server, { seed: this.#seed++, commitsPerSecond: 100 });
  }

  async rest(): Promise<void> {
    await this.#load?.stop();
    this.#load = null;
  }
}
