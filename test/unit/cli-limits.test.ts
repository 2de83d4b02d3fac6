import { describe, expect, test } from '@jest/globals';
import { requestOf } from '../../src/cli/limits.ts';
import { limitsText } from '../../src/cli/limits-text.ts';
import type { Limits } from '../../src/core/limits.ts';
import { UsageError } from '../../src/errors.ts';

const NOW = Date.parse('2026-11-22T15:00:00Z');
const MIB = 1024 * 1024;

describe('what is asked for', () => {
  test('is read with its units and its time', () => {
    expect(
      requestOf({ link: '1Gbit/s', shipping: '60%', class: ['slow=5MiB/s', 'fast=1MiB/s'], for: '2h' }, NOW),
    ).toEqual({
      change: { link: 125_000_000, shipping: 0.6, classes: { slow: 5 * MIB, fast: MIB } },
      forMs: 7_200_000,
      untilMs: null,
    });
    expect(requestOf({ shipping: '0%', until: '2026-11-23T06:00:00+01:00', node: 'db-1' }, NOW)).toEqual({
      change: { shipping: 0 },
      node: 'db-1',
      forMs: null,
      untilMs: Date.parse('2026-11-23T05:00:00Z'),
    });
    const { untilMs } = requestOf({ link: '1MiB/s', until: '06:00' }, NOW);
    expect(untilMs! - NOW).toBeGreaterThan(0);
    expect(untilMs! - NOW).toBeLessThanOrEqual(24 * 3_600_000);
  });

  test.each([
    [{}, /nothing is said to change/],
    [{ for: '2h' }, /nothing is said to change/],
    [{ link: '40' }, /--link: 40 is not a rate/],
    [{ link: '1B/s' }, /--link: 1B\/s is not a rate/],
    [{ shipping: '101%' }, /--shipping: 101% is not a share/],
    [{ shipping: '0.5' }, /--shipping/],
    [{ class: ['slo=1MiB/s'] }, /no class "slo"/],
    [{ class: ['slow'] }, /--class: slow has no rate/],
    [{ link: '1MiB/s', for: '2h', until: '06:00' }, /--for and --until/],
    [{ link: '1MiB/s', for: 'ever' }, /--for: ever is not a time/],
    [{ link: '1MiB/s', for: '0s' }, /--for/],
    [{ link: '1MiB/s', until: 'latest' }, /--until: latest is not a time/],
    [{ link: '1MiB/s', until: '25:00' }, /--until: 25:00 is not a time/],
    [{ link: '1MiB/s', until: '2026-11-22T14:59:00Z' }, /is over/],
  ])('%j is refused', (options, why) => {
    expect(() => requestOf(options, NOW)).toThrow(UsageError);
    expect(() => requestOf(options, NOW)).toThrow(why);
  });
});

describe('what is shown', () => {
  const limits: Limits = {
    link: 100 * MIB,
    shipping: 0.5,
    classes: { slow: 5 * MIB },
    schedule: [{ from: '22:00', to: '06:00', link: 60 * MIB }],
  };
  const inForce = { reservation: limits, refused: [] };
  const common = { node: 'db-1', zone: 'UTC', inForce };

  test('is the config, what was changed, and what counts and was sent on each daemon', () => {
    const change = { classes: { slow: 9 * MIB } };
    const override = { id: 'x', change, fromMs: NOW - 1, untilMs: NOW + 60_000, by: 'dba\u001b[2J', placedMs: 1 };
    const bandwidth = {
      link: 100 * MIB,
      classes: [
        { name: 'shipping', guaranteed: 50 * MIB, measured: 12 * MIB },
        { name: 'standard', guaranteed: null, measured: 3 * MIB },
      ],
      refused: [{ id: 'x', reason: 'too much' }],
    };
    const nodes = [
      { node: 'db-1', bandwidth },
      { node: 'db-2', bandwidth: null },
    ];
    const report = { ...common, limits, overrides: [override], nodes };
    expect(limitsText(report, { nowMs: NOW, width: 100, colour: false }).split('\n')).toEqual([
      'config: link 100 MiB/s, shipping 50%, slow 5.0 MiB/s',
      '        22:00 to 06:00: link 60 MiB/s',
      'changed by operators:',
      '        slow 9.0 MiB/s from now on, until 2026-11-22 15:01 (UTC) by dba [2J',
      'without effect, since it can not be honoured now:',
      '        db-1: too much',
      '',
      'DAEMON  CLASS     GUARANTEED           LATELY',
      'db-1    link      100 MiB/s            15 MiB/s',
      'db-1    shipping  50 MiB/s             12 MiB/s',
      'db-1    standard  -                    3.0 MiB/s',
      'db-2    -         tells nothing of it  -',
    ]);
  });

  test('is what would count, where no daemon is alive; and that nothing is limited, where nothing is', () => {
    const dead = { ...common, limits, overrides: [], nodes: [] };
    expect(limitsText(dead, { nowMs: NOW, width: 100, colour: false })).toContain(
      'no daemon of this cluster is alive\nfor one with this config: link 100 MiB/s, shipping 50%, slow 5.0 MiB/s',
    );
    const none = { ...dead, limits: null, inForce: { reservation: null, refused: [] } };
    expect(limitsText(none, { nowMs: NOW, width: 100, colour: false })).toContain('config: nothing is limited');
  });
});
