import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { type Candidate, copyDelayMs, copyLag, rankCopies } from '../../src/core/copies.ts';

const facts = fc.record({
  holds: fc.boolean(),
  freeBytes: fc.option(fc.nat()),
  fits: fc.boolean(),
});
const candidates = fc
  .uniqueArray(fc.record({ name: fc.string({ minLength: 1, maxLength: 3 }), facts: fc.option(facts) }), {
    selector: ({ name }) => name,
    minLength: 1,
    maxLength: 6,
  })
  .map((all) => all.map((one): Candidate => ({ ...one, rank: null })));
const choices = candidates.chain((all) =>
  fc.record({
    all: fc.constant(all),
    order: fc.shuffledSubarray(all.map(({ name }) => name)),
    count: fc.integer({ min: 1, max: all.length }),
  }),
);
const empty = (freeBytes: number | null, fits = true) => ({ holds: false, freeBytes, fits });

describe('which stores are copied to', () => {
  test('the emptiest first that the archive fits in; those that hold it before all; ties by name', () => {
    const all: Candidate[] = [
      { name: 'small', facts: empty(10, false), rank: null },
      { name: 'b', facts: empty(500), rank: null },
      { name: 'a', facts: empty(500), rank: null },
      { name: 'boundless', facts: empty(null), rank: null },
      { name: 'away', facts: null, rank: null },
      { name: 'begun', facts: { holds: true, freeBytes: 1, fits: true }, rank: null },
    ];
    expect(rankCopies(all, { order: [], count: 6 })).toEqual(['begun', 'boundless', 'a', 'b', 'small', 'away']);
    expect(rankCopies(all, { order: ['away', 'b'], count: 3 })).toEqual(['away', 'b', 'begun']);
  });

  test('any stores: exactly `count` of them, the configured order first, the same however they are listed', () => {
    fc.assert(
      fc.property(choices, fc.infiniteStream(fc.nat()), ({ all, order, count }, dice) => {
        const ranked = rankCopies(all, { order, count });
        expect(new Set(ranked).size).toBe(count);
        expect(ranked.slice(0, order.length)).toEqual(order.slice(0, count));
        const shuffled = [...all].sort(() => ((dice.next().value ?? 0) % 3) - 1);
        expect(rankCopies(shuffled, { order, count })).toEqual(ranked);
      }),
    );
  });

  test('any stores: what is copied to keeps its place, whatever the others have to offer when they come back', () => {
    fc.assert(
      fc.property(choices, candidates, ({ all, order, count }, later) => {
        const answered = all.filter((one) => one.facts !== null);
        const before = rankCopies(answered, { order, count });
        const ranked = answered.map((one) => ({ ...one, rank: before.indexOf(one.name) + 1 || null }));
        const back = later
          .filter(({ name }) => !answered.some((one) => one.name === name))
          .filter(({ name }) => !order.includes(name));
        expect(rankCopies([...ranked, ...back], { order, count }).slice(0, before.length)).toEqual(before);
      }),
    );
  });
});

test('the copy of rank k is k delays late, but for those that an acknowledgement waits for', () => {
  const late = (ack: number) => [1, 2, 3].map((rank) => copyDelayMs(rank, { delayMs: 60, ack }));
  expect([late(1), late(2), late(3)]).toEqual([
    [60, 120, 180],
    [0, 120, 180],
    [0, 0, 180],
  ]);
});

describe('how far a copy is behind', () => {
  const lag = { missingBytes: 1000, nextMs: 0, newestMs: 100, delayMs: 0, nowMs: 100 };

  test('what is not due yet is no lag', () => {
    expect(copyLag({ ...lag, delayMs: 101 })).toEqual({ bytes: 0, seconds: 0 });
  });

  test('without a delay all that is missing is, and it is as old as the first of it', () => {
    expect(copyLag({ ...lag, nowMs: 5_000 })).toEqual({ bytes: 1000, seconds: 5 });
  });

  test('of a delayed copy, what was written before the delay began', () => {
    expect(copyLag({ ...lag, nowMs: 1_050, delayMs: 1_000 })).toEqual({ bytes: 500, seconds: 0.05 });
    expect(copyLag({ ...lag, nowMs: 9_000, delayMs: 1_000 })).toEqual({ bytes: 1000, seconds: 8 });
    expect(copyLag({ ...lag, missingBytes: null })).toMatchObject({ bytes: null });
  });
});
