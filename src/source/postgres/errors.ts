import { codeOf, messageOf, ShipmateError } from '../../errors.ts';

/** All may pass: whoever meets one tries again later, and nothing beyond what was shipped is touched. */
const failure = (code: string, message: string, hint: string, cause?: unknown) =>
  new ShipmateError(message, { code, hint, verdict: 'retry', cause });

export function unreadable(path: string, cause: unknown): ShipmateError {
  const hints: Record<string, string> = {
    ENOENT: '"dir:" in the config must name the data directory; check that the disk is mounted',
    ENOTDIR: '"dir:" in the config must name the data directory',
    EACCES: 'run shipmate as the user postgres, or in its group where the cluster was made with "initdb -g"',
  };
  const hint = hints[codeOf(cause) ?? ''] ?? 'look at the disk and the system log';
  return failure('SOURCE_UNREADABLE', `can't read ${path}: ${messageOf(cause)}`, hint, cause);
}

export const noHistory = (path: string, cause: unknown) =>
  failure(
    'SOURCE_NO_HISTORY',
    `can't tell what the server's timeline descends from: ${path}: ${messageOf(cause)}`,
    'put the history file into pg_wal: another server of the cluster or the archive has it',
    cause,
  );

export const corrupt = (path: string, offset: number, what: string) =>
  failure(
    'SOURCE_CORRUPT',
    `the WAL segment ${path} is not as it should be at offset ${offset}: ${what}`,
    'nothing from there on is shipped. See that "dir:" and "url:" mean the same server; look at it with pg_waldump, check the disk',
  );

export const noWal = (dir: string) =>
  failure(
    'SOURCE_NO_WAL',
    `the segment that the server writes is not in ${dir}`,
    'see that "dir:" and "url:" in the config mean the same server',
  );

export const otherHistory = (id: string) =>
  failure(
    'SOURCE_OTHER_HISTORY',
    `${id} is not part of this server's history`,
    'its timelines have left those of the archive: see what "shipmate status" says of this twin',
  );
