import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { seededRandom } from '../fakes/faulty-store.ts';
import { Cluster, checksums, replay, startReplica } from '../helpers/cluster.ts';
import { type Trouble, troubles } from './faults.ts';

/**
 * A random schedule of everything that the cluster tests do one at a time. The same seed gives the same schedule:
 * SHIPMATE_CHAOS_SEED=… SHIPMATE_CHAOS_SECONDS=… npm run jest -- test/chaos
 */
const SECONDS = Number(process.env.SHIPMATE_CHAOS_SECONDS ?? 180);
const SEED = Number(process.env.SHIPMATE_CHAOS_SEED ?? Math.floor(Math.random() * 2 ** 31));
/** Proofs of the whole archive in between, so that a failure is found near its cause. */
const ROUNDS_BETWEEN_PROOFS = 8;
const MAX_TROUBLE_MS = 6_000;
const MAX_REST_MS = 2_000;

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start({ etcdNodes: 3, proxied: true, faulty: true });
}, 60_000);
afterAll(() => cluster?.stop());

const say = (text: string) => process.stderr.write(`      chaos: ${text}\n`);

test(
  'whatever goes wrong, and whatever else meanwhile: no byte is lost, none is invented',
  async () => {
    say(`seed ${SEED}, ${SECONDS} s`);
    const random = seededRandom(SEED);
    const all = troubles(cluster, random);
    const endMs = performance.now() + SECONDS * 1000;
    const schedule: string[] = [];
    await cluster.ready();
    try {
      while (performance.now() < endMs) {
        await cluster.underLoad(async () => {
          for (let round = 0; round < ROUNDS_BETWEEN_PROOFS && performance.now() < endMs; round++) {
            schedule.push(await oneRound(all, random));
            await delay(random() * MAX_REST_MS);
          }
          await cluster.ready();
        });
        say(`the archive is whole after ${schedule.length} rounds; ${await figures()}`);
      }
    } catch (error) {
      say(`seed ${SEED} failed after this schedule:\n${schedule.map((line) => `        ${line}`).join('\n')}`);
      throw error;
    }
    await demandSameTables();
  },
  (SECONDS + 240) * 1000,
);

async function figures(): Promise<string> {
  const [reigns, links, orphans] = await Promise.all([
    cluster.chain.reigns(),
    cluster.chain.read(),
    cluster.chain.orphans(),
  ]);
  return `${reigns.length} terms, ${links.length} objects, ${orphans.length} of deposed masters outside the chain`;
}

/** One or two troubles, the second while the first lasts; both are over at the end. Returns what it was. */
async function oneRound(all: readonly Trouble[], random: () => number): Promise<string> {
  const choose = (among: readonly Trouble[]) => among[Math.floor(random() * among.length)]!;
  const first = choose(all);
  const second = random() < 0.5 ? choose(all.filter(({ touches }) => touches !== first.touches)) : null;
  const lastsMs = random() * MAX_TROUBLE_MS;
  const endFirst = await first.begin();
  await delay(lastsMs / 2);
  const endSecond = await second?.begin();
  await delay(lastsMs / 2);
  await endFirst();
  if (endSecond) {
    await delay(random() * MAX_REST_MS);
    await endSecond();
  }
  return `${first.name}${second ? ` and ${second.name}` : ''}, ${Math.round(lastsMs)} ms`;
}

async function demandSameTables(): Promise<void> {
  const replica = await startReplica();
  try {
    await replay(await cluster.restore(), replica);
    expect(await checksums(replica, 'shop')).toEqual(await checksums(cluster.server, 'shop'));
  } finally {
    await replica.stop();
  }
}
