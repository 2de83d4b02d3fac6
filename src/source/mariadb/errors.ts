import { codeOf, messageOf, ShipmateError } from '../../errors.ts';
import type { Flavour } from './gtid.ts';

/** All may pass: whoever meets one tries again later, and nothing beyond what was shipped is touched. */
const failure = (code: string, message: string, hint: string, cause?: unknown) =>
  new ShipmateError(message, { code, hint, verdict: 'retry', cause });

export function unreadable(path: string, cause: unknown): ShipmateError {
  const hints: Record<string, string> = {
    ENOENT: 'check "dir:" and "index:" in the config, and that the disk is mounted',
    ENOTDIR: '"dir:" in the config must name the directory that holds the binlogs',
    EACCES:
      "run shipmate as the database's user, or add its user to the group that may read the directory and its files",
  };
  const hint = hints[codeOf(cause) ?? ''] ?? 'look at the disk and the system log';
  return failure('SOURCE_UNREADABLE', `can't read ${path}: ${messageOf(cause)}`, hint, cause);
}

export const noIndex = (dir: string, found: string) =>
  failure(
    'SOURCE_NO_INDEX',
    `no binlog index in ${dir}: ${found}`,
    'turn binary logging on (log_bin), or name the index file with "index:" in the config',
  );

export const ambiguousIndex = (dir: string, names: readonly string[]) =>
  failure(
    'SOURCE_INDEX_AMBIGUOUS',
    `several binlog indexes in ${dir}: ${names.join(', ')}`,
    'say which one the server writes now with "index:" in the config',
  );

export const badIndex = (path: string, line: string) =>
  failure(
    'SOURCE_BAD_INDEX',
    `the index ${path} can't be understood at "${line}"`,
    'it should list one binlog a line, oldest first; compare it with SHOW BINARY LOGS',
  );

export const isRelayLog = (path: string) =>
  failure(
    'SOURCE_NO_INDEX',
    `${path} is a relay log, not a binlog`,
    'name the index of the server\'s own binlogs with "index:" in the config',
  );

export const encrypted = (path: string) =>
  failure(
    'SOURCE_ENCRYPTED',
    `the binlog ${path} is encrypted by the server: only lengths can be read`,
    'turn encrypt_binlog (MySQL: binlog_encryption) off; shipmate encrypts what it stores by itself ("encrypt:")',
  );

export const ofOtherType = (path: string, writer: Flavour, configured: Flavour) =>
  failure(
    'SOURCE_OTHER_TYPE',
    `the binlog ${path} was written by ${NAMES[writer]}, but the config says "type: ${configured}"`,
    `say "type: ${writer}" in the config; on a server that was migrated, purge the binlogs of before`,
  );

const NAMES = { mariadb: 'MariaDB', mysql: 'MySQL' } as const;

export const corrupt = (path: string, offset: number, what: string) =>
  failure(
    'SOURCE_CORRUPT',
    `the binlog ${path} is damaged at offset ${offset}: ${what}`,
    'nothing from there on is shipped. Look at it with mariadb-binlog --verify-binlog-checksum, check the disk; once the ' +
      'file is mended or restored shipping goes on by itself',
  );
