import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseId, parseLsn } from '../../src/source/postgres/lsn.ts';
import { prepareDaemon } from '../helpers/daemon.ts';
import { startEtcd } from '../helpers/etcd.ts';
import { type Postgres, startPostgres } from '../helpers/postgres.ts';
import { STREAM, Twins } from '../helpers/twins.ts';
import type { BedOptions, Committer, LatencyBed } from './latency.ts';

const NODES = ['db-1', 'db-2'];

/** One server with both daemons, as it comes but for its segments' size: some ends of them are part of what is measured. */
export async function startPostgresBed({ chunk, store }: BedOptions): Promise<LatencyBed> {
  const dir = await mkdtemp(join(tmpdir(), 'shipmate-bench-'));
  const [etcd, server] = await Promise.all([startEtcd(), startPostgres({ walSegmentMiB: 4 })]);
  await server.sql('CREATE TABLE beats (id bigserial PRIMARY KEY, note text NOT NULL)');
  const where = store ?? { storePath: join(dir, 'store') };
  await mkdir(where.storePath, { recursive: true });
  const source = { type: 'postgres', dir: server.dataDir, url: server.url };
  const daemons = await Promise.all(
    NODES.map((node) =>
      prepareDaemon({ node, dir: join(dir, node), endpoints: etcd.endpoints, source, chunk, ...where }),
    ),
  );
  const twins = new Twins({ dir, etcd, storePath: where.storePath, daemons, proxies: new Map() });
  return {
    twins,
    connect: () => connect(server),
    placeOf: (id) => (id === '' ? 0 : Number(parseId(id).lsn)),
    verify: async () => void (await twins.succeed(daemons[0]!, 'verify', STREAM, '--deep')),
    async stop() {
      await Promise.all(daemons.map((daemon) => daemon.kill()));
      await Promise.all([server.stop(), etcd.stop()]);
      await rm(dir, { recursive: true, force: true });
    },
  };
}

async function connect(server: Postgres): Promise<Committer> {
  const connection = await server.connect();
  const commitNow = async (note: string) => {
    const beganMs = performance.now();
    await connection.query('INSERT INTO beats (note) VALUES ($1)', [note]);
    const atMs = performance.now();
    const { rows } = await connection.query('SELECT pg_current_wal_flush_lsn() AS lsn');
    return { place: Number(parseLsn(rows[0].lsn)), atMs, tookMs: atMs - beganMs };
  };
  // One after the other: this client sends no query while another one is answered.
  let last: Promise<unknown> = Promise.resolve();
  return {
    commit(note) {
      const commit = last.then(() => commitNow(note));
      last = commit;
      return commit;
    },
    end: () => connection.end(),
  };
}
