import { rm } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { parseLsn } from '../../src/source/postgres/lsn.ts';
import { withinLimit } from '../helpers/measured.ts';
import type { Postgres } from '../helpers/postgres.ts';
import { type Moment, PostgresPair } from '../helpers/postgres-pair.ts';
import { TTL_MS } from '../helpers/twins.ts';
import { until } from '../helpers/wait.ts';

jest.setTimeout(120_000);

/** How long a primary goes on without daemons; the longer, the more its standby's slot holds. */
const WRITE_ON_MS = 1000 * Number(process.env.SHIPMATE_TEST_WRITE_ON_SECONDS ?? 3);

/** A recovered server must be sound, and hold exactly what the living one held at that moment. */
async function expectRecovered(recovery: Promise<Postgres>, { checksums }: Pick<Moment, 'checksums'>): Promise<void> {
  const server = await recovery;
  try {
    await server.amcheck();
    expect(await server.checksums()).toEqual(checksums);
  } finally {
    await server.stop();
  }
}

describe('a pair whose primaries die one after the other', () => {
  let pair: PostgresPair;
  let backup: string;
  const moments: Moment[] = [];
  beforeAll(async () => {
    pair = await PostgresPair.start();
    await pair.ready();
  });
  afterAll(async () => {
    await pair?.stop();
    if (backup) await rm(backup, { recursive: true, force: true });
  });

  /** The primary's host dies under load, its standby is promoted and written to, and the archive must follow. */
  async function failsOver(): Promise<void> {
    await pair.leads(pair.primary);
    const { primary, standby } = pair;
    const load = primary.server.startPgbench();
    await pair.ships();
    const since = standby.daemon.mark();
    const diedMs = performance.now();
    await pair.dies(primary);
    await pair.promote();
    await load.stop();
    const onward = pair.primary.server.startPgbench();
    const { atMs } = await standby.daemon.becomesMaster({ since });
    withinLimit('take-over after the primary’s host died', atMs - diedMs, TTL_MS + 2_000);
    await pair.ships();
    await onward.stop();
    expect((await pair.chain.reigns()).at(-1)!.opening.header).toMatchObject({ result: 'switch' });
  }

  test('ships what is written before a base backup, while it is taken and after', async () => {
    const load = pair.primary.server.startPgbench();
    backup = await pair.primary.server.baseBackup();
    await pair.ships();
    await load.stop();
    moments.push(await pair.moment());
  });

  test('goes on where the standby is promoted; the old primary, come back alone, never turns the archive back', async () => {
    await failsOver();
    moments.push(await pair.moment());
    const { server, daemon } = pair.standby;
    await daemon.start();
    await pair.says(pair.standby, /^behind: .*does not answer/);
    await server.start();
    await server.pgbench({ transactions: 20 });
    await pair.says(pair.standby, /^fork: /);
    const end = await pair.chain.end();
    await pair.primary.daemon.kill();
    await until('nobody leads', async () => (await pair.told()).master === null);
    await pair.says(pair.standby, /^fork: /);
    expect(await pair.chain.end()).toEqual(end);
    await pair.primary.daemon.start();
    await pair.master();
  });

  test('goes on after a crash of the new primary, and on the old one, rewound, once that is promoted', async () => {
    const load = pair.primary.server.startPgbench();
    await pair.ships();
    const since = pair.standby.daemon.mark();
    await pair.dies(pair.primary);
    await load.stop();
    await pair.primary.server.start();
    await pair.rejoins();
    await pair.standby.daemon.becomesMaster({ since });
    await failsOver();
    await pair.verify();
  });

  test('recovers a base backup to its latest state, to a time and to an LSN: sound, and equal to the living server', async () => {
    const [first, second] = moments as [Moment, Moment];
    const latest = { checksums: await pair.primary.server.checksums() };
    expect(latest.checksums).not.toEqual(second.checksums);
    await expectRecovered(pair.recoverByFetch(backup), latest);
    await expectRecovered(pair.recover(backup, '--until', first.time), first);
    await expectRecovered(pair.recover(backup, '--until', second.id), second);
  });

  test('has 16 MB of WAL, written in one burst, in the archive 2 s after their commit', async () => {
    const { server } = pair.primary;
    const before = parseLsn(await server.lsn());
    await server.sql(
      'CREATE TABLE burst AS SELECT i, repeat(md5(i::text), 32) AS filler FROM generate_series(1, 16000) AS i',
    );
    const committedMs = performance.now();
    await pair.settled();
    withinLimit('16 MB of WAL durable after their commit', performance.now() - committedMs, 2_000);
    expect(parseLsn(await server.lsn()) - before).toBeGreaterThan(16_000_000n);
  });
});

describe('a pair that ships to the cloud, whose servers keep no WAL but for slots', () => {
  let pair: PostgresPair;
  let backup: string;
  beforeAll(async () => {
    pair = await PostgresPair.start({ gcs: true, settings: { wal_keep_size: 0, max_wal_size: '8MB' } });
    await pair.ready();
    backup = await pair.primary.server.baseBackup();
  });
  afterAll(async () => {
    await pair?.stop();
    if (backup) await rm(backup, { recursive: true, force: true });
  });

  test('loses nothing that the standby received while no daemon lived: its slot held it', async () => {
    await pair.leads(pair.primary);
    const { primary, standby } = pair;
    await until(
      'the standby has a slot',
      async () => (await standby.server.sql('SELECT FROM pg_replication_slots')).length > 0,
    );
    const load = primary.server.startPgbench();
    await pair.ships();
    await Promise.all(pair.daemons.map((daemon) => daemon.kill()));
    const head = (await pair.chain.end())!;
    const deadline = performance.now() + WRITE_ON_MS;
    while (performance.now() < deadline) {
      await primary.server.sql('SELECT pg_switch_wal()');
      for (const { server } of [primary, standby]) await server.sql('CHECKPOINT');
    }
    await primary.server.end('kill');
    // From now on WAL is kept: the old primary has to come back.
    await standby.server.sql("ALTER SYSTEM SET wal_keep_size = '64MB'");
    await standby.server.sql('SELECT pg_reload_conf()');
    await pair.promote();
    await load.stop();
    const checksums = await pair.primary.server.checksums();
    // Both servers removed segments meanwhile, but not this one.
    expect(await pair.primary.server.sql('SELECT FROM pg_ls_waldir() WHERE name = $1', [head.segment])).toHaveLength(1);

    const since = standby.daemon.mark();
    await standby.daemon.start();
    await standby.daemon.becomesMaster({ since });
    await pair.verify();
    expect((await pair.chain.reigns()).map(({ opening }) => opening.header)).toContainEqual(
      expect.objectContaining({ result: 'resume', at: head }),
    );
    await expectRecovered(pair.recover(backup), { checksums });
  });

  test('takes a standby that lags for one: it never takes over backwards, and does so once it has caught up', async () => {
    await pair.rejoins();
    await pair.leads(pair.primary);
    const { primary, standby } = pair;
    const load = primary.server.startPgbench();
    await pair.ships();
    await standby.server.sql('SELECT pg_wal_replay_pause()');
    // While replay is paused nobody starts another.
    const [{ pid } = {}] = await standby.server.sql('SELECT pid FROM pg_stat_wal_receiver');
    process.kill(Number(pid), 'SIGTERM');
    await pair.ships();
    expect(await pair.says(standby, /^behind: .*\d/)).toMatchObject({ ready: false });
    await load.stop();
    const end = await pair.settled().then(() => pair.chain.end());
    const since = standby.daemon.mark();
    await primary.daemon.kill();
    await until('nobody leads', async () => (await pair.told()).master === null);
    await pair.says(standby, /^behind: /);
    expect(await pair.chain.end()).toEqual(end);

    await standby.server.sql('SELECT pg_wal_replay_resume()');
    await standby.daemon.becomesMaster({ since });
    expect((await pair.chain.reigns()).at(-1)!.opening.header).toMatchObject({ result: 'resume', at: end });
    await pair.verify();
  });
});
