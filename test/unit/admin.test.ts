import { request } from 'node:http';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { type AdminServer, type AdminView, startAdmin } from '../../src/admin/server.ts';
import type { Log } from '../../src/core/log.ts';
import type { StatusReport } from '../../src/core/status.ts';

const report: StatusReport = {
  cluster: 'acme',
  streams: [
    {
      name: 'orders',
      master: 'db-1',
      term: 3,
      slot: 217,
      cursor: { id: '0-1-52', segment: 'binlog.000003', offset: 4711, time: '2026-11-22T13:00:00.000Z' },
      lagBytes: 2048,
      lagSeconds: 1.5,
      twins: [{ node: 'db-2', role: 'standby', ready: false, reason: 'gap: <b>purged</b>', lagBytes: 2048 }],
      stores: [{ name: 'main', lagBytes: 2048, lagSeconds: 1.5 }],
    },
  ],
};

const silent: Log = { debug() {}, info() {}, warn() {}, error() {} };
let view: { -readonly [K in keyof AdminView]: AdminView[K] };
let server: AdminServer;

beforeEach(async () => {
  view = {
    metrics: async () => 'shipmate_term{stream="orders"} 3\n',
    stuck: () => [],
    ready: () => ({ ok: true, reasons: [] }),
    status: async () => report,
    durable: async (stream) => (stream === 'orders' ? { durable: false, reason: 'not yet' } : null),
  };
  server = await startAdmin({ host: '127.0.0.1', port: 0, view, log: silent });
});
afterEach(() => server.close());

const get = (path: string, init?: RequestInit) => fetch(`${server.url}${path}`, init);

test('/healthz says that the process is alive, even when nothing else is well', async () => {
  view.ready = () => ({ ok: false, reasons: ['etcd is gone'] });
  expect((await get('/healthz')).status).toBe(200);
});

test('/healthz is not well once a stream is stuck for good, and names it', async () => {
  view.stuck = () => ['orders'];
  const response = await get('/healthz');
  expect(response.status).toBe(503);
  expect(await response.text()).toBe('stuck: orders\n');
});

test('/readyz is 200 only when ready, and else says why, without secrets', async () => {
  expect((await get('/readyz')).status).toBe(200);
  view.ready = () => ({ ok: false, reasons: ['orders: no answer from mysql://me:secret@h'] });
  const response = await get('/readyz');
  expect(response.status).toBe(503);
  expect(await response.json()).toEqual({ ok: false, reasons: ['orders: no answer from mysql://me:***@h'] });
});

test('/metrics is what Prometheus reads', async () => {
  const response = await get('/metrics');
  expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
  expect(await response.text()).toBe('shipmate_term{stream="orders"} 3\n');
});

test('/api/v1/status is the report of "status --json"', async () => {
  const response = await get('/api/v1/status?pretty');
  expect(response.headers.get('content-type')).toBe('application/json');
  expect(await response.json()).toEqual(report);
});

test('/api/v1/streams/NAME/durable tells of one segment, of a stream that is here', async () => {
  const asked = await get('/api/v1/streams/orders/durable?segment=000000010000000000000001&inode=7');
  expect(await asked.json()).toEqual({ durable: false, reason: 'not yet' });
  expect((await get('/api/v1/streams/billing/durable?segment=000000010000000000000001&inode=7')).status).toBe(404);
  for (const query of ['', '?inode=7', '?segment=000000010000000000000001', '?segment=x&inode=x']) {
    expect((await get(`/api/v1/streams/orders/durable${query}`)).status).toBe(400);
  }
});

test('when etcd does not answer, the status is an error, and the server lives on', async () => {
  view.status = async () => {
    throw new Error('no answer from etcd');
  };
  const response = await get('/api/v1/status');
  expect(response.status).toBe(503);
  expect(await response.json()).toEqual({ error: 'no answer from etcd' });
  expect((await get('/healthz')).status).toBe(200);
});

describe('the page', () => {
  test('shows the streams, refreshes itself and needs nothing from elsewhere', async () => {
    const response = await get('/');
    const page = await response.text();
    expect(response.headers.get('content-type')).toBe('text/html; charset=utf-8');
    expect(page).toContain('orders');
    expect(page).toContain('master db-1');
    expect(page).toContain('binlog.000003:4711');
    expect(page).toContain('http-equiv="refresh"');
    expect(page).not.toMatch(/src=|https?:\/\//);
  });

  test('shows what others wrote as text, never as markup', async () => {
    expect(await (await get('/')).text()).toContain('gap: &lt;b&gt;purged&lt;/b&gt;');
  });
});

test.each(['POST', 'PUT', 'DELETE'])('%s is refused: this side only reads', async (method) => {
  const response = await get('/api/v1/status', { method });
  expect(response.status).toBe(405);
  expect(response.headers.get('allow')).toBe('GET, HEAD');
});

test('HEAD gives the headers alone', async () => {
  const response = await get('/api/v1/status', { method: 'HEAD' });
  expect(response.status).toBe(200);
  expect(Number(response.headers.get('content-length'))).toBeGreaterThan(10);
  expect(await response.text()).toBe('');
});

test.each(['/admin', '/metrics/', '/../etc/passwd'])('nothing is at %s', async (path) => {
  const { port } = new URL(server.url);
  const status = await new Promise((resolve, reject) => {
    request({ host: '127.0.0.1', port, path }, (response) => resolve(response.resume().statusCode))
      .on('error', reject)
      .end();
  });
  expect(status).toBe(404);
});

test('a port that is taken is a clear error', async () => {
  const port = Number(new URL(server.url).port);
  await expect(startAdmin({ host: '127.0.0.1', port, view, log: silent })).rejects.toMatchObject({
    code: 'ADMIN_LISTEN',
    message: expect.stringContaining(`can't listen on 127.0.0.1:${port} (admin.listen)`),
    hint: expect.stringContaining('another program'),
  });
});

test('closing does not wait for idle readers', async () => {
  const response = await get('/healthz', { headers: { connection: 'keep-alive' } });
  await response.text();
  await server.close();
  await expect(get('/healthz')).rejects.toThrow();
});
