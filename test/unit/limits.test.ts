import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  excess,
  inForce,
  type Limits,
  momentText,
  nextTimeOfDay,
  type Override,
  place,
  ratesOf,
  type Situation,
} from '../../src/core/limits.ts';

const BERLIN = 'Europe/Berlin';
const HOUR_MS = 3_600_000;
const at = (text: string) => Date.parse(text);

const LIMITS: Limits = {
  link: 1000,
  shipping: 0.5,
  classes: { slow: 100 },
  schedule: [
    { from: '22:00', to: '06:00', link: 600, classes: { fast: 200 } },
    { from: '12:00', to: '13:00', shipping: 0.2 },
  ],
};
const situation = (overrides: readonly Override[] = [], limits: Limits | null = LIMITS): Situation => ({
  limits,
  overrides,
  node: 'db-1',
  zone: BERLIN,
});
const override = (given: Partial<Override>): Override => ({
  id: 'one',
  change: {},
  fromMs: 0,
  untilMs: null,
  by: 'dba@host',
  placedMs: 0,
  ...given,
});
const linkAt = (text: string, limits = LIMITS) => inForce(situation([], limits), at(text)).reservation?.link;

describe('the schedule', () => {
  test('what an entry does not name stays as it is, class by class', () => {
    expect(inForce(situation(), at('2026-11-22T15:00+01:00')).reservation).toEqual({
      link: 1000,
      shipping: 0.5,
      classes: { slow: 100 },
    });
    expect(inForce(situation(), at('2026-11-22T23:00+01:00')).reservation).toEqual({
      link: 600,
      shipping: 0.5,
      classes: { slow: 100, fast: 200 },
    });
    expect(inForce(situation(), at('2026-11-22T12:30+01:00')).reservation?.shipping).toBe(0.2);
  });

  test('goes over midnight, from its first minute up to its last', () => {
    const links = ['21:59:59', '22:00:00', '23:59:59'].map((time) => linkAt(`2026-11-22T${time}+01:00`));
    expect(links).toEqual([1000, 600, 600]);
    const next = ['00:00:00', '05:59:59', '06:00:00'].map((time) => linkAt(`2026-11-23T${time}+01:00`));
    expect(next).toEqual([600, 600, 1000]);
  });

  test('goes by the clock on the wall, in summer as in winter', () => {
    expect(linkAt('2026-07-01T19:59:00Z')).toBe(1000);
    expect(linkAt('2026-07-01T20:00:00Z')).toBe(600);
    expect(linkAt('2026-12-01T20:59:00Z')).toBe(1000);
    expect(linkAt('2026-12-01T21:00:00Z')).toBe(600);
  });

  const night: Limits = { ...LIMITS, schedule: [{ from: '02:30', to: '03:30', link: 1 }] };

  test('begins with the clock being set forward over its beginning', () => {
    // 29 March 2026: after 01:59 comes 03:00.
    expect(linkAt('2026-03-29T00:59:59Z', night)).toBe(1000); // 01:59
    expect(linkAt('2026-03-29T01:00:00Z', night)).toBe(1); // 03:00
    expect(linkAt('2026-03-29T01:30:00Z', night)).toBe(1000); // 03:30
  });

  test('comes twice when the clock is set back into it', () => {
    // 25 October 2026: after 02:59 comes 02:00 again.
    const links = ['00:30', '00:59', '01:00', '01:29', '01:30', '02:29', '02:30'].map((time) =>
      linkAt(`2026-10-25T${time}:00Z`, night),
    );
    expect(links).toEqual([1, 1, 1000, 1000, 1, 1, 1000]);
  });

  test('the first entry that fits counts', () => {
    const limits = { ...LIMITS, schedule: [{ from: '01:00', to: '02:00', link: 7 }, ...LIMITS.schedule] };
    expect(linkAt('2026-11-22T01:30+01:00', limits)).toBe(7);
    expect(linkAt('2026-11-22T02:30+01:00', limits)).toBe(600);
  });
});

describe('overrides', () => {
  const noon = at('2026-11-22T15:00+01:00');

  test('stand on top of the schedule for their time, the later ones on top of the earlier', () => {
    const overrides = [
      override({ id: 'two', change: { link: 400 }, fromMs: noon, untilMs: noon + HOUR_MS, placedMs: 2 }),
      override({ id: 'one', change: { link: 800, classes: { slow: 50 } }, fromMs: noon, placedMs: 1 }),
    ];
    const stand = (ms: number) => inForce(situation(overrides), ms).reservation;
    expect(stand(noon - 1)).toMatchObject({ link: 1000, classes: { slow: 100 } });
    expect(stand(noon)).toMatchObject({ link: 400, classes: { slow: 50 } });
    expect(stand(noon + HOUR_MS)).toMatchObject({ link: 800, classes: { slow: 50 } });
  });

  test('of another node do not count', () => {
    const overrides = [override({ node: 'db-2', change: { link: 1 } })];
    expect(inForce(situation(overrides), noon).reservation?.link).toBe(1000);
    expect(inForce({ ...situation(overrides), node: 'db-2' }, noon).refused).toHaveLength(1);
  });

  test('that can not be honoured have no effect, and say why; the others have theirs', () => {
    const overrides = [
      override({ id: 'greedy', change: { classes: { fast: 450 } } }),
      override({ id: 'modest', change: { classes: { fast: 350 } }, placedMs: 1 }),
    ];
    const { reservation, refused } = inForce(situation(overrides), noon);
    expect(reservation?.classes).toEqual({ slow: 100, fast: 350 });
    expect(refused).toEqual([{ id: 'greedy', reason: expect.stringContaining('more than the link') }]);
    // As soon as it fits it counts: at lunch time shipping has less.
    expect(inForce(situation(overrides.slice(0, 1)), at('2026-11-23T12:00+01:00')).refused).toEqual([]);
  });

  test('make limits where the config has none, if they say what the link carries', () => {
    const of = (change: Override['change']) => inForce(situation([override({ change })], null), noon);
    expect(of({ link: 200 }).reservation).toEqual({ link: 200, shipping: 0.5, classes: {} });
    expect(of({ classes: { slow: 1 } })).toEqual({
      reservation: null,
      refused: [{ id: 'one', reason: expect.stringContaining('the link is not known') }],
    });
  });

  test('whatever is set, no more is ever guaranteed than the link carries', () => {
    const change = fc.record(
      {
        link: fc.integer({ min: 1, max: 2000 }),
        shipping: fc.double({ min: 0, max: 1, noNaN: true }),
        classes: fc.record({ slow: fc.nat(1000), standard: fc.nat(1000), fast: fc.nat(1000) }, { requiredKeys: [] }),
      },
      { requiredKeys: [] },
    );
    const bound = fc.integer({ min: noon, max: noon + 48 * HOUR_MS });
    const overrides = fc.array(fc.record({ change, fromMs: bound, untilMs: fc.option(bound), placedMs: fc.nat(9) }));
    const property = fc.property(overrides, bound, fc.boolean(), (all, ms, configured) => {
      const { reservation } = inForce(situation(all.map(override), configured ? LIMITS : null), ms);
      expect(reservation && excess(reservation)).toBeNull();
    });
    fc.assert(property, { numRuns: 300 });
  });
});

describe('a request', () => {
  const afternoon = at('2026-11-22T15:00+01:00');
  const ask = (change: Override['change'], time: { forMs?: number; untilMs?: number } = {}, all: Override[] = []) =>
    place(situation(all), { change, forMs: null, untilMs: null, ...time }, afternoon);

  test('that fits for all of its time stands at once', () => {
    expect(ask({ classes: { slow: 400 } }, { forMs: HOUR_MS })).toEqual({ fits: true, untilMs: afternoon + HOUR_MS });
    expect(ask({ classes: { slow: 100 } })).toEqual({ fits: true, untilMs: null });
  });

  test('that the schedule allows later is told from when', () => {
    expect(ask({ classes: { slow: 700 } }, { forMs: HOUR_MS })).toEqual({
      fits: false,
      reason: expect.stringContaining('shipping 500 B/s, slow 700 B/s'),
      atMs: afternoon,
      fromMs: at('2026-11-23T12:00+01:00'), // shipping has a fifth then, for an hour
    });
    expect(ask({ classes: { slow: 700 } }, { forMs: HOUR_MS + 1 })).toMatchObject({ fits: false, fromMs: null });
  });

  test('that fits now but not for all of its time is told when it would not, and from when it could', () => {
    expect(ask({ classes: { slow: 400 } }, { forMs: 8 * HOUR_MS })).toMatchObject({
      fits: false,
      atMs: at('2026-11-22T22:00+01:00'),
      fromMs: at('2026-11-23T06:00+01:00'),
    });
    expect(ask({ classes: { slow: 400 } })).toMatchObject({ fits: false, fromMs: null });
  });

  test('that another override stands in the way of can be honoured when that ends', () => {
    const other = override({ change: { classes: { fast: 350 } }, untilMs: afternoon + 90_000 });
    expect(ask({ classes: { slow: 200 } }, { forMs: HOUR_MS }, [other])).toMatchObject({
      fits: false,
      fromMs: afternoon + 120_000, // whole minutes
    });
    const untilThen = ask({ classes: { slow: 200 } }, { untilMs: afternoon + 100_000 }, [other]);
    expect(untilThen).toMatchObject({ fits: false, fromMs: null });
  });

  test('what is told is true: from then on it is honoured to its end', () => {
    const property = fc.property(
      fc.record({ slow: fc.nat(900), fast: fc.nat(900) }, { requiredKeys: [] }),
      fc.integer({ min: 1, max: 30 * 60 }),
      fc.integer({ min: 1, max: 12 * 60 }),
      (classes, minutes, otherMinutes) => {
        const other = override({ change: { link: 800 }, untilMs: afternoon + otherMinutes * 60_000 });
        const forMs = minutes * 60_000;
        const placed = ask({ classes }, { forMs }, [other]);
        const fromMs = placed.fits ? afternoon : placed.fromMs;
        if (fromMs === null) return;
        const mine = override({ id: 'mine', change: { classes }, fromMs, untilMs: fromMs + forMs, placedMs: 1 });
        for (let ms = fromMs; ms < fromMs + forMs; ms += 60_000) {
          expect(inForce(situation([other, mine]), ms).refused).toEqual([]);
        }
      },
    );
    fc.assert(property, { numRuns: 40 });
  });
});

describe('times', () => {
  test('of day are the next ones on the wall; what summer time leaves out comes a day later', () => {
    expect(nextTimeOfDay('06:00', at('2026-11-22T15:00+01:00'), BERLIN)).toBe(at('2026-11-23T06:00+01:00'));
    expect(nextTimeOfDay('15:00', at('2026-11-22T15:00+01:00'), BERLIN)).toBe(at('2026-11-23T15:00+01:00'));
    expect(nextTimeOfDay('02:30', at('2026-03-28T12:00+01:00'), BERLIN)).toBe(at('2026-03-30T02:30+02:00'));
  });

  test('are told as the host has them', () => {
    expect(momentText(at('2026-11-22T21:00Z'), BERLIN)).toBe('2026-11-22 22:00 (Europe/Berlin)');
  });
});

test('log shipping has its share of the link, the classes their rates', () => {
  expect(ratesOf({ link: 1001, shipping: 0.5, classes: { slow: 7 } })).toEqual({
    link: 1001,
    guaranteed: { shipping: 500, slow: 7 },
  });
});

test('a host whose zone has no name goes by its own clock', () => {
  const night = { ...situation(), zone: undefined };
  const hour = new Date(at('2026-11-22T15:00Z')).getHours();
  expect(inForce(night, at('2026-11-22T15:00Z')).reservation?.link).toBe(hour >= 22 || hour < 6 ? 600 : 1000);
  expect(momentText(0, undefined)).toMatch(/^19(69|70)-\d\d-\d\d \d\d:\d\d \(local time\)$/);
});
