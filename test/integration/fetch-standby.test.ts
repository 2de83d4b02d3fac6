import { chmodSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, jest, test } from '@jest/globals';
import { stringify } from 'yaml';
import type { Archive } from '../../src/archive/walk.ts';
import { parseId, parseLsn } from '../../src/source/postgres/lsn.ts';
import { openServer } from '../../src/source/postgres/server.ts';
import { openPostgresSource } from '../../src/source/postgres.ts';
import { openFileStore } from '../../src/store/file.ts';
import { checkoutForServers } from '../helpers/checkout.ts';
import { type Postgres, serverFolder, startPostgres } from '../helpers/postgres.ts';
import { createArchive, shipTerm } from '../helpers/shipped-archive.ts';
import { until } from '../helpers/wait.ts';

jest.setTimeout(70_000);

const log = { debug() {}, info() {}, warn() {}, error() {} };
const SEGMENT_BYTES = 1n << 20n;

/** A primary, an archive, and a streaming standby that asks the archive where its primary does not answer. */
let dir: string;
let archive: Archive;
let primary: Postgres;
let standby: Postgres;

beforeAll(async () => {
  dir = await serverFolder('shipmate-fetch-standby-');
  chmodSync(dir, 0o777);
  const path = join(dir, 'store');
  await mkdir(path);
  const config = join(dir, 'shipmate.yaml');
  const source = { type: 'postgres', dir: '/nowhere', url: 'postgresql://shipmate@/postgres' };
  const stores = { main: { type: 'file', path } };
  await writeFile(
    config,
    stringify({ cluster: 'acme', stores, streams: { orders: { source, store: 'main' } }, coordination: 'solo' }),
  );
  primary = await startPostgres({ settings: { wal_keep_size: '256MB' } });
  await primary.sql('CREATE TABLE rows AS SELECT 1 AS id');
  archive = await createArchive(openFileStore({ name: 'main', path }), 'orders', 'postgres');
  const fetch = `${join(await checkoutForServers(dir), 'bin', 'shipmate')} fetch orders %f %p -c ${config}`;
  const restore_command = `${fetch} 2>/dev/null; code=$?; echo "%f $code" >>${join(dir, 'asked')}; exit $code`;
  standby = await primary.standby({ settings: { restore_command } });
});

afterAll(async () => {
  await Promise.all([primary?.stop(), standby?.stop()]);
  await rm(dir, { recursive: true, force: true });
});

async function ship(): Promise<bigint> {
  const server = openServer({ url: primary.url, dir: primary.dataDir, stream: 'orders' });
  const source = openPostgresSource({ stream: 'orders', dir: primary.dataDir, server, slot: null, busyPollMs: 5, log });
  try {
    const { position } = await shipTerm(archive, source, { maxChunkBytes: 256 * 1024 });
    return parseId(position!.id).lsn;
  } finally {
    await source.close();
  }
}

const asked = async () => (await readFile(join(dir, 'asked'), 'utf8').catch(() => '')).split('\n').slice(0, -1);

test('what a standby received beyond the archive’s end outlives its primary', async () => {
  await primary.sql('SELECT pg_switch_wal()');
  await primary.sql('INSERT INTO rows SELECT generate_series(2, 100)');
  const archived = await ship();
  await primary.sql('INSERT INTO rows SELECT generate_series(101, 200)');
  const [{ name } = {}] = await primary.sql('SELECT pg_walfile_name(pg_current_wal_lsn()) AS name');
  const received = parseLsn(await primary.lsn());
  expect(archived / SEGMENT_BYTES).toBe(received / SEGMENT_BYTES);
  await standby.waitFor(primary);
  const beyondArchive = async () =>
    (await readFile(join(standby.dataDir, 'pg_wal', String(name)))).subarray(
      Number(archived % SEGMENT_BYTES),
      Number(received % SEGMENT_BYTES),
    );
  const before = await beyondArchive();

  const count = (await asked()).length;
  await primary.end('kill');
  const isAsked = async () => (await asked()).slice(count).filter((line) => line === `${name} 1`).length > 1;
  await until('it asks the archive, and is told to keep its own', isAsked, { describe: () => `${name}` });
  expect((await beyondArchive()).equals(before)).toBe(true);

  // A crash before its first checkpoint: it recovers by that WAL.
  await standby.promote();
  await standby.end('kill');
  await standby.start();
  expect(await standby.sql('SELECT count(*)::int AS rows FROM rows')).toEqual([{ rows: 200 }]);
});
