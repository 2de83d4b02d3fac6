import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { differences, readBinlogs } from '../helpers/archive.ts';
import { Cluster, STREAM } from '../helpers/cluster.ts';
import { shipmate } from '../helpers/daemon.ts';
import { startLoad } from '../helpers/load.ts';
import { until } from '../helpers/wait.ts';

jest.setTimeout(120_000);

/** What becomes of the database server and its binlogs. Each test starts its own: their histories break on purpose. */
let cluster: Cluster;
afterAll(() => cluster?.stop());

async function startCluster(): Promise<void> {
  await cluster?.stop();
  cluster = await Cluster.start();
}

describe('a power loss that takes the binlog’s unsynced tail back', () => {
  beforeAll(startCluster);

  test.each([
    { what: 'the host with its daemons', daemons: true, rotated: false },
    { what: 'the host with its daemons, and a rotation with it', daemons: true, rotated: true },
    { what: 'the database server alone', daemons: false, rotated: false },
    { what: 'the database server alone, and a rotation with it', daemons: false, rotated: true },
  ])('of $what: transactions of the lost tail are never restored', async ({ daemons, rotated }) => {
    const { master, standby } = await cluster.ready();
    await cluster.underLoad(() => cluster.ships());

    const copy = await cluster.copyServer();
    await cluster.server.query('CREATE TABLE shop.phantoms (note TEXT)');
    for (let n = 0; n < 50; n++) {
      await cluster.server.query("INSERT INTO shop.phantoms VALUES ('phantom of the tail')");
      if (n === 20 && rotated) await cluster.server.query('FLUSH BINARY LOGS');
    }
    await cluster.settled();

    const terms = (await cluster.chain.reigns()).length;
    if (daemons) await Promise.all([master.kill(), standby.kill()]);
    await cluster.loseServersTail(copy);
    if (daemons) await Promise.all([master.start(), standby.start()]);
    await until('a further term is opened', async () => (await cluster.chain.reigns()).length > terms);
    await cluster.ready();

    await cluster.underLoad(() => cluster.ships());
    const restored = await readBinlogs(await cluster.restore());
    expect(Buffer.concat([...restored.values()]).includes('phantom of the tail')).toBe(false);
    expect((await cluster.chain.reigns()).at(-1)!.opening.header).toMatchObject({ result: 'truncate' });
  });
});

describe('RESET MASTER', () => {
  beforeAll(startCluster);

  test('begins anew: what was before and what came after are both restored, each whole', async () => {
    await cluster.ready();
    await cluster.underLoad(() => cluster.ships());
    const before = await readBinlogs(cluster.server.dataDir);
    await cluster.server.query('RESET MASTER');
    const load = await startLoad(cluster.server, { seed: 2 });
    await cluster.ships();
    await load.stop();
    await cluster.settled();

    const restored = await cluster.restore();
    const [first, second] = (await readdir(restored)).sort();
    expect(first).toMatch(/^01-/);
    expect(second).toMatch(/^02-/);
    expect(differences(before, await readBinlogs(join(restored, first!)))).toEqual([]);
    const after = await readBinlogs(cluster.server.dataDir);
    expect(differences(after, await readBinlogs(join(restored, second!)))).toEqual([]);
    await cluster.succeed(cluster.daemons[0]!, 'verify', STREAM, '--deep');
  });
});

describe('binlogs purged before they were shipped', () => {
  beforeAll(startCluster);

  test('leave a gap: nobody takes over until an operator accepts it, and restore never crosses it', async () => {
    const { master, standby } = await cluster.ready();
    await cluster.underLoad(() => cluster.ships());
    const whole = await readBinlogs(await cluster.restore());
    const end = await cluster.chain.end();
    await Promise.all([master.kill(), standby.kill()]);
    await purgeUnshipped();

    for (const daemon of cluster.daemons) await daemon.start();
    await until('the twins see the gap', async () => {
      const { twins } = await cluster.told();
      return twins.length === 2 && twins.every(({ reason }) => /^gap: /.test(reason));
    });
    const status = await cluster.status();
    expect(status.twins.map(({ reason }) => reason.slice(0, 5))).toEqual(['gap: ', 'gap: ']);
    expect(status.master).toBeNull();
    expect(status.twins.map(({ ready }) => ready)).toEqual([false, false]);
    expect(await cluster.chain.end()).toEqual(end);

    await cluster.succeed(standby, 'accept-gap', STREAM, '--yes');
    await cluster.ready();
    const load = await startLoad(cluster.server, { seed: 3 });
    await cluster.ships();
    await load.stop();
    await cluster.settled();

    const across = await shipmate(master.configFile, 'restore', STREAM, '--to', join(cluster.dir, 'across'));
    expect(across.code).toBe(3);
    expect(across.stderr).toMatch(/^error: .*gap.*\nhint: /);
    const upTo = await cluster.restore('--until', end!.id);
    expect(differences(whole, await readBinlogs(upTo))).toEqual([]);
    const afterwards = await cluster.restore('--after-gap');
    const left = await readBinlogs(cluster.server.dataDir);
    expect(differences(left, await readBinlogs(afterwards))).toEqual([]);
    await cluster.succeed(master, 'verify', STREAM, '--deep');
  });

  async function purgeUnshipped(): Promise<void> {
    const load = await startLoad(cluster.server, { seed: 2 });
    for (let n = 0; n < 3; n++) {
      const commits = load.commits;
      await until('further commits', () => load.commits > commits + 100);
      await cluster.server.query('FLUSH BINARY LOGS');
    }
    await load.stop();
    const logs = await cluster.server.query('SHOW BINARY LOGS');
    await cluster.server.query(`PURGE BINARY LOGS TO '${logs.at(-1)!.Log_name}'`);
  }
});
