import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { type FaultRule, switchFaults } from '../fakes/faulty-store.ts';
import { Cluster, TTL_MS } from '../helpers/cluster.ts';
import { type Daemon, type Exit, prepareDaemon } from '../helpers/daemon.ts';
import { startMariadb } from '../helpers/mariadb.ts';
import { until } from '../helpers/wait.ts';

jest.setTimeout(120_000);

/** What becomes of the store, while the database is written to and daemons and etcd are well. */
let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start({ faulty: true });
});
afterEach(() => faults());
afterAll(() => cluster?.stop());

/** The store of every daemon obeys these rules from now on; none: it is well. */
function faults(...rules: FaultRule[]): void {
  for (const { faultsFile } of cluster.daemons) switchFaults(faultsFile!, { seed: 7, rules });
}

describe('a store whose root is missing', () => {
  test('at the start is waited for, and never made', async () => {
    const away = `${cluster.storePath}-away`;
    await rename(cluster.storePath, away);
    for (const daemon of cluster.daemons) await daemon.start();
    const [first] = cluster.daemons;
    const { message } = await first!.logged(/store main/);
    expect(message).toContain(cluster.storePath);
    const twins = await until('the status tells why', async () => {
      const told = await cluster.told();
      return told.twins.length === 2 && told.twins.every(({ reason }) => reason.includes('store main')) && told.twins;
    });
    expect(twins.map(({ ready }) => ready)).toEqual([false, false]);
    await rename(away, cluster.storePath); // fails where something was made in its place
    await cluster.ready();
    await cluster.underLoad(() => cluster.ships());
  });

  test('for a while, as when a mount is lost, loses nothing', async () => {
    await cluster.ready();
    await cluster.underLoad(async () => {
      await cluster.ships();
      const away = `${cluster.storePath}-away`;
      await rename(cluster.storePath, away);
      await delay(TTL_MS + 1_000);
      await rename(away, cluster.storePath);
      await cluster.ships();
    });
  });
});

describe('a store that fails', () => {
  const scenarios: [string, FaultRule[]][] = [
    ['every write for a while (I/O errors)', [{ kind: 'error' }]],
    [
      'every other operation',
      [{ kind: 'error', probability: 0.5, operations: ['create', 'readStart', 'head', 'list'] }],
    ],
    ['because it is full', [{ kind: 'full' }]],
    ['by being slow', [{ kind: 'slow', slowMs: 400 }]],
    ['by creating objects and reporting that it failed', [{ kind: 'ambiguous', probability: 0.7 }]],
  ];

  test.each(scenarios)('%s loses nothing', async (_, rules) => {
    await cluster.ready();
    await cluster.underLoad(async () => {
      await cluster.ships();
      faults(...rules);
      await delay(3_000);
      faults();
      await cluster.ships();
    });
  });

  test('while the master is killed: the successor seals and opens through the failures', async () => {
    const { master, standby } = await cluster.ready();
    await cluster.underLoad(async () => {
      await cluster.ships();
      faults(
        { kind: 'ambiguous', probability: 0.4 },
        { kind: 'error', probability: 0.3 },
        { kind: 'error', probability: 0.1, operations: ['read', 'readStart', 'head', 'list'] },
        { kind: 'slow', probability: 0.5, slowMs: 200 },
      );
      await cluster.ships();
      const since = standby.mark();
      await master.kill();
      await standby.becomesMaster({ since });
      await cluster.ships();
      faults();
      await cluster.ready();
    });
  });
});

describe('an archive of somebody else', () => {
  const source = () => ({ dir: cluster.server.dataDir });

  async function refused(stranger: Daemon): Promise<Exit> {
    await stranger.start();
    try {
      await until('it ends', () => !stranger.running, { describe: () => stranger.tail() });
      return await stranger.exited;
    } finally {
      await stranger.kill(); // or it would be a twin in the tests that follow
    }
  }

  test('is refused: a second cluster on the same prefix', async () => {
    await cluster.ready();
    const stranger = await prepareDaemon({
      ...{ node: 'other-1', cluster: 'other', dir: join(cluster.dir, 'other-1'), storePath: cluster.storePath },
      ...{ endpoints: cluster.etcd.endpoints, source: source() },
    });
    const exit = await refused(stranger);
    expect(exit.code).toBe(1);
    expect(exit.stderr).toMatch(/^error: store main holds archive .*cluster acme.*\nhint: .*another prefix/);
  });

  test('is refused: a database of another kind', async () => {
    await cluster.ready();
    const stranger = await prepareDaemon({
      ...{ node: 'db-3', dir: join(cluster.dir, 'db-3'), storePath: cluster.storePath },
      ...{ endpoints: cluster.etcd.endpoints, source: { type: 'files', ...source() } },
    });
    const exit = await refused(stranger);
    expect(exit.code).toBe(1);
    expect(exit.stderr).toMatch(/^error: .*was made for mariadb, this source is files\nhint: .*\n$/);
  });

  test('is never taken over: another server’s binlogs under this stream’s name', async () => {
    const { master, standby } = await cluster.ready();
    const another = await startMariadb({ serverId: 7 });
    await another.query('CREATE DATABASE elsewhere');
    const stranger = await prepareDaemon({
      ...{ node: 'db-4', dir: join(cluster.dir, 'db-4'), storePath: cluster.storePath },
      ...{ endpoints: cluster.etcd.endpoints, source: { dir: another.dataDir, url: another.url } },
    });
    try {
      await stranger.start();
      await until('it is known', async () => (await cluster.told()).twins.some(({ node }) => node === 'db-4'));
      await Promise.all([master.kill(), standby.kill()]);
      await until('nobody leads', async () => (await cluster.status(stranger)).master === null);
      await delay(TTL_MS);
      const status = await cluster.status(stranger);
      expect(status.master).toBeNull();
      expect(status.twins).toMatchObject([{ node: 'db-4', ready: false }]);
      expect((await cluster.chain.reigns()).map(({ node }) => node)).not.toContain('db-4');
    } finally {
      await stranger.kill();
      await another.stop();
    }
    await cluster.ready();
    await cluster.underLoad(() => cluster.ships());
  });
});
