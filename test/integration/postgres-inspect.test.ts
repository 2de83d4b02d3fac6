import { afterAll, beforeAll, expect, jest, test } from '@jest/globals';
import { askRetention, inspectPostgres } from '../../src/source/postgres/inspect.ts';
import type { Finding } from '../../src/source/source.ts';
import { type Postgres, startPostgres } from '../helpers/postgres.ts';
import { until } from '../helpers/wait.ts';

jest.setTimeout(60_000);

/** What `check` says to whoever set up a server carelessly, what once it is mended, and what beside its standby. */
const CARELESS = {
  ...{ wal_log_hints: 'off', hot_standby: 'off', fsync: 'off', full_page_writes: 'off', archive_mode: 'on' },
  ...{ max_replication_slots: 1, max_wal_senders: 0, wal_level: 'minimal' },
};
const CAREFUL = {
  ...{ wal_log_hints: 'on', hot_standby: 'on', fsync: 'on', full_page_writes: 'on', archive_mode: 'off' },
  ...{ max_replication_slots: 10, max_wal_senders: 10, wal_level: 'replica', max_slot_wal_keep_size: '1GB' },
};
let primary: Postgres;
beforeAll(async () => {
  // No WAL is archived in wal_level minimal.
  primary = await startPostgres({ settings: { ...CARELESS, archive_mode: 'off' } });
});
afterAll(() => primary?.stop());

const findingsAt = (at: Postgres, { url = at.url, slotName = 'shipmate_billing' } = {}): Promise<Finding[]> =>
  inspectPostgres({ url, dir: at.dataDir, slotName, stream: 'billing' });

/** How much WAL the server keeps for the slot. */
const retentionAt = async ({ url, dataDir: dir }: Postgres) =>
  (await askRetention({ url, dir, slotName: 'shipmate_billing', stream: 'billing' })).bytes;

/** Warnings and errors, each with what to do about it. */
async function wrongAt(at: Postgres, options: { url?: string; slotName?: string } = {}): Promise<string[]> {
  const findings = await findingsAt(at, options);
  return findings
    .filter(({ level }) => level !== 'ok')
    .map(({ level, message, hint = 'NO HINT' }) => `${level}: ${message} | ${hint}`);
}

const says = (...parts: string[]) => expect.stringMatching(new RegExp(`^${parts.join('.*')}`));

test('a careless set-up is told all that it lacks, each with what to run', async () => {
  expect(await wrongAt(primary)).toEqual([
    says('error: wal_level is minimal', "ALTER SYSTEM SET wal_level = 'replica'", 'base backup'),
    says('warning: 0 of 0 WAL senders', 'max_wal_senders = 10'),
    says('warning: max_slot_wal_keep_size is not set', 'disk is full', 'The price', 'gap'),
    says('warning: hot_standby is off', 'hot_standby = on'),
    says('warning: wal_log_hints and data checksums are off', 'pg_rewind', 'wal_log_hints = on'),
    says('warning: fsync is off', 'fsync = on'),
    says('warning: full_page_writes is off', 'full_page_writes = on'),
  ]);
  await primary.end();
  await primary.start({ ...CARELESS, wal_level: 'replica' });
  await primary.sql("SELECT pg_create_physical_replication_slot('of_somebody_else')");
  const wrong = await wrongAt(primary);
  expect(wrong).toContainEqual(
    says("error: the replication slot shipmate_billing can't be made: 1 of 1", 'max_replication_slots'),
  );
  expect(wrong).toContainEqual(says('warning: archive_mode is on without', 'disk is full', 'shipmate push'));

  await primary.sql("ALTER SYSTEM SET archive_command = 'false'");
  await primary.sql('SELECT pg_reload_conf()');
  await primary.sql('SELECT pg_switch_wal()');
  await until('archiving failed', async () =>
    (await wrongAt(primary)).some((text) => /^warning: archiving fails.*pg_stat_archiver/.test(text)),
  );
  await primary.sql("SELECT pg_drop_replication_slot('of_somebody_else')");
  await primary.sql('ALTER SYSTEM RESET ALL');
  await primary.end();
});

test('a careful one has nothing to mend, with the least rights', async () => {
  await primary.start(CAREFUL);
  await primary.sql('CREATE ROLE shipmate LOGIN');
  const url = primary.urlOf('shipmate');
  expect(await wrongAt(primary, { url })).toEqual([says('error: .*may not see', 'GRANT pg_monitor')]);
  await primary.sql('GRANT pg_monitor TO shipmate');
  expect(await wrongAt(primary, { url })).toEqual([
    says('error: the user shipmate may not use replication slots', 'ALTER ROLE shipmate REPLICATION'),
  ]);
  await primary.sql('ALTER ROLE shipmate REPLICATION');
  expect(await findingsAt(primary, { url })).toEqual([
    { level: 'ok', message: expect.stringMatching(/^\d+ WAL segments in .*pg_wal can be read$/) },
    {
      level: 'ok',
      message: expect.stringMatching(/^PostgreSQL 15.*, a primary of the cluster \d+, answers shipmate$/),
    },
    { level: 'ok', message: 'wal_level is replica' },
    {
      level: 'ok',
      message: expect.stringContaining('slot shipmate_billing is not there yet: a running daemon makes it'),
    },
    { level: 'ok', message: 'while nothing is shipped the server keeps 1024 MB of WAL, then there is a gap' },
  ]);
  // It looks, and makes none.
  expect(await primary.sql('SELECT FROM pg_replication_slots')).toEqual([]);
});

test('a slot is told of while it fills the disk, and when it was given up', async () => {
  await primary.sql("SELECT pg_create_physical_replication_slot('shipmate_billing', true)");
  expect(await wrongAt(primary)).toEqual([]);
  expect(await retentionAt(primary)).toBeGreaterThan(900 * 2 ** 20);
  for (const [name, value] of Object.entries({
    max_wal_size: '2MB',
    wal_keep_size: '0',
    max_slot_wal_keep_size: '6MB',
  })) {
    await primary.sql(`ALTER SYSTEM SET ${name} = '${value}'`);
  }
  await primary.sql('SELECT pg_reload_conf()');
  const seen: string[] = [];
  await until('the slot is lost', async () => {
    await primary.sql("SELECT pg_logical_emit_message(false, 'test', repeat('x', 500000))");
    await primary.sql('SELECT pg_switch_wal()');
    seen.push(...(await wrongAt(primary)));
    return seen.at(-1)?.includes('was given up');
  });
  expect(seen[0]).toEqual(
    says(
      'warning: the replication slot shipmate_billing holds \\d+ MB of WAL, more than max_wal_size',
      'MB more, and it is given up',
    ),
  );
  expect(seen.at(-1)).toEqual(
    says('error: the replication slot shipmate_billing was given up', 'shipmate status', 'Raise max_slot_wal'),
  );
  expect(await retentionAt(primary)).toBe(0);
  await primary.sql("SELECT pg_drop_replication_slot('shipmate_billing')");
  await primary.sql('ALTER SYSTEM RESET ALL');
  await primary.sql('SELECT pg_reload_conf()');
  expect(await retentionAt(primary)).toBeNull();
});

test('a standby that receives, one that does not, and one that streams by the slot meant for shipmate', async () => {
  const standby = await primary.standby({ slot: 'of_standby', settings: { recovery_target_timeline: 'current' } });
  try {
    expect(await wrongAt(standby)).toEqual([says('warning: recovery_target_timeline is current', "= 'latest'")]);
    expect(await wrongAt(primary, { slotName: 'of_standby' })).toEqual([
      says('error: somebody streams by', 'primary_slot_name'),
    ]);
    await primary.end('kill');
    await until('its receiver is gone', async () => (await wrongAt(standby)).length > 1);
    expect((await wrongAt(standby))[0]).toEqual(
      says('warning: the server is a standby that receives no WAL', 'primary_conninfo'),
    );
    expect(await wrongAt(primary)).toEqual([says('error: .*does not answer', 'see that PostgreSQL runs')]);
  } finally {
    await standby.stop();
  }
});
