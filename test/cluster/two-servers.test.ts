import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { readBinlogsBelow } from '../helpers/archive.ts';
import { shipmate } from '../helpers/daemon.ts';
import { startLoad } from '../helpers/load.ts';
import { withinLimit } from '../helpers/measured.ts';
import { STREAM, TTL_MS } from '../helpers/twins.ts';
import { TwoServers } from '../helpers/two-servers.ts';
import { until } from '../helpers/wait.ts';

jest.setTimeout(120_000);

/**
 * Each twin beside its own server of a replication pair: the database's failovers, and the archive's. One pair lives through
 * all of it, as a pair in production does.
 */
let pair: TwoServers;
beforeAll(async () => {
  pair = await TwoServers.start();
  await pair.ready();
});
afterAll(() => pair?.stop());

const DIED = 'and the archive goes on there without an operator';

describe('while the servers are well', () => {
  test('a lagging replica’s twin says by how much, never turns the archive back, and takes over once it has caught up', async () => {
    await pair.leads(pair.primary);
    const { primary, replica } = pair;
    const load = await startLoad(primary.server);
    await pair.ships();
    await replica.server.stopReplica({ applierOnly: true });
    await pair.ships();
    const lagging = await pair.says(replica, /^behind: .*\d+/);
    expect(lagging.ready).toBe(false);
    expect((await pair.status(replica.daemon)).twins.find(({ node }) => node === replica.daemon.node)).toMatchObject({
      ready: false,
      reason: expect.stringMatching(/^behind: /),
    });
    await load.stop();
    await pair.settled();

    const end = await pair.chain.end();
    await primary.daemon.kill();
    await until('nobody leads', async () => (await pair.told()).master === null);
    await pair.says(replica, /^behind: /);
    expect(await pair.chain.end()).toEqual(end);
    const since = replica.daemon.mark();
    await replica.server.startReplica();
    await replica.daemon.becomesMaster({ since });
    await pair.verify();
  });

  test('a planned switchover needs nothing of the daemons: whichever leads ships what the new primary writes', async () => {
    for (const leader of ['replica', 'primary'] as const) {
      await pair.leads(pair[leader]);
      const before = await startLoad(pair.primary.server, { seed: 5 });
      await pair.ships();
      await before.stop();
      await pair.switchOver();
      const after = await startLoad(pair.primary.server, { seed: 6 });
      await pair.ships();
      await after.stop();
      await pair.verify();
    }
  });
});

describe('the primary’s host dies', () => {
  test(`under load: its replica is promoted, ${DIED}`, async () => {
    await failsOver();
    await pair.verify();
  });

  test(`and comes back as a replica; later it takes over the other way, ${DIED}`, async () => {
    const load = await startLoad(pair.primary.server, { seed: 3 });
    await pair.rejoins();
    await load.stop();
    await failsOver();
    await pair.verify();
    await pair.rejoins();
    await pair.ready();
  });

  test('with a tail that its replica never had: that is archived, but not restored, and never gone back to', async () => {
    await pair.leads(pair.primary);
    const { primary, replica } = pair;
    await pair.replicated();
    await replica.server.stopReplica();
    await primary.server.query("CREATE TABLE shop.phantoms SELECT 'phantom of the lost tail' AS note");
    await pair.settled();
    const dead = (await pair.chain.end())!.id;
    const since = replica.daemon.mark();
    await pair.dies(primary);
    await pair.says(replica, /^(behind|fork): /);
    await pair.promote();
    const load = await startLoad(replica.server, { seed: 8 });
    await replica.daemon.becomesMaster({ since });
    await pair.ships();
    await load.stop();
    expect((await pair.chain.reigns()).at(-1)!.opening.header).toMatchObject({ result: 'fork' });
    await pair.verify();
    expect(await restoredText()).not.toContain('phantom of the lost tail');

    // The old primary is started as if nothing had happened: it is writable, and replicates from nobody.
    await primary.server.restart();
    await primary.daemon.start();
    await primary.server.query("CREATE TABLE shop.islands SELECT 'written on the island' AS note");
    await pair.says(primary, /^fork: /);
    const end = await pair.chain.end();
    expect(end!.id).not.toBe(dead);
    await replica.daemon.kill();
    await until('nobody leads', async () => (await pair.told()).master === null);
    await pair.says(primary, /^fork: /);
    expect(await pair.chain.end()).toEqual(end);
    await replica.daemon.start();
    await primary.daemon.stop();
    expect(await pair.rejoins()).toEqual({ builtAnew: true });
    const again = await startLoad(pair.primary.server, { seed: 9 });
    await pair.ready();
    await again.stop();
    await pair.verify();
  });
});

describe('an errant write on the replica', () => {
  test('forks its log: that is alarmed and never restored, and its twin never takes over', async () => {
    await pair.leads(pair.primary);
    const { primary, replica } = pair;
    const load = await startLoad(primary.server, { seed: 10 });
    await replica.server.query("CREATE TABLE shop.errands SELECT 'an errant write' AS note");
    const forked = await pair.says(replica, /^fork: /);
    expect(forked).toMatchObject({ ready: false, lagBytes: null });
    const metrics = await (await fetch(`${replica.daemon.url}/metrics`)).text();
    expect(metrics).toMatch(/^shipmate_alarm\{.*alarm="fork".*\} 1$/m);
    await pair.ships();
    await load.stop();
    await pair.settled();

    const refused = await shipmate(primary.daemon.configFile, 'handover', STREAM);
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('fork') });
    await primary.daemon.kill();
    await until('nobody leads', async () => (await pair.told()).master === null);
    await pair.says(replica, /^fork: /);
    await primary.daemon.start();
    await pair.master();
    await pair.verify();
    expect(await restoredText()).not.toContain('an errant write');
  });
});

/** The primary's host dies under load, its replica is promoted and written to, and the archive must follow. */
async function failsOver(): Promise<void> {
  await pair.leads(pair.primary);
  const { primary, replica } = pair;
  const load = await startLoad(primary.server);
  await pair.ships();
  const since = replica.daemon.mark();
  const diedMs = performance.now();
  await pair.dies(primary);
  await pair.promote();
  await load.stop();
  const onward = await startLoad(replica.server, { seed: 2 });
  const { atMs } = await replica.daemon.becomesMaster({ since });
  withinLimit('take-over after the primary’s host died', atMs - diedMs, TTL_MS + 2_000);
  await pair.ships();
  await onward.stop();
}

/** All bytes that a restore gives. */
async function restoredText(): Promise<string> {
  return readBinlogsBelow(await pair.restore());
}
