import { afterEach, beforeEach, expect, test } from '@jest/globals';
import type { Limits, Override } from '../../src/core/limits.ts';
import { Metrics } from '../../src/metrics.ts';
import { Governor } from '../../src/ship/governor.ts';
import { BandwidthLimits } from '../../src/ship/limits.ts';
import { type MemoryCoordination, MemoryHub } from '../fakes/memory-coordination.ts';
import { recordedLog } from '../helpers/recorded-log.ts';
import { until } from '../helpers/wait.ts';

const CONFIG: Limits = { link: 1000, shipping: 0.5, classes: { slow: 100 }, schedule: [] };
const override = (given: Partial<Override>): Override => ({
  id: 'one',
  change: {},
  fromMs: 0,
  untilMs: null,
  by: 'dba',
  placedMs: 0,
  ...given,
});

let hub: MemoryHub;
let daemon: MemoryCoordination;
let operator: MemoryCoordination;
let stop: AbortController;
let kept: Promise<void>;
/** The daemon's wall clock. */
let nowMs: number;

function start(limits: Limits | null): { limits: BandwidthLimits; metrics: Metrics } {
  const metrics = new Metrics({ version: '1', node: 'a', cluster: 'acme' });
  const governor = new Governor({ nowMs: () => performance.now() });
  const started = new BandwidthLimits({
    ...{ limits, node: 'a', zone: 'UTC', board: daemon.limits, governor },
    ...{ metrics: metrics.bandwidth, log: recordedLog(), nowMs: () => nowMs },
  });
  kept = started.keep(stop.signal);
  return { limits: started, metrics };
}

beforeEach(() => {
  hub = new MemoryHub();
  [daemon, operator] = [hub.client('a'), hub.client('cli')];
  stop = new AbortController();
  nowMs = Date.parse('2026-11-22T21:59:59Z');
});
afterEach(async () => {
  stop.abort(new Error('the test is over'));
  await kept;
});

test('what operators change is in force at once, for its time, and as long as etcd is away', async () => {
  const { limits, metrics } = start(CONFIG);
  const link = () => limits.state().link;
  expect(link()).toBe(1000);
  await operator.limits.add(override({ change: { link: 700 }, untilMs: nowMs + 60_000 }));
  await until('the override counts', () => link() === 700, { everyMs: 5 });
  expect(await metrics.text()).toContain('shipmate_bandwidth_limit_bytes{class="link"} 700');

  daemon.cutOff();
  await operator.limits.remove(['one']);
  expect(link()).toBe(700);
  nowMs += 60_000;
  await until('its time is over', () => link() === 1000);
});

test('an entry of the schedule begins with its minute', async () => {
  const { limits } = start({ ...CONFIG, schedule: [{ from: '22:00', to: '23:00', link: 300 }] });
  expect(limits.state().link).toBe(1000);
  nowMs += 1_000;
  await until('it is 22:00', () => limits.state().link === 300);
});

test('what can not be honoured has no effect, and the twins and Prometheus are told', async () => {
  const { limits, metrics } = start(CONFIG);
  await operator.limits.add(override({ change: { classes: { fast: 500 } } }));
  await until('the override is refused', () => limits.state().refused.length > 0, { everyMs: 5 });
  const [{ id, reason }] = limits.state().refused as [{ id: string; reason: string }];
  expect([id, reason]).toEqual(['one', expect.stringContaining('fast 500 B/s')]);
  expect(limits.state().classes.map(({ name, guaranteed }) => [name, guaranteed])).toEqual([
    ['shipping', 500],
    ['slow', 100],
  ]);
  expect(await metrics.text()).toContain('shipmate_bandwidth_refused 1');
});

test('without limits nothing is told to be limited, until an operator says what the link carries', async () => {
  const { limits } = start(null);
  expect(limits.state()).toEqual({ link: null, classes: [], refused: [] });
  await operator.limits.add(override({ change: { link: 200 } }));
  await until('the override counts', () => limits.state().link === 200, { everyMs: 5 });
  await operator.limits.remove(['one']);
  await until('nothing is limited', () => limits.state().link === null, { everyMs: 5 });
});
