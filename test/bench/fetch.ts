import { copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { openServer } from '../../src/source/postgres/server.ts';
import { openPostgresSource } from '../../src/source/postgres.ts';
import { openFileStore } from '../../src/store/file.ts';
import { SHIPMATE } from '../helpers/daemon.ts';
import { type Postgres, serverFolder, startPostgres } from '../helpers/postgres.ts';
import { createArchive, shipTerm } from '../helpers/shipped-archive.ts';
import { until } from '../helpers/wait.ts';
import { MIB, median, type Report, round } from './figures.ts';

export interface FetchBenchOptions {
  /** Of WAL to replay. */
  readonly mib?: number;
  /** Recoveries of each kind, alternating. */
  readonly runs?: number;
}

const log = { debug() {}, info() {}, warn() {}, error() {} };
const CHUNK_BYTES = 8 * MIB;
const BATCH_ROWS = 60_000;

/** Replays the same WAL from a local directory by `cp`, and from an archive by `fetch`, in real recoveries of one backup. */
export async function benchFetch({ mib = 1024, runs = 5 }: FetchBenchOptions = {}): Promise<Report> {
  const dir = await serverFolder('shipmate-bench-fetch-');
  const primary = await startPostgres({ walSegmentMiB: 16, settings: { wal_keep_size: '64GB', max_wal_size: '2GB' } });
  let backup: string | null = null;
  try {
    await primary.initPgbench(2);
    backup = await primary.baseBackup();
    await write(primary, mib);
    const segments = await ship(primary, dir);
    await primary.end();
    const config = `-c ${join(dir, 'shipmate.yaml')}`;
    const commands = {
      cp: `cp ${join(dir, 'wal')}/%f %p`,
      fetch: `XDG_CACHE_HOME=${dir} ${SHIPMATE} fetch orders %f %p ${config}`,
    };
    const seconds: { cp: number[]; fetch: number[] } = { cp: [], fetch: [] };
    for (let run = 0; run < runs; run++) {
      for (const how of ['cp', 'fetch'] as const) seconds[how].push(await replay(backup, commands[how]));
    }
    const speed = median(seconds.cp) / median(seconds.fetch);
    return {
      title: `replay of ${segments} segments of 16 MiB in a real recovery, ${runs} times each, alternating`,
      figures: [
        { what: 'with cp from a local directory', value: round(median(seconds.cp)), unit: 's' },
        { what: 'with fetch from a file store', value: round(median(seconds.fetch)), unit: 's' },
        { what: 'speed of fetch, cp’s being 1', value: round(speed), unit: '', atLeast: 0.9 },
        { what: 'segments a second with fetch', value: round(segments / median(seconds.fetch), 1), unit: '/s' },
      ],
      data: { segments, chunkBytes: CHUNK_BYTES, seconds },
    };
  } finally {
    await primary.stop();
    await rm(dir, { recursive: true, force: true });
    if (backup) await rm(backup, { recursive: true, force: true });
  }
}

/** Transactions of many kinds; none of them waits for another's commit. */
async function write(primary: Postgres, mib: number): Promise<void> {
  const written = async () => {
    const [row] = await primary.sql("SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::float8 / 1048576 AS mib");
    return Number(row!.mib);
  };
  await primary.sql('CREATE TABLE t (id bigserial PRIMARY KEY, a int, b text)');
  const upTo = (await written()) + mib;
  while ((await written()) < upTo) {
    await primary.pgbench({ clients: 4, transactions: 300 });
    await primary.sql(`INSERT INTO t (a, b) SELECT i, md5(i::text) FROM generate_series(1, ${BATCH_ROWS}) i`);
    await primary.sql(`UPDATE t SET a = a + 1 WHERE id % 7 = 0 AND id > (SELECT max(id) FROM t) - ${BATCH_ROWS}`);
  }
}

/** Into an archive, and into a directory for cp; returns how many segments. */
async function ship(primary: Postgres, dir: string): Promise<number> {
  await Promise.all(['wal', 'store'].map((name) => mkdir(join(dir, name))));
  const store = openFileStore({ name: 'main', path: join(dir, 'store') });
  const archive = await createArchive(store, 'orders', 'postgres');
  const server = openServer({ url: primary.url, dir: primary.dataDir, stream: 'orders' });
  const source = openPostgresSource({ stream: 'orders', dir: primary.dataDir, server, slot: null, busyPollMs: 5, log });
  const end = await shipTerm(archive, source, { maxChunkBytes: CHUNK_BYTES });
  await source.close();
  const wal = join(primary.dataDir, 'pg_wal');
  const last = end.position!.segment;
  const names = (await readdir(wal)).filter((name) => /^[0-9A-F]{24}$/.test(name) && name <= last);
  for (const name of names) await copyFile(join(wal, name), join(dir, 'wal', name));
  await writeFile(
    join(dir, 'shipmate.yaml'),
    JSON.stringify({
      cluster: 'bench',
      coordination: 'solo',
      stores: { main: { type: 'file', path: join(dir, 'store') } },
      streams: { orders: { source: { type: 'postgres', dir: primary.dataDir, url: primary.url }, store: 'main' } },
    }),
  );
  return names.length;
}

/** Seconds from the first record to the last, as the server logs them. */
async function replay(backup: string, command: string): Promise<number> {
  const settings = { restore_command: command, recovery_target_timeline: 'latest', max_wal_size: '8GB' };
  const server = await startPostgres({ backup, recovers: true, settings });
  try {
    const isDone = async () => (await server.sql('SELECT pg_is_in_recovery() AS yes'))[0]?.yes === false;
    await until('it has recovered', isDone, { withinMs: 600_000, everyMs: 100 });
    const said = /redo done at .* elapsed: ([\d.]+) s/.exec(await readFile(join(server.socketDir, 'log'), 'utf8'));
    if (!said) throw new Error('the server did not say how long it took');
    return Number(said[1]);
  } finally {
    await server.stop();
  }
}
