import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Fresh } from '../../core/fresh.ts';
import { unreadable } from './errors.ts';
import { demandFit, type Fitness } from './fitness.ts';
import { flushedOnPrimary, flushedOnStandby, type StateRow } from './flushed.ts';
import { parseLsn, type WalId } from './lsn.ts';
import type { Server, ServerState } from './server-state.ts';
import { Connection, type Sql } from './sql.ts';
import { serverUnreachable } from './sql-errors.ts';
import { parseWalName } from './wal-name.ts';

export interface ServerOptions {
  /** `postgresql://shipmate@/postgres?host=/run/postgresql`; it must lead to the server that runs on `dir`. */
  readonly url: string;
  /** Its data directory. */
  readonly dir: string;
  /** The stream's name, for messages. */
  readonly stream: string;
}

/** A server as the source asks it, and as its slot does on the same connection. */
export interface PostgresServer extends Server, Sql {}

/** Connects to nothing before it is asked. */
export function openServer(options: ServerOptions): PostgresServer {
  return new OneServer(options);
}

class OneServer implements PostgresServer {
  readonly #options: ServerOptions;
  readonly #connection: Connection;
  #fitness: Fitness | null = null;
  #known: ServerState | null = null;
  readonly #answers = new Fresh(() => this.#ask());
  #proof: Proof | null = null;

  constructor(options: ServerOptions) {
    this.#options = options;
    this.#connection = new Connection({
      ...options,
      onConnect: async (sql) => {
        this.#fitness = await demandFit(sql, options);
      },
    });
  }

  get known(): ServerState | null {
    return this.#known;
  }

  query<Row extends object>(text: string, values?: readonly unknown[]): Promise<Row[]> {
    return this.#connection.query(text, values);
  }

  close(): Promise<void> {
    return this.#connection.close();
  }

  /** Whoever asks while a question is under way shares the next one with all others: an answer is never older than its call. */
  ask(): Promise<ServerState> {
    return this.#answers.ask();
  }

  async #ask(): Promise<ServerState> {
    let [row] = await this.query<StateRow>(QUESTION);
    // It was promoted while it answered, which happens once: what it said is of neither life.
    if (row!.was_in_recovery !== row!.is_in_recovery) [row] = await this.query<StateRow>(QUESTION);
    const { was_in_recovery: isInRecovery, replayed, receiver_status } = row!;
    const { timeline, lsn } = isInRecovery ? await this.#flushedOnStandby(row!) : flushedOnPrimary(row!);
    this.#known = {
      ...this.#fitness!,
      life: row!.life,
      isInRecovery,
      timeline,
      flushed: lsn,
      replayed: isInRecovery && replayed !== null ? parseLsn(replayed) : null,
      isStreaming: isInRecovery && receiver_status === 'streaming',
    };
    return this.#known;
  }

  async #flushedOnStandby(row: StateRow): Promise<WalId> {
    const remembered = this.#proof?.life === row.life ? this.#proof.flushed : null;
    const flushed = await flushedOnStandby(row, remembered, () => this.#newestTimeline());
    if (flushed === null) throw this.#notTelling();
    this.#proof = { life: row.life, flushed };
    return flushed;
  }

  /** The highest timeline that a history file in pg_wal names. */
  async #newestTimeline(): Promise<number> {
    const walDir = join(this.#options.dir, 'pg_wal');
    const names = await readdir(walDir).catch((cause: unknown) => {
      throw unreadable(walDir, cause);
    });
    return Math.max(1, ...names.map(parseWalName).map((name) => (name?.kind === 'history' ? name.timeline : 0)));
  }

  #notTelling() {
    return serverUnreachable(
      `stream ${this.#options.stream}: the standby does not tell up to where its WAL is safe`,
      'see that it follows its primary: pg_stat_wal_receiver, and its log',
    );
  }
}

/** What is known to be flushed lasts as long as the server runs: restarted, its directory may be another by pg_rewind. */
interface Proof {
  readonly life: string;
  readonly flushed: WalId;
}

// What must not be called on a standby stands behind CASE; nothing fails when a promotion comes in between.
const QUESTION = `
  SELECT pg_is_in_recovery() AS was_in_recovery,
    extract(epoch FROM pg_postmaster_start_time())::text AS life,
    CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn()::text END AS flushed,
    CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_flush_lsn()), 8) END AS writes_timeline,
    pg_last_wal_replay_lsn()::text AS replayed,
    pg_last_wal_receive_lsn()::text AS received,
    receiver.status AS receiver_status,
    receiver.received_tli AS received_timeline,
    receiver.flushed_lsn::text AS received_flushed,
    CASE WHEN pg_is_in_recovery() AND (receiver.flushed_lsn >= pg_last_wal_replay_lsn()) IS NOT TRUE THEN
      (SELECT min_recovery_end_timeline || '/' || min_recovery_end_lsn FROM pg_control_recovery()) END AS recovered,
    pg_is_in_recovery() AS is_in_recovery
  FROM (SELECT 1) AS one LEFT JOIN pg_stat_wal_receiver AS receiver ON true`;
