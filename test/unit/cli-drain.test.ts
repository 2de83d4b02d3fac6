import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer, type Server as HttpServer } from 'node:http';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { endpointOf } from '../../src/cli/drain.ts';
import { shipmate } from '../helpers/daemon.ts';
import { freePort } from '../helpers/ports.ts';

test.each([
  ['mariadb://shipmate:pw@localhost/?socket=/run/mysqld/mysqld.sock', { path: '/run/mysqld/mysqld.sock' }],
  ['mariadb://shipmate@127.0.0.1', { host: '127.0.0.1', port: 3306 }],
  ['postgresql://shipmate@/postgres?host=/run/postgresql', { path: '/run/postgresql/.s.PGSQL.5432' }],
  ['postgresql://shipmate@/postgres?host=/run/postgresql&port=5433', { path: '/run/postgresql/.s.PGSQL.5433' }],
  ['postgresql://shipmate@db-1:5433/postgres', { host: 'db-1', port: 5433 }],
  ['postgresql://shipmate@[::1]/postgres', { host: '::1', port: 5432 }],
])('the server of %s listens at %j', (url, endpoint) => {
  expect(endpointOf(url)).toEqual(endpoint);
});

let dir: string;
let database: Server;
let daemon: HttpServer;
let config: string;
/** What the daemon tells of the streams that it leads, one answer a question; the last one stays. */
let lags: (number | 'no status')[];

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'shipmate-drain-'));
  const socket = join(dir, 'socket');
  database = createServer((connection) => connection.end());
  await new Promise<void>((done) => database.listen(socket, done));
  daemon = createHttpServer((_, response) => {
    const lagBytes = lags.length > 1 ? lags.shift()! : lags[0]!;
    if (lagBytes === 'no status') return response.writeHead(503).end('{"error":"etcd is away"}');
    const twins = [
      { node: 'db-1', lagBytes },
      { node: 'db-2', lagBytes: 7 },
    ];
    return response.end(JSON.stringify({ streams: [{ name: 'orders', master: 'db-1', twins }] }));
  });
  const port = await freePort();
  await new Promise<void>((done) => daemon.listen(port, '127.0.0.1', done));
  config = join(dir, 'shipmate.yaml');
  writeFileSync(
    config,
    `node: db-1
cluster: acme
coordination: solo
stores: { main: { type: file, path: ${dir} } }
streams: { orders: { source: { type: mariadb, dir: ${dir}, url: "mariadb://x@localhost/?socket=${socket}" }, store: main } }
admin: { listen: "0.0.0.0:${port}" }
`,
  );
});
afterEach(() => {
  database.close();
  daemon.close();
  rmSync(dir, { recursive: true });
});

test('waits for the database to stop, then for what this daemon leads to be shipped, through answers that fail', async () => {
  lags = [20, 'no status', 10, 0];
  const draining = shipmate(config, 'drain');
  await new Promise((connected) => database.once('connection', connected));
  expect(lags).toHaveLength(4); // nothing is asked while the database runs
  database.close();
  expect(await draining).toMatchObject({ code: 0, stderr: '' });
  expect(lags).toEqual([0]);
});

test('says that a database still runs when the time is over', async () => {
  lags = [0];
  const { code, stderr } = await shipmate(config, 'drain', '--within', '0');
  expect(code).toBe(1);
  expect(stderr).toMatch(/^error: the database of stream orders still runs\nhint: /);
});

test('says what is not shipped when the time is over', async () => {
  lags = [20];
  database.close();
  const { code, stderr } = await shipmate(config, 'drain', '--within', '0');
  expect(code).toBe(1);
  expect(stderr).toMatch(/^error: 20 bytes of stream orders are not shipped\nhint: /);
});
