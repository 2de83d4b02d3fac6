import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { unreadable } from './errors.ts';
import { demandFit, type Fitness } from './fitness.ts';
import { compareIds, parseId, parseLsn, type WalId } from './lsn.ts';
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
  #asking: Promise<ServerState> | null = null;
  #next: Promise<ServerState> | null = null;
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
    if (this.#asking === null) return this.#start();
    this.#next ??= this.#asking
      .catch(() => {})
      .then(() => {
        this.#next = null;
        return this.#start();
      });
    return this.#next;
  }

  #start(): Promise<ServerState> {
    this.#asking = this.#ask().finally(() => {
      this.#asking = null;
    });
    return this.#asking;
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
    let flushed = newest([remembered, received(row), recovered(row)]);
    if (flushed === null) throw this.#notTelling();
    const further = beyondReceiver(row, flushed);
    if (further && compareIds(further, flushed) > 0 && (await this.#newestTimeline()) <= flushed.timeline) {
      flushed = further;
    }
    this.#proof = { life: row.life, flushed };
    return flushed;
  }

  /** The highest timeline that a history file in pg_wal names: none is replayed or received before its file is there. */
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

export interface StateRow {
  /** At the beginning of the answer and at its end. */
  readonly was_in_recovery: boolean;
  readonly is_in_recovery: boolean;
  /** When the server started. */
  readonly life: string;
  /** On a primary. */
  readonly flushed: string | null;
  readonly writes_timeline: string | null;
  readonly replayed: string | null;
  readonly received: string | null;
  readonly receiver_status: string | null;
  readonly received_timeline: number | null;
  readonly received_flushed: string | null;
  /** `<timeline>/<LSN>` that recovery has passed; only where no receiver has flushed as much as was replayed. */
  readonly recovered: string | null;
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

const flushedOnPrimary = ({ writes_timeline, flushed }: StateRow): WalId => ({
  timeline: Number.parseInt(writes_timeline!, 16),
  lsn: parseLsn(flushed!),
});

/** What the walreceiver has flushed of the timeline that it receives; rounded back to a segment's start at first. */
const received = ({ received_timeline, received_flushed }: StateRow): WalId | null =>
  received_timeline && received_flushed ? { timeline: received_timeline, lsn: parseLsn(received_flushed) } : null;

/** WAL is replayed from disk, where recovery made it durable before: what was passed is safe. */
const recovered = ({ recovered: passed }: StateRow): WalId | null =>
  passed === null || passed.startsWith('0/') ? null : parseId(passed);

/**
 * Without a receiver, or with one that tells less than was replayed (until more comes in, it tells where it began), how far
 * the WAL goes on disk if no newer timeline than that of `flushed` is known to this server: neither function says which
 * timeline it means. Replay must be proven to have reached it; what a receiver that is gone had received counts only where
 * there never was another one.
 */
function beyondReceiver(row: StateRow, { timeline }: WalId): WalId | null {
  if (recovered(row)?.timeline !== timeline) return null;
  const ends = timeline === 1 ? [row.replayed, row.received] : [row.replayed];
  return newest(ends.map((end) => (end === null ? null : { timeline, lsn: parseLsn(end) })));
}

const newest = (proofs: readonly (WalId | null)[]): WalId | null =>
  proofs.reduce((best, proof) => (best && (!proof || compareIds(best, proof) >= 0) ? best : proof), null);
