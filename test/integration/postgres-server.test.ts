import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { parseLsn } from '../../src/source/postgres/lsn.ts';
import { openServer, type PostgresServer } from '../../src/source/postgres/server.ts';
import { openSlot } from '../../src/source/postgres/slot.ts';
import { withinLimit } from '../helpers/measured.ts';
import { type Postgres, startPostgres } from '../helpers/postgres.ts';
import { startProxy } from '../helpers/proxy.ts';
import { until } from '../helpers/wait.ts';

jest.setTimeout(70_000);

/** What Shipmate asks a primary and its standby, in the order of a pair's life: one test goes on from the one before. */
let primary: Postgres;
let standby: Postgres;
const servers: PostgresServer[] = [];
beforeAll(async () => {
  primary = await startPostgres();
  standby = await primary.standby();
});
afterAll(async () => {
  await Promise.all(servers.map((server) => server.close()));
  await Promise.all([primary?.stop(), standby?.stop()]);
});

function open(at: Postgres, url = at.url): PostgresServer {
  const server = openServer({ url, dir: at.dataDir, stream: 'billing' });
  servers.push(server);
  return server;
}

const logged: string[] = [];
const note = (message: string, fields?: object) => logged.push(`${message} ${JSON.stringify(fields ?? {})}`);
const log = { debug: note, info: note, warn: note, error: note };

const write = (at: Postgres, bytes = 1000) =>
  at.sql(`SELECT pg_logical_emit_message(true, 'test', repeat('x', ${bytes}))`);
const slotOf = async (at: Postgres) =>
  (
    await at.sql(
      "SELECT restart_lsn::text AS lsn, active, wal_status FROM pg_replication_slots WHERE slot_name = 'shipmate_billing'",
    )
  )[0];

test('a primary tells its timeline, and up to where its WAL is flushed, over TCP and over a socket', async () => {
  await write(primary);
  const flushed = parseLsn(await primary.lsn());
  for (const url of [primary.url, primary.socketUrl]) {
    const state = await open(primary, url).ask();
    expect(state).toMatchObject({ timeline: 1, isInRecovery: false, replayed: null, isStreaming: false });
    expect(state).toMatchObject({ walSegmentBytes: 1 << 20, systemId: expect.stringMatching(/^\d{19}$/) });
    expect(state.flushed).toBeGreaterThanOrEqual(flushed);
  }
  const [{ name } = {}] = await primary.sql(
    "SELECT application_name AS name FROM pg_stat_activity WHERE query LIKE '%was_in_recovery%' AND pid <> pg_backend_pid()",
  );
  expect(name).toBe('shipmate');
});

test('a standby tells what it received and flushed, also of what it has not replayed; never less while it runs', async () => {
  const server = open(standby);
  await standby.sql('SELECT pg_wal_replay_pause()');
  await write(primary, 100_000);
  const written = parseLsn(await primary.lsn());
  const state = await until('it is flushed', async () => {
    const told = await server.ask();
    return told.flushed >= written && told;
  });
  expect(state).toMatchObject({ timeline: 1, isInRecovery: true, isStreaming: true });
  expect(state.replayed).toBeLessThan(written);

  // While replay is paused nobody starts another.
  const [{ pid } = {}] = await standby.sql('SELECT pid FROM pg_stat_wal_receiver');
  process.kill(Number(pid), 'SIGTERM');
  await until('its receiver is gone', async () => !(await server.ask()).isStreaming);
  expect((await server.ask()).flushed).toBeGreaterThanOrEqual(written);
  // Whoever asks for the first time now has nothing to remember.
  expect((await open(standby).ask()).flushed).toBeGreaterThanOrEqual(written);

  await standby.sql('SELECT pg_wal_replay_resume()');
  await until('it streams again', async () => (await server.ask()).isStreaming);
});

describe('the slot', () => {
  test.each(['primary', 'standby'] as const)(
    'on a %s holds WAL from where it is told, and is made again',
    async (which) => {
      const at = which === 'primary' ? primary : standby;
      const server = open(at);
      const slot = openSlot({ server, name: 'shipmate_billing', log });
      await server.ask();
      await slot.hold();
      const first = await slotOf(at);
      expect(first).toMatchObject({ active: false, wal_status: 'reserved' });

      const upTo = parseLsn(String(first?.lsn)) + 100n;
      await slot.advance(upTo);
      expect(parseLsn(String((await slotOf(at))?.lsn))).toBe(upTo);
      // Below its minimum, and beyond all that there is.
      await slot.advance(1n << 20n);
      await slot.advance(1n << 60n);
      const { flushed, replayed } = await server.ask();
      expect(parseLsn(String((await slotOf(at))?.lsn))).toBeLessThanOrEqual(replayed ?? flushed);

      await at.sql("SELECT pg_drop_replication_slot('shipmate_billing')");
      await slot.advance(flushed - (1n << 20n));
      expect(await slotOf(at)).toMatchObject({ wal_status: 'reserved' });
    },
  );

  test('that the server gave up is made again, and that is said', async () => {
    const server = open(primary);
    const slot = openSlot({ server, name: 'shipmate_billing', log });
    await primary.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
    await primary.sql('ALTER SYSTEM SET wal_keep_size = 0');
    await primary.sql('SELECT pg_reload_conf()');
    await until('it is lost', async () => {
      await write(primary, 500_000);
      await primary.sql('SELECT pg_switch_wal()');
      await primary.sql('CHECKPOINT');
      return (await slotOf(primary))?.wal_status === 'lost';
    });
    await slot.advance(0n);
    expect(await slotOf(primary)).toMatchObject({ wal_status: 'reserved' });
    expect(logged.join('\n')).toMatch(/held no WAL any more.*max_slot_wal_keep_size/);
    await primary.sql('ALTER SYSTEM RESET ALL');
    await primary.sql('SELECT pg_reload_conf()');
  });
});

describe('a server that is not the one to ask is refused, with what to do:', () => {
  const refused = async (at: Postgres, url: string, dir = at.dataDir) => {
    const server = openServer({ url, dir, stream: 'billing' });
    servers.push(server);
    return server.ask().then(
      () => 'it answered',
      ({ code, message, hint }) => `${code}: ${message} | ${hint}`,
    );
  };

  test('the least rights suffice, less do not; no password is ever told', async () => {
    await primary.sql("CREATE ROLE least LOGIN PASSWORD 's3cret'");
    expect(await refused(primary, primary.urlOf('least', 's3cret'))).toMatch(
      /^BAD_SERVER: .*may not see.*GRANT pg_monitor/,
    );
    await primary.sql('GRANT pg_monitor TO least');
    const server = open(primary, primary.urlOf('least', 's3cret'));
    expect(await server.ask()).toMatchObject({ timeline: 1 });
    await openSlot({ server, name: 'of_least', log }).hold();
    expect(logged.at(-1)).toMatch(/slot of_least does not hold.*REPLICATION/);
    await primary.sql('ALTER ROLE least REPLICATION');
    await openSlot({ server, name: 'of_least', log }).hold();
    expect(logged.at(-1)).toMatch(/made the replication slot of_least/);
    await primary.sql("SELECT pg_drop_replication_slot('of_least')");

    const nobody = await refused(primary, primary.urlOf('nobody', 's3cret'));
    expect(nobody).toMatch(/^BAD_SERVER: .*127\.0\.0\.1:\d+ refuses: .*"nobody".*pg_hba/);
    const nowhere = await refused(primary, `postgresql://nobody:s3cret@127.0.0.1:1/postgres`);
    expect(nowhere).toMatch(
      /^SERVER_UNREACHABLE: .*127\.0\.0\.1:1 does not answer: .*ECONNREFUSED.*see that PostgreSQL runs/,
    );
    expect([nobody, nowhere, ...logged].join()).not.toContain('s3cret');
  });

  test('another server of the same cluster, and another cluster', async () => {
    expect(await refused(standby, primary.url)).toMatch(
      /^BAD_SERVER: .*another server of the cluster.*moves with the primary/,
    );
    const other = await startPostgres({ ownSystemId: true });
    try {
      expect(await refused(standby, other.url)).toMatch(/^BAD_SERVER: .*leads to the cluster \d+, but .* is of \d+/);
    } finally {
      await other.stop();
    }
  });
});

test('a server that is frozen, cut off or dead costs a bounded time, and is asked again when it is back', async () => {
  const proxy = await startProxy(`http://127.0.0.1:${primary.port}`);
  const [direct, proxied] = [open(primary), open(primary, `postgresql://postgres@127.0.0.1:${proxy.port}/postgres`)];
  await Promise.all([direct.ask(), proxied.ask()]);
  const boundedMs = async (server: PostgresServer) => {
    const beganMs = performance.now();
    await expect(Promise.all([server.ask(), server.ask()])).rejects.toMatchObject({
      code: 'SERVER_UNREACHABLE',
      verdict: 'retry',
    });
    return performance.now() - beganMs;
  };
  primary.freeze();
  proxy.cut();
  const [frozenMs, cutMs] = await Promise.all([boundedMs(direct), boundedMs(proxied)]);
  withinLimit('a question to a server that is frozen or cut off', Math.max(frozenMs, cutMs), 8_000);
  expect(direct.known).toMatchObject({ timeline: 1 });
  primary.thaw();
  proxy.heal();
  expect(await direct.ask()).toMatchObject({ timeline: 1 });
  expect(await proxied.ask()).toMatchObject({ timeline: 1 });
  await proxied.close();
  await proxy.stop();
});

test('a promotion is seen at once by whoever asked before; the server that it followed is dead', async () => {
  const server = open(standby);
  const dead = open(primary);
  await Promise.all([server.ask(), dead.ask()]);
  await standby.waitFor(primary);
  await primary.end('kill');
  await expect(dead.ask()).rejects.toMatchObject({ code: 'SERVER_UNREACHABLE' });
  const answers: string[] = [];
  const promoted = standby.promote();
  await until(
    'it is promoted',
    async () => {
      const { timeline, isInRecovery, replayed } = await server.ask();
      answers.push(`${timeline} ${isInRecovery} ${replayed === null}`);
      return !isInRecovery;
    },
    { everyMs: 1 },
  );
  await promoted;
  // Its control file names the new timeline, whose first record is flushed then, a moment before recovery is over.
  // On a slow machine all of that may have passed before it is asked first.
  const onTheWay = ['1 true false', '2 true false'];
  expect([...new Set(answers)].filter((answer) => !onTheWay.includes(answer))).toEqual(['2 false true']);

  // Rewound and back: what was known of its own timeline counts no more.
  await primary.start();
  await primary.end('fast');
  await primary.rewind(standby);
  await primary.start();
  await primary.waitFor(standby);
  await write(standby);
  const flushed = parseLsn(await standby.lsn());
  const back = await until('it received', async () => {
    const state = await dead.ask();
    return state.flushed >= flushed && state;
  });
  expect(back).toMatchObject({ timeline: 2, isInRecovery: true, isStreaming: true });
});
