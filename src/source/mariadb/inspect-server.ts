import { redact } from '../../core/log.ts';
import { codeOf, messageOf } from '../../errors.ts';
import type { Backlog, Finding, Retention } from '../source.ts';
import type { Flavour } from './gtid.ts';
import { binlogBase, binlogNumber } from './index-file.ts';
import type { Newest } from './inspect.ts';
import { replicationFindings } from './inspect-replication.ts';
import { askServer, isOn, type ServerFacts } from './server-facts.ts';

const MIN_KEEP_DAYS = 1;
const SECONDS_A_DAY = 86_400;
/** Of what the server keeps, so much may be taken by what is not shipped before an operator is warned. */
const KEEP_SHARE = 0.5;

export interface InspectOptions {
  readonly url: string;
  readonly flavour: Flavour;
  /** What this twin would still have to ship if it took over now; null: not known. */
  readonly backlog: Backlog | null;
  /** The newest binlog here, whenever it is asked for; null: not known. */
  newest(): Promise<Newest | null>;
}

/** Asks the server what only SQL knows. Never shows the URL's password. */
export async function inspectServer({ url, flavour, backlog, newest }: InspectOptions): Promise<Finding[]> {
  const before = await newest();
  let facts: ServerFacts;
  try {
    facts = await askServer(url, flavour);
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
  const after = await newest();
  const asked = `${flavour}-${facts.variables.get('server_id')}`;
  if (after !== null && after.writtenBy !== asked) return [otherServer(url, asked, after.writtenBy)];
  return [
    ...elsewhereFindings(facts, before, after),
    ...binlogFindings(facts),
    ...durabilityFindings(facts.variables),
    ...retentionFindings(facts, backlog),
    ...replicationFindings(facts),
  ];
}

/** What it says of itself is then nothing about the log that is read here. */
const otherServer = (url: string, asked: string, writtenBy: string): Finding => ({
  level: 'error',
  message: `the server at ${redact(url)} is ${asked}, but the newest binlog here was written by ${writtenBy}`,
  hint:
    'let "url:" lead to the server whose binlogs are in "dir:", by its socket: never to an address that moves with the ' +
    'primary. If its server_id was changed just now: FLUSH BINARY LOGS',
});

/** A server whose log_bin was changed and that was restarted leaves its old binlogs behind as if it were merely idle. */
function elsewhereFindings({ binlog }: ServerFacts, before: Newest | null, after: Newest | null): Finding[] {
  if (binlog === null || before === null || after === null) return [];
  const number = binlogNumber(binlog.file);
  // It may have begun a new one while it was asked.
  const isBetween = binlogNumber(before.name) <= number && number <= binlogNumber(after.name);
  if (binlog.file === before.name || (isBetween && binlogBase(binlog.file) === binlogBase(after.name))) return [];
  return [
    {
      level: 'error',
      message: `the server writes ${binlog.file} now, but the newest binlog here is ${after.name}: nothing new is shipped`,
      hint: 'let "dir:" and "index:" in the config lead to where it writes: SHOW VARIABLES LIKE \'log_bin%\'',
    },
  ];
}

type Variables = ServerFacts['variables'];

function binlogFindings({ variables, binlog }: ServerFacts): Finding[] {
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
  if (binlog !== null && binlog.filters.length > 0) {
    findings.push({
      level: 'error',
      message: `the binlogs leave databases out (${binlog.filters.join(', ')}): what they hold is in no archive`,
      hint: 'take binlog_do_db and binlog_ignore_db out of the configuration and restart the server',
    });
  }
  if (variables.get('binlog_format')?.toUpperCase() === 'STATEMENT') {
    findings.push({
      level: 'warning',
      message: 'binlog_format is STATEMENT: what depends on time or order gives other rows when it is replayed',
      hint: 'SET GLOBAL binlog_format = MIXED (or ROW), and in the configuration',
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

/** What the server is set to purge, whatever has become of it. Throws where it can't be asked. */
export async function askRetention(url: string, flavour: Flavour): Promise<Retention> {
  const { variables } = await askServer(url, flavour);
  return { bytes: totalBytes(variables) || null, seconds: retention(variables).seconds || null };
}

/** Purging by age and by size, against what a take-over would need now: what is not shipped, what a replica lacks. */
function retentionFindings({ variables, replication }: ServerFacts, backlog: Backlog | null): Finding[] {
  const findings: Finding[] = [];
  const { seconds, days } = retention(variables);
  if (days === 0) findings.push({ level: 'ok', message: 'the server purges no binlogs by age' });
  else if (days >= MIN_KEEP_DAYS) {
    findings.push({ level: 'ok', message: `the server purges binlogs after ${days} days` });
  } else {
    findings.push({
      level: 'warning',
      message: `the server purges binlogs after ${seconds} seconds: an outage longer than that leaves a gap in the archive`,
      hint: KEEP_LONGER,
    });
  }
  const neededSeconds = Math.max(
    backlog?.oldestMs ? (Date.now() - backlog.oldestMs) / 1000 : 0,
    ...(replication ?? []).map(({ behindSeconds }) => behindSeconds ?? 0),
  );
  if (seconds > 0 && neededSeconds > seconds * KEEP_SHARE) {
    findings.push({
      level: 'error',
      message:
        `binlogs are purged after ${Math.round(seconds)} seconds, but a take-over now would need those of the last ` +
        `${Math.round(neededSeconds)}: soon they are gone, and the archive has a gap`,
      hint: KEEP_LONGER,
    });
  }
  const keptBytes = totalBytes(variables);
  if (keptBytes > 0 && backlog !== null && backlog.bytes > keptBytes * KEEP_SHARE) {
    findings.push({
      level: 'error',
      message: `the server keeps ${keptBytes} bytes of binlogs, and ${backlog.bytes} are not shipped: soon there is a gap`,
      hint: 'SET GLOBAL max_binlog_total_size to several times that, and in the configuration',
    });
  }
  return findings;
}

const KEEP_LONGER = 'SET GLOBAL binlog_expire_logs_seconds = 604800 (a week), and in the configuration';

/** 0: no limit. */
const totalBytes = (variables: Variables) => Number(variables.get('max_binlog_total_size') ?? 0);

function retention(variables: Variables): { seconds: number; days: number } {
  const seconds = Number(variables.get('binlog_expire_logs_seconds') ?? 0);
  const days = seconds > 0 ? seconds / SECONDS_A_DAY : Number(variables.get('expire_logs_days') ?? 0);
  return { seconds: days * SECONDS_A_DAY, days };
}
