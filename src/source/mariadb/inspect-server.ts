import { redact } from '../../core/log.ts';
import { codeOf, messageOf } from '../../errors.ts';
import type { Finding } from '../source.ts';
import type { Flavour } from './gtid.ts';

const CONNECT_TIMEOUT_MS = 5000;
const MIN_KEEP_DAYS = 1;
const SECONDS_A_DAY = 86_400;
const REPLICATION = { mariadb: 'SHOW ALL SLAVES STATUS', mysql: 'SHOW REPLICA STATUS' } as const;

/** What a server says about itself: its variables by name, and whether it replicates from another. */
interface ServerFacts {
  readonly variables: ReadonlyMap<string, string>;
  /** What it replicates from, one entry a connection; null: the user may not see. */
  readonly replication: readonly unknown[] | null;
}

/** Asks the server what only SQL knows. Never shows the URL's password. */
export async function inspectServer({ url, flavour }: { url: string; flavour: Flavour }): Promise<Finding[]> {
  let facts: ServerFacts;
  try {
    facts = await ask(url, flavour);
  } catch (error) {
    return [
      {
        level: 'error',
        message: `can't ask the server at ${redact(url)}: ${redact(messageOf(error))}`,
        hint:
          codeOf(error) === 'ER_ACCESS_DENIED_ERROR'
            ? 'check the user and password in "url:" in the config'
            : 'check "url:" in the config, and that the server runs; shipping itself does not need it',
      },
    ];
  }
  const { variables, replication } = facts;
  return [
    ...binlogFindings(variables),
    ...durabilityFindings(variables),
    ...retentionFindings(variables),
    ...replicationFindings(variables, replication),
  ];
}

async function ask(url: string, flavour: Flavour): Promise<ServerFacts> {
  const { createConnection } = await import('mariadb');
  const connection = await createConnection(connectionOptions(url));
  try {
    const rows: { Variable_name: string; Value: string }[] = await connection.query('SHOW GLOBAL VARIABLES');
    const variables = new Map(rows.map((row) => [row.Variable_name.toLowerCase(), row.Value]));
    const replication: unknown[] | null = await connection.query(REPLICATION[flavour]).catch((error: unknown) => {
      if (codeOf(error) === 'ER_SPECIFIC_ACCESS_DENIED_ERROR') return null;
      throw error;
    });
    return { variables, replication };
  } finally {
    await connection.end();
  }
}

function connectionOptions(url: string) {
  const { hostname, port, username, password, searchParams } = new URL(url);
  const socketPath = searchParams.get('socket');
  return {
    user: decodeURIComponent(username),
    password: decodeURIComponent(password),
    ...(socketPath ? { socketPath } : { host: hostname || 'localhost', port: Number(port || 3306) }),
    connectTimeout: CONNECT_TIMEOUT_MS,
  };
}

type Variables = ReadonlyMap<string, string>;

const isOn = (variables: Variables, name: string) => ['ON', '1'].includes(variables.get(name)?.toUpperCase() ?? '');

function binlogFindings(variables: Variables): Finding[] {
  const findings: Finding[] = [];
  if (!isOn(variables, 'log_bin')) {
    findings.push({
      level: 'error',
      message: 'log_bin is off: the server writes no binlogs',
      hint: 'set log_bin and restart the server',
    });
  }
  if (isOn(variables, 'encrypt_binlog') || isOn(variables, 'binlog_encryption')) {
    findings.push({
      level: 'error',
      message: "the server encrypts its binlogs: they can't be read",
      hint: 'turn encrypt_binlog (MySQL: binlog_encryption) off; shipmate encrypts what it stores by itself ("encrypt:")',
    });
  }
  if (variables.get('server_id') === '1') {
    findings.push({
      level: 'warning',
      message: 'server_id is 1, the default: servers of a replication could be taken for each other',
      hint: 'give every server a server_id of its own',
    });
  }
  if (variables.get('binlog_checksum')?.toUpperCase() === 'NONE') {
    findings.push({
      level: 'warning',
      message: "binlog_checksum is NONE: damage on the database's disk would be shipped unseen",
      hint: 'set binlog_checksum = CRC32',
    });
  }
  return findings;
}

function durabilityFindings(variables: Variables): Finding[] {
  const sync = variables.get('sync_binlog') ?? 'unknown';
  if (sync === '1') return [{ level: 'ok', message: 'sync_binlog is 1' }];
  return [
    {
      level: 'warning',
      message: `sync_binlog is ${sync}: a power loss takes back commits that the server already reported`,
      hint: 'set sync_binlog = 1. Shipmate syncs what it reads before it ships, so the archive stays right either way',
    },
  ];
}

function retentionFindings(variables: Variables): Finding[] {
  const seconds = Number(variables.get('binlog_expire_logs_seconds') ?? 0);
  const days = seconds > 0 ? seconds / SECONDS_A_DAY : Number(variables.get('expire_logs_days') ?? 0);
  if (days === 0) return [{ level: 'ok', message: 'the server purges no binlogs by age' }];
  if (days >= MIN_KEEP_DAYS) return [{ level: 'ok', message: `the server purges binlogs after ${days} days` }];
  return [
    {
      level: 'warning',
      message: `the server purges binlogs after ${seconds} seconds: an outage longer than that leaves a gap in the archive`,
      hint: 'raise binlog_expire_logs_seconds to several days',
    },
  ];
}

function replicationFindings(variables: Variables, replication: ServerFacts['replication']): Finding[] {
  if (replication === null) {
    return [
      {
        level: 'warning',
        message: 'the user of "url:" may not see whether the server replicates from another',
        hint: 'GRANT REPLICA MONITOR (MariaDB) or REPLICATION CLIENT (MySQL) ON *.* to that user',
      },
    ];
  }
  if (replication.length === 0) {
    const state = isOn(variables, 'read_only') ? 'read-only' : 'writable';
    return [{ level: 'ok', message: `the server is ${state}, and replicates from no other` }];
  }
  // MySQL since 8.0.26 has the second name as well.
  const logsUpdates = isOn(variables, 'log_slave_updates') || isOn(variables, 'log_replica_updates');
  if (logsUpdates) return [{ level: 'ok', message: 'the server is a replica, and logs what it replicates' }];
  return [
    {
      level: 'error',
      message:
        'the server is a replica with log_slave_updates off: its binlogs lack what it replicates, so it can never take over',
      hint: 'set log_slave_updates = ON and restart the server',
    },
  ];
}
