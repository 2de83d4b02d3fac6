import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, jest, test } from '@jest/globals';
import { ChainReader, differences, readBinlogs } from '../helpers/archive.ts';
import { Cluster, STREAM } from '../helpers/cluster.ts';
import { type Daemon, shipmate } from '../helpers/daemon.ts';
import { startLoad } from '../helpers/load.ts';
import { until } from '../helpers/wait.ts';

jest.setTimeout(180_000);

/** The primary store is lost altogether while the database is written to: its copy, a second behind, is promoted. */
let cluster: Cluster;
let nas: string;
let promoted: ChainReader;

beforeAll(async () => {
  nas = await mkdtemp(join(tmpdir(), 'shipmate-nas-'));
  promoted = new ChainReader({ root: nas });
  cluster = await Cluster.start({ daemon: { copies: { nas }, delay: '1s' } });
});
afterAll(async () => {
  await cluster?.stop();
  await rm(nas, { recursive: true, force: true });
});

/** Until nas holds all that the server has written. */
async function settled(): Promise<void> {
  await until(
    'the promoted store reaches the end of the binlog',
    async () => {
      const [end] = await cluster.server.query('SHOW MASTER STATUS');
      const reached = await promoted.end();
      return reached?.segment === end?.File && reached?.offset === Number(end?.Position);
    },
    { describe: () => cluster.tails() },
  );
}

async function demandWholeLog(): Promise<void> {
  await settled();
  const to = join(cluster.dir, `from-nas-${performance.now()}`);
  await mkdir(to);
  await cluster.succeed(cluster.daemons[0]!, 'restore', STREAM, '--to', to, '--store', 'nas');
  expect(differences(await readBinlogs(cluster.server.dataDir), await readBinlogs(to))).toEqual([]);
}

const refused = async (daemon: Daemon, ...args: string[]) => {
  const { code, stderr } = await shipmate(daemon.configFile, ...args);
  return { code, stderr };
};

test('both daemons go on with the promoted copy, nothing is lost or forked, and the old primary stays left', async () => {
  const { master, standby } = await cluster.ready();
  const load = await startLoad(cluster.server, {});
  const away = `${cluster.storePath}-away`;
  try {
    await cluster.ships();
    await until('the copy has begun', async () => (await promoted.read()).length > 3);
    await rename(cluster.storePath, away);
    const marks = [master.mark(), standby.mark()];

    // What an operator types first goes wrong, and changes nothing.
    expect(await refused(standby, 'promote', STREAM)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('--yes'),
    });
    expect(await refused(standby, 'promote', STREAM, '--to', 'nass', '--yes')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('nas'),
    });

    const { stdout, stderr } = await cluster.succeed(standby, 'promote', STREAM, '--yes', '--json');
    const told = JSON.parse(stdout);
    expect(told).toMatchObject({ stream: STREAM, from: 'main', to: 'nas', generation: 1, changed: true });
    expect(told.here.result).toBe('resume');
    expect([...told.followed].sort()).toEqual(['db-1', 'db-2']);
    expect(stderr).toContain('can go on from there');
    expect(stderr).toMatch(/lacks the last|lacks nothing/);
    await Promise.race([master.becomesMaster({ since: marks[0]! }), standby.becomesMaster({ since: marks[1]! })]);
    const again = await cluster.succeed(master, 'promote', STREAM, '--yes', '--json');
    expect(JSON.parse(again.stdout)).toMatchObject({ to: 'nas', generation: 1, changed: false });
  } finally {
    await load.stop();
  }
  await demandWholeLog();

  const status = await cluster.status(master);
  expect(status.stores.map(({ name }) => name)).toEqual(['nas']);
  const leads = cluster.daemon(status.master!);
  const next = cluster.other(leads);
  const since = next.mark();
  await until('the other could take over', async () => (await cluster.told()).twins.every(({ ready }) => ready));
  await leads.kill();
  await next.becomesMaster({ since });
  await cluster.server.query('CREATE DATABASE after_the_kill');
  await demandWholeLog();
  expect((await promoted.reigns()).at(-1)).toMatchObject({ node: next.node });

  // The old primary comes back: nobody writes to it, whoever restarts, even where etcd has lost everything.
  await rename(away, cluster.storePath);
  const old = (await cluster.chain.read()).length;
  await next.stop();
  await cluster.etcd.ctl('del', '--prefix', '/shipmate/');
  for (const { node } of cluster.daemons)
    await rm(join(cluster.dir, node, 'state/local/generations'), { recursive: true });
  await leads.start();
  await next.start();
  await cluster.ready();
  await cluster.server.query('CREATE DATABASE after_its_return');
  await demandWholeLog();
  expect((await cluster.chain.read()).length).toBe(old);
  await cluster.succeed(next, 'verify', STREAM, '--deep', '--store', 'nas');
  const { stdout: checked } = await shipmate(next.configFile, 'check');
  expect(checked).toContain('nas was promoted');
});
