import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { Cluster, checksums, replay, STREAM, startReplica, TTL_MS } from '../helpers/cluster.ts';
import { type Daemon, shipmate } from '../helpers/daemon.ts';
import { measured } from '../helpers/measured.ts';
import { until } from '../helpers/wait.ts';

jest.setTimeout(120_000);

/** What becomes of the daemons themselves, while the database is written to and etcd and the store are well. */
let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start({ proxied: true });
});
afterAll(() => cluster?.stop());

describe('a master that dies', () => {
  test('by SIGKILL is followed by its twin within TTL + 1 s (timed)', async () => {
    const { master, standby } = await cluster.ready();
    await cluster.underLoad(async () => {
      await cluster.ships();
      const since = standby.mark();
      const killedMs = performance.now();
      await master.kill();
      const { atMs } = await standby.becomesMaster({ since });
      measured('take-over after SIGKILL', atMs - killedMs, TTL_MS + 1_000);
      await cluster.ships();
    });
    expect((await cluster.chain.reigns()).at(-1)).toMatchObject({ node: standby.node });
  });

  test('together with its twin loses nothing: whoever comes back first goes on', async () => {
    const { master, standby } = await cluster.ready();
    await cluster.underLoad(async (load) => {
      await cluster.ships();
      await Promise.all([master.kill(), standby.kill()]);
      const commits = load.commits;
      await until('the database is written to while nobody ships', () => load.commits > commits + 100);
      await cluster.ready();
      await cluster.ships();
    });
  });
});

describe('a master that freezes beyond its lease and wakes', () => {
  test('adds nothing to the chain after its seal, and comes back as standby', async () => {
    const { master, standby } = await cluster.ready();
    await cluster.underLoad(() => freezeAndWake(master, standby));
    await cluster.ready();
  });

  test('is fenced by the store alone when it can’t reach etcd as it wakes', async () => {
    const { master, standby } = await cluster.ready();
    await cluster.underLoad(async () => {
      const fenced = await freezeAndWake(master, standby, {
        beforeWaking: () => cluster.link(master).cut(),
      });
      expect(fenced).toMatch(/holds a seal of node/);
      cluster.link(master).heal();
    });
    await cluster.ready();
  });
});

/** Returns why the woken master gave up. */
async function freezeAndWake(
  master: Daemon,
  standby: Daemon,
  { beforeWaking = () => {} }: { beforeWaking?: () => void } = {},
): Promise<string> {
  await cluster.ships();
  const since = { master: master.mark(), standby: standby.mark() };
  const { claim } = (await cluster.chain.reigns()).at(-1)!;
  master.freeze();
  const { term } = await standby.becomesMaster({ since: since.standby });
  await cluster.ships();
  beforeWaking();
  master.thaw();
  const { message } = await master.logged(/^deposed/, { since: since.master });
  await cluster.ships();
  const afterSeal = (await cluster.chain.read()).filter(({ header }) => header.term >= term);
  expect(afterSeal.filter(({ header }) => header.claim === claim)).toEqual([]);
  return message;
}

describe('leaving on purpose', () => {
  test('on SIGTERM hands over within 300 ms (timed)', async () => {
    const { master, standby } = await cluster.ready();
    await cluster.underLoad(async () => {
      await cluster.ships();
      const since = standby.mark();
      const toldMs = performance.now();
      const exit = master.stop();
      const { atMs } = await standby.becomesMaster({ since });
      measured('take-over after SIGTERM', atMs - toldMs, 300);
      expect(await exit).toMatchObject({ code: 0, signal: null, stderr: '' });
      await cluster.ships();
    });
  });

  test('by `shipmate handover`, from either twin’s config, hands over within 300 ms (timed)', async () => {
    await cluster.underLoad(async () => {
      for (const from of ['master', 'standby'] as const) {
        const twins = await cluster.ready();
        await cluster.ships();
        const since = { master: twins.master.mark(), standby: twins.standby.mark() };
        await cluster.succeed(twins[from], 'handover', STREAM);
        const left = await twins.master.logged(/^role: leaving/, { since: since.master });
        const { atMs } = await twins.standby.becomesMaster({ since: since.standby });
        measured(`take-over after handover (from the ${from}’s config)`, atMs - left.atMs, 300);
      }
    });
  });

  test('by `shipmate handover --to` goes to the node that is named, and to no other', async () => {
    const { master, standby } = await cluster.ready();
    await cluster.succeed(standby, 'handover', STREAM, '--to', standby.node);
    expect((await cluster.ready()).master.node).toBe(standby.node);

    const unknown = await shipmate(master.configFile, 'handover', STREAM, '--to', 'db-9');
    expect(unknown.code).toBe(1);
    expect(unknown.stderr).toMatch(/^error: .*db-9.*\nhint: .*\n$/);
    expect((await cluster.ready()).master.node).toBe(standby.node);
  });

  test('is refused while no twin could take over', async () => {
    const { master, standby } = await cluster.ready();
    await standby.stop();
    const refused = await shipmate(master.configFile, 'handover', STREAM);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/^error: no twin is ready/);
    expect((await cluster.told()).master).toBe(master.node);
  });
});

describe('status', () => {
  test('is at most 500 ms old (timed)', async () => {
    const { master } = await cluster.ready();
    await cluster.settled();
    const before = await cluster.told();
    const wroteMs = performance.now();
    await cluster.server.query('CREATE TABLE IF NOT EXISTS shop.beat (n INT)');
    await until('the status shows what was committed', async () => moved(before, await cluster.told()), { everyMs: 5 });
    measured('from a commit to the status that shows it', performance.now() - wroteMs, 500);
    expect((await cluster.told()).master).toBe(master.node);

    const ages: number[] = [];
    for (let look = 0; look < 40; look++) ages.push(await oldestTwinMs());
    measured('age of what the twins tell', Math.max(...ages), 500);
  });

  test('works when every daemon is dead, and says so', async () => {
    const { master, standby } = await cluster.ready();
    await cluster.settled();
    const alive = await cluster.told();
    await Promise.all([master.kill(), standby.kill()]);
    const dead = await until('nobody leads', async () => {
      const status = await cluster.status();
      return status.master === null && status.twins.length === 0 && status;
    });
    expect(dead).toMatchObject({ term: alive.term, cursor: alive.cursor, lagBytes: null });
  });
});

function moved(before: Awaited<ReturnType<Cluster['told']>>, now: Awaited<ReturnType<Cluster['told']>>): boolean {
  return before.cursor?.segment !== now.cursor?.segment || before.cursor?.offset !== now.cursor?.offset;
}

/** How long ago the twin that published last but least recently did so, by the clock that both share. */
async function oldestTwinMs(): Promise<number> {
  const values = await cluster.etcd.ctl('get', '--prefix', '/shipmate/acme/nodes/', '--print-value-only');
  const times = values
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => Date.parse(JSON.parse(line).twin.time));
  expect(times).toHaveLength(2);
  return Date.now() - Math.min(...times);
}

test('the restored binlogs, replayed into an empty server, give the same tables', async () => {
  await cluster.ready();
  const replica = await startReplica();
  try {
    const restored = await cluster.restore();
    await replay(restored, replica);
    const expected = await checksums(cluster.server, 'shop');
    expect(Object.keys(expected)).toContain('orders');
    expect(await checksums(replica, 'shop')).toEqual(expected);
  } finally {
    await replica.stop();
  }
});
