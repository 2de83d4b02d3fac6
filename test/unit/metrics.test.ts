import { expect, test } from '@jest/globals';
import { Metrics } from '../../src/metrics.ts';

const open = () => new Metrics({ version: '1.2.3', node: 'db-1', cluster: 'acme' });
/** Without the cluster's name, which every line has. */
const textOf = async (metrics: Metrics) =>
  (await metrics.text()).replaceAll(/cluster="acme",|,?cluster="acme"/g, '').replaceAll(/(?<=^\w+)\{\}/gm, '');
const linesOf = async (metrics: Metrics, name: string) =>
  (await textOf(metrics)).split('\n').filter((line) => line.startsWith(name));

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
  orders.upload('main', { outcome: 'created', tookMs: 20 });
  orders.upload('main', { outcome: 'failed', tookMs: 1500 });
  const text = await textOf(metrics);
  expect(text).toContain('shipmate_chunks_total{stream="orders"} 3');
  expect(text).toContain('shipmate_plain_bytes_total{stream="orders"} 151');
  expect(text).toContain('shipmate_stored_bytes_total{stream="orders"} 51');
  expect(text).toContain('shipmate_write_to_durable_seconds_count{stream="orders"} 2');
  expect(text).toContain('shipmate_write_to_durable_seconds_sum{stream="orders"} 0.04');
  expect(text).toContain('shipmate_uploads_total{stream="orders",store="main",outcome="failed"} 1');
  expect(text).toContain('shipmate_upload_duration_seconds_bucket{le="1",stream="orders",store="main"} 1');
  expect(text).toContain('shipmate_upload_duration_seconds_sum{stream="orders",store="main"} 1.52');
});

test('what counts begins at zero: the first failure, take-over or alarm is an increase', async () => {
  const metrics = open();
  metrics.stream('orders').store('main');
  const text = await textOf(metrics);
  expect(text).toContain('shipmate_uploads_total{stream="orders",store="main",outcome="failed"} 0');
  expect(text).toContain('shipmate_take_overs_total{stream="orders",result="fork"} 0');
  expect(text).toContain('shipmate_alarm{stream="orders",alarm="archive-id"} 0');
  expect(text).toContain('shipmate_write_to_durable_seconds_count{stream="orders"} 0');
  expect(text).toContain('shipmate_bandwidth_bytes_total{class="fast"} 0');
});

test('two clusters with a stream of the same name are told apart', async () => {
  const metrics = open();
  metrics.stream('orders').cursor({ term: 3, slot: 17 });
  expect(await metrics.text()).toContain('shipmate_term{stream="orders",cluster="acme"} 3');
});

test('what the twins tell is of the twin whose log goes furthest; nobody is counted where nobody can be asked', async () => {
  const metrics = open();
  metrics.stream('orders');
  const twin = { role: 'standby', ready: true, reason: '', lagBytes: 0 };
  const stream = {
    ...{ name: 'orders', master: 'db-1', term: 1, slot: 1, cursor: null, stores: [] },
    ...{ lagBytes: 70, lagSeconds: 7, twins: ['db-1', 'db-2'].map((node) => ({ node, ...twin })) },
  };
  metrics.told({ streams: [stream, { ...stream, name: 'of another daemon' }] }, { twins: true });
  expect(await linesOf(metrics, 'shipmate_stream_lag')).toEqual([
    'shipmate_stream_lag_bytes{stream="orders"} 70',
    'shipmate_stream_lag_seconds{stream="orders"} 7',
  ]);
  expect(await linesOf(metrics, 'shipmate_twins')).toEqual(['shipmate_twins{stream="orders"} 2']);
  metrics.told({ streams: [stream] }, { twins: false });
  expect(await linesOf(metrics, 'shipmate_twins')).toEqual([]);
  metrics.told(null, { twins: true });
  expect(await linesOf(metrics, 'shipmate_stream_lag')).toEqual([]);
});

test('a stream that is gone leaves nothing behind, and may come again', async () => {
  const metrics = open();
  const [orders, billing] = [metrics.stream('orders'), metrics.stream('billing')];
  for (const stream of [orders, billing]) {
    stream.store('main');
    stream.role('master');
    stream.shipped({ plainBytes: 1, storedBytes: 1, writeToDurableMs: 1 });
    stream.upload('main', { outcome: 'created', tookMs: 1 });
    stream.copies([{ name: 'nas', state: 'ok', delaySeconds: 0, lagBytes: 0, lagSeconds: 0 }]);
    stream.retention({ bytes: 1, seconds: 1 });
  }
  const before = (await textOf(metrics)).split('\n').filter((line) => line.includes('stream="billing"'));
  await metrics.forget('orders');
  const after = await textOf(metrics);
  expect(after).not.toContain('orders');
  expect(after.split('\n').filter((line) => line.includes('stream="billing"'))).toEqual(before);
  metrics.stream('orders');
  expect(await linesOf(metrics, 'shipmate_chunks_total')).toContain('shipmate_chunks_total{stream="orders"} 0');
});

test('what the database keeps, and when certificates end, is shown where there is such a limit', async () => {
  const metrics = open();
  const orders = metrics.stream('orders');
  orders.retention({ bytes: null, seconds: 86_400 });
  metrics.certificates(new Map([['cert', 1_800_000_000_000]]));
  expect(await linesOf(metrics, 'shipmate_source_retention')).toEqual([
    'shipmate_source_retention_seconds{stream="orders"} 86400',
  ]);
  expect(await linesOf(metrics, 'shipmate_certificate')).toEqual([
    'shipmate_certificate_expiry_timestamp_seconds{certificate="cert"} 1800000000',
  ]);
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
  const text = await textOf(metrics);
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
  const text = await textOf(metrics);
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
  expect(await textOf(one)).toContain('shipmate_build_info{version="1.2.3",node="db-1"} 1');
  expect(await one.text()).toContain('process_resident_memory_bytes');
  expect(await linesOf(other, 'shipmate_deposed_total')).toEqual([]);
});
