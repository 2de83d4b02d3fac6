import type { Sql } from './sql.ts';

/** What `check` asks a server; by name, as PostgreSQL prints it. */
export interface ServerFacts {
  readonly versionText: string;
  readonly isInRecovery: boolean;
  /** Quoted as SQL wants it. */
  readonly user: string;
  /** Whether it may make and advance slots. */
  readonly mayUseSlots: boolean;
  readonly settings: ReadonlyMap<string, string>;
  readonly slotsInUse: number;
  readonly sendersInUse: number;
  /** Whether the newest attempt of archive_command failed. */
  readonly isArchivingFailing: boolean;
  /** On a standby: whether a walreceiver streams. */
  readonly isStreaming: boolean;
  /** The stream's slot; null: it is not there. */
  readonly slot: SlotFacts | null;
}

export interface SlotFacts {
  readonly type: string;
  readonly isActive: boolean;
  /** `reserved`, `extended`, `unreserved`, `lost`; null: it never reserved any WAL. */
  readonly walStatus: string | null;
  readonly heldBytes: number;
  /** What can be written before it may be lost; null: no limit. */
  readonly safeBytes: number | null;
}

const SETTINGS = [
  ...['wal_level', 'max_slot_wal_keep_size', 'max_replication_slots', 'max_wal_senders', 'hot_standby', 'archive_mode'],
  ...['archive_command', 'archive_library', 'full_page_writes', 'fsync', 'data_checksums', 'wal_log_hints'],
  ...['recovery_target_timeline', 'server_version', 'idle_replication_slot_timeout'],
];

interface FactsRow {
  readonly in_recovery: boolean;
  readonly user_name: string;
  readonly may_use_slots: boolean;
  readonly settings: Readonly<Record<string, string>>;
  readonly slots: number;
  readonly senders: number;
  readonly archiving_fails: boolean;
  readonly streams: boolean;
}

const FACTS = `
  SELECT pg_is_in_recovery() AS in_recovery, quote_ident(current_user) AS user_name,
    (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user) AS may_use_slots,
    (SELECT json_object_agg(name, setting) FROM pg_settings WHERE name = ANY ($1)) AS settings,
    (SELECT count(*)::int FROM pg_replication_slots) AS slots,
    (SELECT count(*)::int FROM pg_stat_replication) AS senders,
    (SELECT coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) FROM pg_stat_archiver)
      AS archiving_fails,
    EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') AS streams`;

interface SlotRow {
  readonly slot_type: string;
  readonly active: boolean;
  readonly wal_status: string | null;
  readonly held: string | null;
  readonly safe: string | null;
}

const SLOT = `
  SELECT slot_type, active, wal_status, safe_wal_size::text AS safe, pg_wal_lsn_diff(
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn)::text AS held
  FROM pg_replication_slots WHERE slot_name = $1`;

/** Changes nothing. Throws SERVER_UNREACHABLE or BAD_SERVER. */
export async function askFacts(sql: Sql, slotName: string): Promise<ServerFacts> {
  const [row] = await sql.query<FactsRow>(FACTS, [SETTINGS]);
  const [slot] = await sql.query<SlotRow>(SLOT, [slotName]);
  const settings = new Map(Object.entries(row!.settings));
  return {
    versionText: settings.get('server_version') ?? 'unknown',
    isInRecovery: row!.in_recovery,
    user: row!.user_name,
    mayUseSlots: row!.may_use_slots,
    settings,
    slotsInUse: row!.slots,
    sendersInUse: row!.senders,
    isArchivingFailing: row!.archiving_fails,
    isStreaming: row!.streams,
    slot: slot ? slotFacts(slot) : null,
  };
}

const slotFacts = ({ slot_type, active, wal_status, held, safe }: SlotRow): SlotFacts => ({
  type: slot_type,
  isActive: active,
  walStatus: wal_status,
  heldBytes: Math.max(0, Number(held ?? 0)),
  safeBytes: safe === null ? null : Number(safe),
});
