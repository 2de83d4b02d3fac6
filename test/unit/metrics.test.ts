import { expect, test } from '@jest/globals';
import { Metrics } from '../../src/metrics.ts';

const open = () => new Metrics({ version: '1.2.3', node: 'db-1' });
const linesOf = async (metrics: Metrics, name: string) =>
  (await metrics.text()).split('\n').filter((line) => line.startsWith(name));

test('each stream has its own numbers', async () => {
  const metrics = open();
  metrics.stream('orders').cursor({ term: 3, slot: 17 });
  metrics.stream('billing').cursor({ term: 1, slot: 0 });
  expect(await linesOf(metrics, 'shipmate_term')).toEqual([
    'shipmate_term{stream="orders"} 3',
    'shipmate_term{stream="billing"} 1',
  ]);
  expect(await linesOf(metrics, 'shipmate_cursor_slot')).toContain('shipmate_cursor_slot{stream="orders"} 17');
});

test('exactly one role and one result hold at a time', async () => {
  const metrics = open();
  const orders = metrics.stream('orders');
  orders.role('standby');
  orders.role('master');
  orders.readiness({ ready: false, result: 'gap' });
  const holding = async (name: string) => (await linesOf(metrics, name)).filter((line) => line.endsWith(' 1'));
  expect(await holding('shipmate_role')).toEqual(['shipmate_role{stream="orders",role="master"} 1']);
  expect(await holding('shipmate_locate_result')).toEqual(['shipmate_locate_result{stream="orders",result="gap"} 1']);
  expect(await linesOf(metrics, 'shipmate_ready')).toEqual(['shipmate_ready{stream="orders"} 0']);
});

test('what is not known is absent, not zero: an alert on lag must not see a healthy 0', async () => {
  const metrics = open();
  const orders = metrics.stream('orders');
  orders.lag({ bytes: 10, seconds: 2 });
  orders.lag({ bytes: null, seconds: null });
  expect(await linesOf(metrics, 'shipmate_lag')).toEqual([]);
  expect(await linesOf(metrics, 'shipmate_lease_remaining_seconds')).toEqual([]);
  metrics.coordination({ reachable: true, leaseRemainingMs: 1500 });
  expect(await linesOf(metrics, 'shipmate_lease_remaining_seconds')).toEqual(['shipmate_lease_remaining_seconds 1.5']);
  metrics.coordination({ reachable: false, leaseRemainingMs: null });
  expect(await linesOf(metrics, 'shipmate_lease_remaining_seconds')).toEqual([]);
  expect(await linesOf(metrics, 'shipmate_coordination_reachable')).toEqual(['shipmate_coordination_reachable 0']);
});

test('what was shipped adds up, and the time to durable is counted where the log tells it', async () => {
  const metrics = open();
  const orders = metrics.stream('orders');
  orders.shipped({ plainBytes: 100, storedBytes: 30, writeToDurableMs: 40 });
  orders.shipped({ plainBytes: 50, storedBytes: 20, writeToDurableMs: null });
  orders.shipped({ plainBytes: 1, storedBytes: 1, writeToDurableMs: -3 }); // the database's clock is ahead
  orders.upload('main', 'created');
  orders.upload('main', 'failed');
  const text = await metrics.text();
  expect(text).toContain('shipmate_chunks_total{stream="orders"} 3');
  expect(text).toContain('shipmate_plain_bytes_total{stream="orders"} 151');
  expect(text).toContain('shipmate_stored_bytes_total{stream="orders"} 51');
  expect(text).toContain('shipmate_write_to_durable_seconds_count{stream="orders"} 2');
  expect(text).toContain('shipmate_write_to_durable_seconds_sum{stream="orders"} 0.04');
  expect(text).toContain('shipmate_uploads_total{stream="orders",store="main",outcome="failed"} 1');
});

test('what happened to a stream is there to alert on', async () => {
  const metrics = open();
  const orders = metrics.stream('orders');
  orders.tookOver('resume');
  orders.deposed();
  orders.held(4096);
  orders.alarm('foreign-object', true);
  orders.alarm('gap', true);
  orders.alarm('gap', false);
  const text = await metrics.text();
  expect(text).toContain('shipmate_take_overs_total{stream="orders",result="resume"} 1');
  expect(text).toContain('shipmate_deposed_total{stream="orders"} 1');
  expect(text).toContain('shipmate_held_bytes{stream="orders"} 4096');
  expect(text).toContain('shipmate_alarm{stream="orders",alarm="foreign-object"} 1');
  expect(text).toContain('shipmate_alarm{stream="orders",alarm="gap"} 0');
});

test('what was sent adds up by class, and only the limits that count now are told', async () => {
  const metrics = open();
  metrics.bandwidth.sent({ name: 'slow', bytes: 100, waitedMs: 1500 });
  metrics.bandwidth.sent({ name: 'slow', bytes: 50, waitedMs: 0 });
  metrics.bandwidth.limits({ link: 1000, guaranteed: { shipping: 500, slow: 100 } });
  metrics.bandwidth.limits({ link: 900, guaranteed: { shipping: 450 } });
  metrics.bandwidth.refused(1);
  const text = await metrics.text();
  expect(text).toContain('shipmate_bandwidth_bytes_total{class="slow"} 150');
  expect(text).toContain('shipmate_bandwidth_waited_seconds_total{class="slow"} 1.5');
  expect(text).toContain('shipmate_bandwidth_refused 1');
  expect(await linesOf(metrics, 'shipmate_bandwidth_limit_bytes')).toEqual([
    'shipmate_bandwidth_limit_bytes{class="link"} 900',
    'shipmate_bandwidth_limit_bytes{class="shipping"} 450',
  ]);
  metrics.bandwidth.limits(null);
  expect(await linesOf(metrics, 'shipmate_bandwidth_limit_bytes')).toEqual([]);
});

test('the process and the build are told, and two daemons in one process do not mix', async () => {
  const [one, other] = [open(), open()];
  one.stream('orders').deposed();
  expect(await one.text()).toContain('shipmate_build_info{version="1.2.3",node="db-1"} 1');
  expect(await one.text()).toContain('process_resident_memory_bytes');
  expect(await linesOf(other, 'shipmate_deposed_total')).toEqual([]);
});
