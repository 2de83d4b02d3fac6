import { mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, jest, test } from '@jest/globals';
import { placeKey } from '../../src/core/keys.ts';
import { ChainReader, differences, readBinlogs } from '../helpers/archive.ts';
import { Cluster, STREAM } from '../helpers/cluster.ts';
import type { Daemon } from '../helpers/daemon.ts';
import { startLoad } from '../helpers/load.ts';
import { until } from '../helpers/wait.ts';

jest.setTimeout(180_000);

/** Two copies of which one must hold what is acknowledged; the second is due two delays later. */
const DELAY_SECONDS = 2;
let cluster: Cluster;
let dir: string;
let copies: Record<'first' | 'second', string>;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'shipmate-copies-'));
  copies = { first: join(dir, 'first'), second: join(dir, 'second') };
  for (const copy of Object.values(copies)) await mkdir(copy);
  cluster = await Cluster.start({ daemon: { copies, delay: `${DELAY_SECONDS}s`, ack: 2 } });
});
afterAll(async () => {
  await cluster?.stop();
  await rm(dir, { recursive: true, force: true });
});

/** Disk of purged binlogs that a daemon still holds, since it may not let go of them. */
async function heldBytes(daemon: Daemon): Promise<number> {
  const text = await (await fetch(`${daemon.url}/metrics`)).text();
  return Number(/^shipmate_held_bytes\S* (\d+)$/m.exec(text)?.[1]);
}

const storesTold = async () => (await cluster.told()).stores;

/** Every object of the primary's chain is in the copy, byte for byte; nothing else is. */
async function demandSame(root: string): Promise<void> {
  const chain = await cluster.chain.read();
  const copied = new ChainReader({ root });
  await until('the copy goes as far as the primary', async () => (await copied.read()).length === chain.length, {
    describe: () => cluster.tails(),
  });
  for (const { header } of chain) {
    const key = placeKey(STREAM, header);
    const [there, here] = await Promise.all([root, cluster.storePath].map((store) => readFile(join(store, key))));
    if (!there!.equals(here!)) throw new Error(`${key} differs`);
  }
  expect(await copied.orphans()).toEqual([]);
}

test('copies follow late, are away, and end as the primary is; what they lack is not let go of', async () => {
  const { master, standby } = await cluster.ready();
  const load = await startLoad(cluster.server, {});
  await cluster.ships();
  await until('both copies follow', async () => {
    const [, ...told] = await storesTold();
    return told.length === 2 && told.every(({ state, lagSeconds }) => state === 'ok' && lagSeconds !== null);
  });
  const status = await cluster.status(standby);
  expect(status.stores).toMatchObject([
    { name: 'main' },
    { name: 'first', delaySeconds: 0, state: 'ok', lagBytes: expect.any(Number) },
    { name: 'second', delaySeconds: 2 * DELAY_SECONDS, state: 'ok' },
  ]);

  for (const copy of Object.values(copies)) await rename(copy, `${copy}-away`);
  await cluster.ships();
  await until('both are known to be away, and to lag', async () => {
    const [, ...told] = await storesTold();
    return told.length === 2 && told.every(({ state, lagSeconds }) => state === 'failing' && lagSeconds! > 1);
  });
  await load.stop();
  await cluster.server.query('FLUSH BINARY LOGS');
  await cluster.settled();
  await until('the server has removed its older binlogs, once it does not need them itself', async () => {
    const [end] = await cluster.server.query('SHOW MASTER STATUS');
    await cluster.server.query(`PURGE BINARY LOGS TO '${end?.File}'`);
    return (await cluster.server.query('SHOW BINARY LOGS')).length === 1;
  });
  for (const daemon of [master, standby]) {
    await until(`${daemon.node} holds what no copy has`, async () => (await heldBytes(daemon)) > 0);
  }

  const since = standby.mark();
  await master.kill();
  await standby.becomesMaster({ since });
  await cluster.server.query("INSERT INTO shop.orders (customer, note) VALUES (1, 'after the kill')");
  await cluster.settled();
  expect(await heldBytes(standby)).toBeGreaterThan(0);

  for (const copy of Object.values(copies)) await rename(`${copy}-away`, copy);
  await until('it lets go', async () => (await heldBytes(standby)) === 0, { describe: () => cluster.tails() });
  await cluster.ready();
  for (const root of Object.values(copies)) await demandSame(root);

  const primary = await readBinlogs(await cluster.restore());
  const server = await readBinlogs(cluster.server.dataDir);
  expect(differences(server, new Map([...primary].filter(([name]) => server.has(name))))).toEqual([]);
  for (const name of Object.keys(copies)) {
    expect(differences(primary, await readBinlogs(await cluster.restore('--store', name)))).toEqual([]);
    await cluster.succeed(standby, 'verify', STREAM, '--deep', '--store', name);
  }
  await until('nothing is behind', async () => (await storesTold()).every(({ lagBytes }) => lagBytes === 0));
});
