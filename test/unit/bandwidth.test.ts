import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { BURST_MS, Link, type Rates } from '../../src/core/bandwidth.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

interface Passed {
  readonly atMs: number;
  readonly name: string;
  readonly user: number;
  readonly bytes: number;
}

/** A user of a class who always wants its next piece, from a time until another. */
interface Greedy {
  readonly name: string;
  readonly pieceBytes: number;
  readonly fromMs?: number;
  readonly untilMs?: number;
}

/** A single wish. */
interface Wish {
  readonly name: string;
  readonly bytes: number;
  readonly atMs: number;
}

interface World {
  readonly rates: Rates;
  readonly untilMs: number;
  readonly greedy?: readonly Greedy[];
  readonly wishes?: readonly Wish[];
  /** How late the n-th timer rings. */
  readonly lateMs?: (n: number) => number;
}

/** What passes, when. */
function simulate({ rates, untilMs, greedy = [], wishes = [], lateMs = () => 0 }: World): Passed[] {
  const link = new Link(0);
  link.set(rates, 0);
  const passed: Passed[] = [];
  let nowMs = 0;
  const events: { atMs: number; act: () => void }[] = [];
  greedy.forEach(({ name, pieceBytes: bytes, fromMs = 0, untilMs: lastMs = untilMs }, n) => {
    const user = link.user(name);
    const ask = () =>
      link.ask(user, {
        bytes,
        pass: () => {
          passed.push({ atMs: nowMs, name, user: n, bytes });
          if (nowMs < lastMs) ask();
        },
      });
    events.push({ atMs: fromMs, act: ask });
  });
  wishes.forEach(({ name, bytes, atMs }, n) => {
    const user = link.user(name);
    const pass = () => void passed.push({ atMs: nowMs, name, user: greedy.length + n, bytes });
    events.push({ atMs, act: () => link.ask(user, { bytes, pass }) });
  });
  events.sort((a, b) => a.atMs - b.atMs);
  for (let n = 0; ; n++) {
    const timerMs = nowMs + Math.max(link.nextMs + lateMs(n), 0.01);
    const event = events[0];
    nowMs = Math.min(timerMs, event?.atMs ?? Number.POSITIVE_INFINITY);
    if (nowMs > untilMs) return passed;
    while (events[0]?.atMs === nowMs) events.shift()!.act();
    link.advance(nowMs);
  }
}

const sum = (passed: readonly Passed[]) => passed.reduce((all, { bytes }) => all + bytes, 0);
const of = (passed: readonly Passed[], name: string) => passed.filter((one) => one.name === name);
const between = (passed: readonly Passed[], fromMs: number, toMs: number) =>
  passed.filter(({ atMs }) => atMs >= fromMs && atMs <= toMs);

const NAMES = ['shipping', 'slow', 'standard', 'fast'];
const UNTIL_MS = 4_000;

/** A link of 1 to 20 MiB/s with guarantees that it can honour, some classes without one. */
const rates = fc
  .record({
    link: fc.integer({ min: MIB, max: 20 * MIB }),
    parts: fc.array(fc.option(fc.integer({ min: 1, max: 100 })), { minLength: 4, maxLength: 4 }),
    unreserved: fc.integer({ min: 0, max: 100 }),
  })
  .map(({ link, parts, unreserved }): Rates => {
    const all = parts.reduce<number>((total, part) => total + (part ?? 0), unreserved) || 1;
    const given = parts.flatMap((part, n) => (part === null ? [] : [[NAMES[n], Math.floor((part / all) * link)]]));
    return { link, guaranteed: Object.fromEntries(given) };
  });
const pieceBytes = fc.integer({ min: 32 * KIB, max: 4 * MIB });
const name = fc.constantFrom(...NAMES);
const atMs = fc.integer({ min: 0, max: UNTIL_MS });
const greedy = fc.record({ name, pieceBytes, fromMs: atMs, untilMs: atMs });
const wishes = fc.array(fc.record({ name, bytes: pieceBytes, atMs }), { maxLength: 20 });
/** Timers that come late by up to half a burst. */
const lateMs = fc.infiniteStream(fc.integer({ min: 0, max: BURST_MS / 2 })).map((stream) => {
  const seen: number[] = [];
  return (n: number) => {
    while (seen.length <= n) seen.push(stream.next().value!);
    return seen[n]!;
  };
});
const RUNS = { numRuns: 100 };

describe('a link that classes share', () => {
  test('never carries more, over any time, than its rate, two bursts and a chunk of each user and one more', () => {
    const property = fc.property(rates, fc.array(greedy, { maxLength: 6 }), wishes, lateMs, (of, users, wish, late) => {
      const passed = simulate({ rates: of, untilMs: UNTIL_MS, greedy: users, wishes: wish, lateMs: late });
      const largest = Math.max(0, ...passed.map(({ bytes }) => bytes));
      const above = 2 * burstOf(of.link) + (users.length + wish.length + 1) * largest + 1;
      // The worst window that ends at each moment, in one pass.
      let worst = Number.NEGATIVE_INFINITY;
      let before = 0;
      for (const { atMs: at, bytes } of passed) {
        worst = Math.max(worst, (of.link * at) / 1000 - before);
        before += bytes;
        expect(before - (of.link * at) / 1000 + worst).toBeLessThanOrEqual(above);
      }
    });
    fc.assert(property, RUNS);
  });

  test('gives each class its guarantee for as long as it wants it, whatever the others do', () => {
    const property = fc.property(
      rates,
      fc.array(greedy, { maxLength: 5 }),
      wishes,
      pieceBytes,
      lateMs,
      fc.integer({ min: 0, max: 2_000 }),
      (of_, users, wish, bytes, late, fromMs) => {
        for (const [wanted, guaranteed] of Object.entries(of_.guaranteed)) {
          const others = <T extends { name: string }>(all: readonly T[]) => all.filter((one) => one.name !== wanted);
          const passed = simulate({
            rates: of_,
            untilMs: UNTIL_MS,
            greedy: [{ name: wanted, pieceBytes: bytes, fromMs }, ...others(users)],
            wishes: others(wish),
            lateMs: late,
          });
          for (const seconds of [0.25, 1, 2]) {
            const had = sum(between(of(passed, wanted), fromMs, fromMs + seconds * 1000));
            expect(had).toBeGreaterThanOrEqual(guaranteed * seconds - 1);
          }
        }
      },
    );
    fc.assert(property, { numRuns: 40 });
  });

  test('leaves nothing unused while anybody waits', () => {
    const property = fc.property(
      rates,
      fc.array(greedy, { maxLength: 4 }),
      wishes,
      pieceBytes,
      lateMs,
      name,
      (...given) => {
        const [of_, users, wish, bytes, late, waits] = given;
        const always = { name: waits, pieceBytes: bytes };
        const passed = simulate({
          rates: of_,
          untilMs: UNTIL_MS,
          greedy: [always, ...users],
          wishes: wish,
          lateMs: late,
        });
        expect(sum(passed)).toBeGreaterThanOrEqual((of_.link * UNTIL_MS) / 1000 - 1);
      },
    );
    fc.assert(property, RUNS);
  });

  test('shares a class evenly between its users, whatever the size of their pieces', () => {
    const property = fc.property(
      rates,
      name,
      fc.array(pieceBytes, { minLength: 2, maxLength: 4 }),
      wishes,
      (...given) => {
        const [of_, shared, pieces, wish] = given;
        const users = pieces.map((bytes) => ({ name: shared, pieceBytes: bytes }));
        const others = wish.filter((one) => one.name !== shared);
        const passed = of(simulate({ rates: of_, untilMs: UNTIL_MS, greedy: users, wishes: others }), shared);
        const had = pieces.map((_, n) => sum(passed.filter(({ user }) => user === n)));
        expect(Math.max(...had) - Math.min(...had)).toBeLessThanOrEqual(
          2 * Math.max(...pieces) + 2 * burstOf(of_.link),
        );
      },
    );
    fc.assert(property, { numRuns: 40 });
  });

  test('does for the others as if who gave up had never asked', () => {
    const plan = fc.array(fc.record({ name, bytes: pieceBytes, givesUp: fc.boolean() }), {
      minLength: 1,
      maxLength: 20,
    });
    const property = fc.property(rates, plan, (of_, asked) => {
      const order = (all: typeof asked) => {
        const link = new Link(0);
        link.set(of_, 0);
        const passed: [number, number][] = [];
        let nowMs = 0;
        const leaving: (() => void)[] = [];
        const users = new Map(NAMES.map((one) => [one, [link.user(one), link.user(one)]]));
        all.forEach(({ name: of, bytes, givesUp }) => {
          const n = asked.findIndex((one) => one.bytes === bytes && one.name === of && one.givesUp === givesUp);
          const waiter = { bytes, pass: () => void passed.push([nowMs, n]) };
          const user = givesUp ? link.user(of) : users.get(of)![n % 2]!;
          link.ask(user, waiter);
          if (givesUp) leaving.push(() => link.leave(user, waiter));
        });
        for (const leave of leaving) leave();
        for (link.advance(0); Number.isFinite(link.nextMs); link.advance(nowMs)) nowMs += Math.max(link.nextMs, 0.01);
        return passed;
      };
      expect(order(asked)).toEqual(order(asked.filter(({ givesUp }) => !givesUp)));
    });
    fc.assert(property, RUNS);
  });
});

const burstOf = (rate: number) => (rate * BURST_MS) / 1000;

describe('lending', () => {
  const RATES: Rates = { link: 10 * MIB, guaranteed: { shipping: 6 * MIB, slow: MIB, fast: 3 * MIB } };

  test('what nobody uses is lent in proportion to the guarantees', () => {
    const users = [
      { name: 'slow', pieceBytes: 64 * KIB },
      { name: 'fast', pieceBytes: 64 * KIB },
    ];
    const passed = simulate({ rates: RATES, untilMs: 10_000, greedy: users });
    expect(sum(of(passed, 'slow')) / (100 * MIB)).toBeCloseTo(0.25, 1);
    expect(sum(of(passed, 'fast')) / (100 * MIB)).toBeCloseTo(0.75, 1);
  });

  test('a class that wants its own again has all of it in the second in which it asks', () => {
    const users = [
      { name: 'slow', pieceBytes: 4 * MIB },
      { name: 'shipping', pieceBytes: 256 * KIB, fromMs: 5_000 },
    ];
    const passed = simulate({ rates: RATES, untilMs: 10_000, greedy: users });
    expect(sum(between(of(passed, 'slow'), 0, 5_000))).toBeGreaterThan(50 * MIB); // all of the link was lent
    expect(sum(between(of(passed, 'shipping'), 5_000, 6_000))).toBeGreaterThanOrEqual(6 * MIB);
    expect(of(passed, 'shipping')[0]!.atMs).toBe(5_000); // its first chunk waits for nobody
  });

  test('a class that stops has what it leaves lent within the second', () => {
    const users = [
      { name: 'slow', pieceBytes: 256 * KIB },
      { name: 'fast', pieceBytes: 256 * KIB },
      { name: 'shipping', pieceBytes: 256 * KIB, untilMs: 5_000 },
    ];
    const passed = simulate({ rates: RATES, untilMs: 10_000, greedy: users });
    expect(sum(between(of(passed, 'slow'), 1_000, 5_000)) / (4 * MIB)).toBeCloseTo(1, 0);
    expect(sum(between(of(passed, 'slow'), 5_100, 6_100)) / MIB).toBeGreaterThan(2);
  });

  test('classes without a rate of their own share what nobody reserved, and starve where all is reserved', () => {
    const users = ['slow', 'standard', 'fast', 'shipping'].map((one) => ({ name: one, pieceBytes: 64 * KIB }));
    const partly = { link: 10 * MIB, guaranteed: { shipping: 5 * MIB, slow: MIB } };
    const passed = simulate({ rates: partly, untilMs: 10_000, greedy: users });
    const mibs = (all: Passed[], one: string) => sum(of(all, one)) / (10 * MIB);
    for (const [one, expected] of [
      ['shipping', 5],
      ['slow', 1],
      ['standard', 2],
      ['fast', 2],
    ] as const) {
      expect(Math.abs(mibs(passed, one) - expected)).toBeLessThan(0.15);
    }
    const starved = simulate({ rates: RATES, untilMs: 10_000, greedy: users });
    expect(mibs(starved, 'standard')).toBeLessThan(0.2);
    expect(mibs(starved, 'slow')).toBeGreaterThan(0.99);
  });

  test('a small chunk of one user waits for no large one of another, of its own class either', () => {
    const users = [{ name: 'shipping', pieceBytes: 8 * MIB }];
    const wishes_ = [1_000, 2_000, 3_000].map((ms) => ({ name: 'shipping', bytes: 64 * KIB, atMs: ms }));
    const passed = simulate({ rates: RATES, untilMs: 4_000, greedy: users, wishes: wishes_ });
    expect(passed.filter(({ bytes }) => bytes === 64 * KIB).map(({ atMs: at }) => at)).toEqual([1_000, 2_000, 3_000]);
  });

  test('a chunk larger than a burst passes at once and whole, and is paid for before the next', () => {
    const rates_ = { link: MIB, guaranteed: { shipping: MIB / 2 } };
    const passed = simulate({ rates: rates_, untilMs: 20_000, greedy: [{ name: 'shipping', pieceBytes: 8 * MIB }] });
    expect(passed.map(({ atMs: at }) => Math.round(at / 100) / 10)).toEqual([0, 7.9, 15.9]);
  });
});

describe('changing the rates', () => {
  test('a link that becomes slow holds nobody for what passed while it was fast', () => {
    const link = new Link(0);
    const user = link.user('shipping');
    const passed: number[] = [];
    let nowMs = 0;
    const ask = () => link.ask(user, { bytes: 10 * MIB, pass: () => void passed.push(nowMs) });
    link.set({ link: 100 * MIB, guaranteed: {} }, 0);
    for (let n = 0; n < 3; n++) ask();
    link.advance(0);
    expect(passed).toEqual([0, 0]);
    link.set({ link: MIB, guaranteed: {} }, 0);
    while (passed.length < 3) {
      nowMs += link.nextMs;
      link.advance(nowMs);
    }
    expect(nowMs).toBeLessThan(150);
  });

  test('without rates everybody passes, who waited too', () => {
    const link = new Link(0);
    const user = link.user('slow');
    let passed = 0;
    link.set({ link: KIB, guaranteed: {} }, 0);
    for (let n = 0; n < 5; n++) link.ask(user, { bytes: MIB, pass: () => void passed++ });
    link.advance(0);
    expect(passed).toBe(1);
    link.set(null, 1);
    expect(passed).toBe(5);
    expect(link.nextMs).toBe(Number.POSITIVE_INFINITY);
  });
});
