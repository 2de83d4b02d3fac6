import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, jest, test } from '@jest/globals';
import fc from 'fast-check';
import { CRASH_POINTS, World } from '../helpers/world.ts';

/** What may happen next in a world of several daemons, one log and one store. */
type Event =
  | { readonly kind: 'elect'; readonly crashAt: (typeof CRASH_POINTS)[number] | null; readonly deposes: boolean }
  | { readonly kind: 'lose-lease' | 'land' | 'rotate' | 'wipe-cursor' | 'stale-cursor' | 'raise-floor' | 'let-run' }
  | { readonly kind: 'append'; readonly bytes: number };

const simple = (...kinds: Exclude<Event['kind'], 'elect' | 'append'>[]) =>
  fc.constantFrom(...kinds).map((kind): Event => ({ kind }));
const append = fc.record({ kind: fc.constant('append' as const), bytes: fc.integer({ min: 1, max: 600 }) });
const elect = fc.record({
  kind: fc.constant('elect' as const),
  crashAt: fc.option(fc.constantFrom(...CRASH_POINTS)),
  deposes: fc.boolean(),
});
interface Given {
  readonly seed: number;
  readonly window: number;
  readonly faultRate: number;
  readonly events: readonly Event[];
}

const world = (...events: fc.Arbitrary<Event>[]): fc.Arbitrary<Given> =>
  fc.record({
    seed: fc.integer(),
    window: fc.integer({ min: 1, max: 4 }),
    faultRate: fc.constantFrom(0, 0.2, 0.5),
    events: fc.array(fc.oneof(...events), { minLength: 5, maxLength: 40 }),
  });

/** Runs the events, then lets a successor finish; the world checks the chain after every creation. */
async function live({ seed, window, faultRate, events }: Given): Promise<World> {
  const world = new World({ random: randomFrom(seed), window, faultRate });
  const leases: AbortController[] = [];
  const reigns: Promise<void>[] = [];
  world.log.append();
  for (const event of events) {
    switch (event.kind) {
      case 'elect': {
        // Without `deposes` the old master does not hear of it: two masters at once.
        if (event.deposes) leases.at(-1)?.abort(new Error('lease lost'));
        const lease = new AbortController();
        leases.push(lease);
        reigns.push(world.elect(lease.signal, event.crashAt));
        break;
      }
      case 'append':
        world.log.append({ bytes: event.bytes });
        break;
      case 'rotate':
        world.log.rotate();
        break;
      case 'lose-lease':
        leases.shift()?.abort(new Error('lease lost'));
        break;
      case 'land':
        world.landOne();
        break;
      case 'wipe-cursor':
        world.cursor = null;
        break;
      case 'stale-cursor':
        world.cursor = world.cursorsSeen[Math.floor(world.cursorsSeen.length / 2)] ?? null;
        break;
      case 'raise-floor':
        await world.raiseFloor();
        break;
      case 'let-run':
        for (let turns = 0; turns < 5; turns++) await turn();
    }
    await turn();
  }
  for (const lease of leases) lease.abort(new Error('the end'));
  let ended = false;
  const all = Promise.all(reigns).finally(() => {
    ended = true;
  });
  while (!ended) await world.landAll(); // a read that is held back knows no signal
  await all;
  await world.finish();
  return world;
}

function randomFrom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** As many schedules as a loaded machine gets through in time; a quiet one does all of them in a few seconds. */
const limits = { numRuns: Number(process.env.SHIPMATE_PROPERTY_RUNS ?? 150), interruptAfterTimeLimit: 20_000 };

describe('the protocol, whatever happens', () => {
  jest.setTimeout(90_000);

  test('rules 4–7, 10, 12, 13: two masters and a successor, slow, lost and ambiguous writes, stale cursors, crashes', async () => {
    await fc.assert(
      fc.asyncProperty(
        world(
          elect,
          elect,
          append,
          append,
          simple('rotate', 'lose-lease', 'land', 'land', 'wipe-cursor', 'stale-cursor', 'let-run'),
        ),
        async (given) => {
          const world = await live(given);
          expect(world.shipped()).toEqual(world.log.contents());
        },
      ),
      limits,
    );
  });

  test('rule 18: retention under a walk', async () => {
    await fc.assert(
      fc.asyncProperty(
        world(
          elect,
          append,
          append,
          simple('raise-floor', 'lose-lease', 'land', 'rotate', 'wipe-cursor', 'stale-cursor', 'let-run'),
        ),
        async (given) => {
          const world = await live(given);
          expect(world.shipped()).toEqual(world.log.contents());
        },
      ),
      limits,
    );
  });
});
