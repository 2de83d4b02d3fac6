import { setTimeout as delay } from 'node:timers/promises';

/** What goes wrong: `begin` does it, and returns what ends it. Two that touch the same part never overlap. */
export interface Trouble {
  readonly name: string;
  readonly touches: readonly Part[];
  begin(): Promise<() => Promise<void>>;
}

export type Part = 'daemons' | 'network' | 'etcd' | 'store' | 'server';

/** What a schedule acts on. */
export interface Victim {
  /** Something is written to the database while it acts; then everything is proven to be whole. */
  underLoad(act: () => Promise<void>): Promise<void>;
  ready(): Promise<unknown>;
  /** One line on the archive as it is now. */
  figures(): Promise<string>;
}

export interface ScheduleOptions {
  readonly troubles: readonly Trouble[];
  readonly victim: Victim;
  /** 0 to 1, seeded. */
  readonly random: () => number;
  readonly seed: number;
  readonly seconds: number;
}

/** Proofs of the whole archive in between, so that a failure is found near its cause. */
const ROUNDS_BETWEEN_PROOFS = 8;
const MAX_TROUBLE_MS = 6_000;
const MAX_REST_MS = 2_000;

const say = (text: string) => process.stderr.write(`      chaos: ${text}\n`);

/** Troubles at random, for so long; the same seed gives the same schedule. Prints the schedule when something fails. */
export async function runSchedule({ troubles, victim, random, seed, seconds }: ScheduleOptions): Promise<void> {
  say(`seed ${seed}, ${seconds} s`);
  const endMs = performance.now() + seconds * 1000;
  const schedule: string[] = [];
  try {
    while (performance.now() < endMs) {
      await victim.underLoad(async () => {
        for (let round = 0; round < ROUNDS_BETWEEN_PROOFS && performance.now() < endMs; round++) {
          await oneRound(troubles, random, (name) => schedule.push(name));
          await delay(random() * MAX_REST_MS);
        }
        await victim.ready();
      });
      say(`the archive is whole after ${schedule.length} troubles; ${await victim.figures()}`);
    }
  } catch (error) {
    say(`seed ${seed} failed after this schedule:\n${schedule.map((line) => `        ${line}`).join('\n')}`);
    throw error;
  }
}

/** One or two troubles, the second while the first lasts; both are over at the end. */
async function oneRound(all: readonly Trouble[], random: () => number, onBegin: (name: string) => void): Promise<void> {
  const choose = (among: readonly Trouble[]) => among[Math.floor(random() * among.length)]!;
  const first = choose(all);
  const apart = all.filter(({ touches }) => !touches.some((part) => first.touches.includes(part)));
  const second = random() < 0.5 && apart.length > 0 ? choose(apart) : null;
  const lastsMs = random() * MAX_TROUBLE_MS;
  onBegin(`${first.name}, ${Math.round(lastsMs)} ms`);
  const endFirst = await first.begin();
  await delay(lastsMs / 2);
  if (second) onBegin(`  and meanwhile: ${second.name}`);
  // Some wait for a master, whom there may not be before the first trouble is over.
  const begun = second?.begin();
  begun?.catch(() => {}); // thrown below
  await delay(lastsMs / 2);
  await endFirst();
  const endSecond = await begun;
  if (endSecond) {
    await delay(random() * MAX_REST_MS);
    await endSecond();
  }
}
