import { Cluster } from '../helpers/cluster.ts';
import type { Mariadb } from '../helpers/mariadb.ts';
import type { BedOptions, Committer, LatencyBed } from './latency.ts';

const SERVER_ARGS = [
  // What a server does by default, but for the files' size: some rotations are part of what is measured.
  ...['--sync-binlog=0', '--innodb-flush-log-at-trx-commit=1', '--max-binlog-size=4M'],
];

export async function startMariadbBed({ chunk, store }: BedOptions): Promise<LatencyBed> {
  const cluster = await Cluster.start({ mariadbArgs: SERVER_ARGS, daemon: { chunk }, ...(store && { store }) });
  await cluster.server.query('CREATE DATABASE shop');
  await cluster.server.query('CREATE TABLE shop.beats (id BIGINT PRIMARY KEY AUTO_INCREMENT, note TEXT NOT NULL)');
  return {
    twins: cluster,
    connect: () => connect(cluster.server),
    placeOf: sequenceOf,
    verify: () => cluster.verify(),
    stop: () => cluster.stop(),
  };
}

async function connect(server: Mariadb): Promise<Committer> {
  const connection = await server.connect();
  return {
    async commit(note) {
      const beganMs = performance.now();
      const committed = connection.query('INSERT INTO shop.beats (note) VALUES (?)', [note]);
      const asked = connection.query('SELECT @@last_gtid AS gtid');
      await committed;
      const atMs = performance.now();
      const [{ gtid }] = await asked;
      return { place: sequenceOf(gtid), atMs, tookMs: atMs - beganMs };
    },
    end: () => connection.end(),
  };
}

/** The server writes one replication domain only: `0-1-345`. */
const sequenceOf = (gtid: string) => Number(gtid.split('-')[2] ?? 0);
