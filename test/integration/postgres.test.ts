import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import { parseLsn } from '../../src/source/postgres/lsn.ts';
import { openServer } from '../../src/source/postgres/server.ts';
import { openSlot } from '../../src/source/postgres/slot.ts';
import { openPostgresSource } from '../../src/source/postgres.ts';
import type { LogSource } from '../../src/source/source.ts';
import { Shipping } from '../contract/source-shipping.ts';
import { type Postgres, startPostgres } from '../helpers/postgres.ts';
import { until } from '../helpers/wait.ts';
import { reign } from '../helpers/wal-shipping.ts';

const log = { debug() {}, info() {}, warn() {}, error() {} };
const SLOT = 'shipmate_orders';
const servers: Postgres[] = [];
const sources: LogSource[] = [];

function twinOf({ url, dataDir: dir }: Postgres): LogSource {
  const server = openServer({ url, dir, stream: 'orders' });
  const slot = openSlot({ server, name: SLOT, log });
  const source = openPostgresSource({ stream: 'orders', dir, server, slot, busyPollMs: 10, log });
  sources.push(source);
  return source;
}

const results = (answers: readonly { result: string; allowed: boolean }[]) =>
  answers.map(({ result, allowed }) => (allowed ? result : `not ${result}`));

/** What was shipped of a server's timeline is what its files hold, up to the head. */
async function expectShipped(shipping: Shipping, { dataDir }: Postgres, timeline: number): Promise<void> {
  const prefix = timeline.toString().padStart(8, '0');
  const shipped = [...shipping.contents()].filter(([name]) => name.startsWith(prefix));
  expect(shipped.length).toBeGreaterThan(0);
  for (const [name, bytes] of shipped) {
    const file = await readFile(join(dataDir, 'pg_wal', name)).catch(() => null);
    // The server removes what its slot does not hold.
    if (file) expect([name, file.subarray(0, bytes.length).equals(bytes)]).toEqual([name, true]);
  }
}

const heldFrom = async (server: Postgres) => {
  const [row] = await server.sql('SELECT restart_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name = $1', [
    SLOT,
  ]);
  return row ? parseLsn(String(row.lsn)) : null;
};

afterEach(async () => {
  for (const source of sources.splice(0)) await source.close();
  for (const server of servers.splice(0)) await server.stop();
});

test('a pair is shipped through a promotion, an old primary that comes back, pg_rewind and a failover to it', async () => {
  const a = await startPostgres();
  servers.push(a);
  await a.sql('CREATE TABLE t (n int, text text)');
  const write = (server: Postgres, rows: number) =>
    server.sql('INSERT INTO t SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, $1) AS n', [rows]);
  const b = await a.standby();
  servers.push(b);
  const [atA, atB] = [twinOf(a), twinOf(b)];
  const shipping = new Shipping();

  await write(a, 5_000);
  expect(await heldFrom(a)).toBeNull();
  expect(results(await reign(atA, shipping))).toEqual(['start']);
  await a.sql('SELECT pg_switch_wal()');
  await write(a, 10);
  await reign(atA, shipping);
  await expectShipped(shipping, a, 1);
  expect(await atA.end()).toEqual(shipping.position);
  expect(await heldFrom(a)).not.toBeNull();

  // The standby's twin goes on in the very place, and its server holds what is to come.
  await b.waitFor(a);
  const ready = await until('the standby has it all', async () => {
    const located = await atB.locate(shipping.head());
    return located.allowed && located;
  });
  expect(ready).toMatchObject({ result: 'resume', at: shipping.position });
  expect(await heldFrom(b)).toBeNull();
  await atB.acknowledge(ready.at!);
  expect(await heldFrom(b)).not.toBeNull();

  // Not shipped by the primary's twin any more: the standby's has it.
  await write(a, 5_000);
  await b.waitFor(a);
  await a.end('kill');
  await b.promote();
  await write(b, 1_000);
  expect(results(await reign(atB, shipping)).at(-1)).toBe('switch');
  await expectShipped(shipping, b, 1);
  await expectShipped(shipping, b, 2);

  // Isolated, the old primary is of a dead branch.
  await a.start();
  await write(a, 1_000);
  expect(results(await reign(atA, shipping))).toEqual(['not fork']);
  await a.end();
  await a.rewind(b);
  await a.start();
  await a.waitFor(b);
  await reign(atB, shipping);
  const rewound = await until('the rewound server has it all', async () => {
    const located = await atA.locate(shipping.head());
    return located.allowed && located;
  });
  expect(rewound).toMatchObject({ result: 'resume', at: shipping.position });
  await atA.acknowledge(rewound.at!);
  expect(await heldFrom(a)).not.toBeNull();

  await write(b, 1_000);
  await a.waitFor(b);
  await b.end('kill');
  await a.promote();
  await write(a, 100);
  expect(results(await reign(atA, shipping)).at(-1)).toBe('switch');
  await expectShipped(shipping, a, 2);
  await expectShipped(shipping, a, 3);
  expect([...shipping.contents().keys()].filter((name) => name.endsWith('.history'))).toEqual([
    '00000002.history',
    '00000003.history',
  ]);
}, 120_000);
