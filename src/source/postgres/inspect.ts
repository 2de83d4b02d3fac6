import { constants } from 'node:fs';
import { access, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf, ShipmateError } from '../../errors.ts';
import type { Finding, Retention } from '../source.ts';
import { unreadable } from './errors.ts';
import { demandFit } from './fitness.ts';
import { slotFindings } from './inspect-slot.ts';
import { askFacts, type ServerFacts, type SlotFacts } from './server-facts.ts';
import { Connection } from './sql.ts';
import { parseWalName } from './wal-name.ts';

export interface InspectionOptions {
  readonly url: string;
  /** The data directory. */
  readonly dir: string;
  readonly slotName: string;
  /** For messages. */
  readonly stream: string;
}

/** What an operator should know or mend, each with what to run; on a connection of its own, and without any effect. */
export async function inspectPostgres(options: InspectionOptions): Promise<Finding[]> {
  const connection = new Connection(options);
  try {
    return [...(await filesFindings(options)), ...(await serverFindings(connection, options))];
  } finally {
    await connection.close();
  }
}

/** How much WAL the stream's slot may hold. Throws where the server can't be asked. */
export async function askRetention(options: InspectionOptions): Promise<Retention> {
  const connection = new Connection(options);
  try {
    const { slot } = await askFacts(connection, options.slotName);
    return { bytes: slot && slotLimit(slot), seconds: null };
  } finally {
    await connection.close();
  }
}

/** Null: no limit but the disk. */
function slotLimit({ walStatus, heldBytes, safeBytes }: SlotFacts): number | null {
  if (walStatus === 'lost') return 0;
  return safeBytes === null ? null : heldBytes + Math.max(0, safeBytes);
}

async function serverFindings(connection: Connection, options: InspectionOptions): Promise<Finding[]> {
  try {
    const { systemId } = await demandFit(connection, options);
    const facts = await askFacts(connection, options.slotName);
    return [
      roleFinding(facts, systemId),
      ...walFindings(facts),
      ...slotFindings(facts, options.slotName),
      ...standbyFindings(facts),
      ...archivingFindings(facts),
      ...safetyFindings(facts),
    ];
  } catch (error) {
    return [failed(error)];
  }
}

/** Whether the WAL itself can be read, which the rights of a group allow only where the cluster was made so. */
async function filesFindings({ dir }: InspectionOptions): Promise<Finding[]> {
  const walDir = join(dir, 'pg_wal');
  try {
    const names = await readdir(walDir).catch((cause: unknown) => {
      throw unreadable(walDir, cause);
    });
    const segments = names.filter((name) => parseWalName(name)?.kind === 'segment').sort();
    const newest = join(walDir, segments.at(-1) ?? '');
    await access(newest, constants.R_OK).catch((cause: unknown) => {
      throw unreadable(newest, cause);
    });
    return [{ level: 'ok', message: `${segments.length} WAL segments in ${walDir} can be read` }];
  } catch (error) {
    return [failed(error)];
  }
}

function failed(error: unknown): Finding {
  const hint = error instanceof ShipmateError ? error.hint : undefined;
  return { level: 'error', message: messageOf(error), ...(hint !== undefined && { hint }) };
}

function roleFinding({ versionText, isInRecovery, user }: ServerFacts, systemId: string): Finding {
  const role = isInRecovery ? 'a standby' : 'a primary';
  return { level: 'ok', message: `PostgreSQL ${versionText}, ${role} of the cluster ${systemId}, answers ${user}` };
}

function walFindings({ settings, sendersInUse }: ServerFacts): Finding[] {
  const level = settings.get('wal_level') ?? 'unknown';
  const findings: Finding[] = [
    level === 'minimal'
      ? {
          level: 'error',
          message: 'wal_level is minimal: the WAL lacks what a base backup needs to recover by it',
          hint: "ALTER SYSTEM SET wal_level = 'replica', restart the server, and take a new base backup",
        }
      : { level: 'ok', message: `wal_level is ${level}` },
  ];
  const senders = Number(settings.get('max_wal_senders'));
  if (sendersInUse >= senders) {
    findings.push({
      level: 'warning',
      message: `${sendersInUse} of ${senders} WAL senders are in use: neither a standby nor pg_basebackup can connect`,
      hint: 'ALTER SYSTEM SET max_wal_senders = 10 (or more), and restart the server',
    });
  }
  return findings;
}

/** What a standby's twin needs to take over, and what this server will need when it is a standby. */
function standbyFindings({ settings, isInRecovery, isStreaming }: ServerFacts): Finding[] {
  const findings: Finding[] = [];
  if (isInRecovery && !isStreaming) {
    findings.push({
      level: 'warning',
      message: 'the server is a standby that receives no WAL now: its twin falls behind',
      hint: 'look at its log, at primary_conninfo, and on the primary at pg_stat_replication',
    });
  }
  const target = settings.get('recovery_target_timeline') ?? 'latest';
  if (isInRecovery && target !== 'latest') {
    findings.push({
      level: 'warning',
      message: `recovery_target_timeline is ${target}: this standby will not follow its primary's successor`,
      hint: "ALTER SYSTEM SET recovery_target_timeline = 'latest', and restart the standby",
    });
  }
  if (settings.get('hot_standby') === 'off') {
    findings.push({
      level: 'warning',
      message: 'hot_standby is off: as a standby this server answers no question, and its twin is never ready',
      hint: 'ALTER SYSTEM SET hot_standby = on, and restart the server',
    });
  }
  if (settings.get('data_checksums') === 'off' && settings.get('wal_log_hints') === 'off') {
    findings.push({
      level: 'warning',
      message: 'wal_log_hints and data checksums are off: after a failover pg_rewind can not bring this server back',
      hint: 'ALTER SYSTEM SET wal_log_hints = on, and restart the server; without it a new base backup is the way back',
    });
  }
  return findings;
}

/** Shipmate needs no archive_command; one that is there may hold WAL up, or fill the disk. */
function archivingFindings({ settings, isArchivingFailing }: ServerFacts): Finding[] {
  if ((settings.get('archive_mode') ?? 'off') === 'off') return [];
  const command = settings.get('archive_command') ?? '';
  const library = settings.get('archive_library') ?? '';
  if (isArchivingFailing) {
    return [
      {
        level: 'warning',
        message: 'archiving fails: the server keeps all WAL until it succeeds',
        hint: 'look at pg_stat_archiver and at its log; mend archive_command, or turn archive_mode off: shipmate needs neither',
      },
    ];
  }
  if (command === '' && library === '') {
    return [
      {
        level: 'warning',
        message: 'archive_mode is on without an archive_command: the server keeps all WAL until its disk is full',
        hint: "ALTER SYSTEM SET archive_mode = off, and restart the server: shipmate needs none; or archive_command = 'shipmate push %p'",
      },
    ];
  }
  return [{ level: 'ok', message: 'archiving is on, and succeeds' }];
}

function safetyFindings({ settings }: ServerFacts): Finding[] {
  const findings: Finding[] = [];
  if (settings.get('fsync') === 'off') {
    findings.push({
      level: 'warning',
      message: 'fsync is off: a crash of the host may take back WAL that the server calls flushed, and that is shipped',
      hint: 'ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf()',
    });
  }
  if (settings.get('full_page_writes') === 'off') {
    findings.push({
      level: 'warning',
      message: 'full_page_writes is off: recovery can not mend pages that were torn by a crash or by a base backup',
      hint: 'ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf()',
    });
  }
  return findings;
}
