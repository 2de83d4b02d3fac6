import { setTimeout as delay } from 'node:timers/promises';
import { readControlFile } from './control-file.ts';
import { parseLsn } from './lsn.ts';
import type { Sql } from './sql.ts';
import { badServer } from './sql-errors.ts';
import { NEWEST_MAJOR } from './wal-page.ts';

/** What a server says of itself that stays the same for a connection's life. */
export interface Fitness {
  readonly systemId: string;
  readonly walSegmentBytes: number;
}

export interface Expected {
  /** The data directory that it should run on. */
  readonly dir: string;
  readonly stream: string;
}

interface Row {
  readonly version: number;
  readonly version_text: string;
  readonly system_id: string;
  readonly segment_bytes: string;
  readonly may_see: boolean;
  readonly written: string;
  readonly checkpoint: string;
}

const QUESTION = `
  SELECT current_setting('server_version_num')::int AS version, current_setting('server_version') AS version_text,
    system_identifier::text AS system_id, pg_size_bytes(current_setting('wal_segment_size'))::text AS segment_bytes,
    pg_has_role('pg_read_all_stats', 'USAGE') AS may_see,
    extract(epoch FROM pg_control_last_modified)::bigint::text AS written,
    (SELECT checkpoint_lsn::text FROM pg_control_checkpoint()) AS checkpoint
  FROM pg_control_system()`;

/** By major version the first minor release that is fit; older ones mistake a lost slot or their own timeline. */
const FIRST_FIT: Readonly<Record<number, number>> = { 13: 5, 14: 1 };
const LEAST_MAJOR = 13;

const COMPARE_TIMES = 10;
const COMPARE_EVERY_MS = 50;

/**
 * Asks whether the server is one to ask for its WAL: new enough, with the rights, and the very one that runs on the data
 * directory: another one's flushed LSN would have bytes shipped that a crash of this one takes back. Throws BAD_SERVER.
 */
export async function demandFit(sql: Sql, { dir, stream }: Expected): Promise<Fitness> {
  for (let times = 1; ; times++) {
    const [row] = await sql.query<Row>(QUESTION);
    const file = await readControlFile(dir);
    demandVersion(row!, stream);
    demandRights(row!, stream);
    if (row!.system_id !== file.systemId) {
      throw badServer(
        `stream ${stream}: "url:" leads to the cluster ${row!.system_id}, but ${dir} is of ${file.systemId}`,
        'make "url:" and "dir:" in the config name the same server',
      );
    }
    const isSame = Number(row!.written) === file.writtenSeconds && parseLsn(row!.checkpoint) === file.checkpoint;
    if (isSame) return { systemId: row!.system_id, walSegmentBytes: Number(row!.segment_bytes) };
    // It may have been written between the two looks.
    if (times === COMPARE_TIMES) {
      throw badServer(
        `stream ${stream}: "url:" leads to another server of the cluster than the one that runs on ${dir}`,
        'name this host\'s own server in "url:", by its socket: never an address that moves with the primary',
      );
    }
    await delay(COMPARE_EVERY_MS);
  }
}

/** Whether Shipmate works with a version such as 150018. */
export function isFitVersion(version: number): boolean {
  const major = Math.floor(version / 10_000);
  return major >= LEAST_MAJOR && major <= NEWEST_MAJOR && version % 10_000 >= (FIRST_FIT[major] ?? 0);
}

function demandVersion({ version, version_text }: Row, stream: string): void {
  if (isFitVersion(version)) return;
  if (version / 10_000 >= NEWEST_MAJOR + 1) {
    throw badServer(
      `stream ${stream}: the server is PostgreSQL ${version_text}, which is newer than this version of Shipmate can read`,
      'install a later version of Shipmate',
    );
  }
  throw badServer(
    `stream ${stream}: the server is PostgreSQL ${version_text}, which is too old`,
    'upgrade to 13.5, 14.1 or later',
  );
}

function demandRights({ may_see }: Row, stream: string): void {
  if (may_see) return;
  throw badServer(
    `stream ${stream}: the user of "url:" may not see what a standby has received`,
    'GRANT pg_monitor TO that user',
  );
}
