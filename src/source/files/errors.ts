import { codeOf, Discontinuity, messageOf, ShipmateError } from '../../errors.ts';

/** All may pass: whoever meets one tries again later. */
const failure = (code: string, message: string, hint: string, cause?: unknown) =>
  new ShipmateError(message, { code, hint, verdict: 'retry', cause });

const HINTS: Record<string, string> = {
  ENOENT: 'check "dir:" in the config, and that the disk is mounted',
  ENOTDIR: '"dir:" in the config must name the directory that holds the files',
  EACCES: 'let the user who runs shipmate read the directory and its files: docs/files.md says how',
};

export const unreadable = (path: string, cause: unknown) =>
  failure(
    'SOURCE_UNREADABLE',
    `can't read ${path}: ${messageOf(cause)}`,
    HINTS[codeOf(cause) ?? ''] ?? 'look at the disk and the system log',
    cause,
  );

export const badName = (path: string) =>
  failure('SOURCE_UNREADABLE', `the name of ${path} is not UTF-8`, 'rename the file, or leave it out of "match:"');

export const unsteady = (dir: string) =>
  failure(
    'SOURCE_UNSTEADY',
    `the names in ${dir} change faster than they can be read`,
    'find out what renames files there again and again',
  );

export const badManifest = (path: string) =>
  failure('SOURCE_BAD_MANIFEST', `the manifest ${path} can't be understood`, 'compare it with what Redis 7 writes');

export const severalManifests = (dir: string, names: readonly string[]) =>
  failure(
    'SOURCE_BAD_MANIFEST',
    `several manifests in ${dir}: ${names.join(', ')}`,
    'one Redis writes one; move those of others away',
  );

/** Bytes that came when others behind them were shipped already: the chain can't go back to them. */
export function late(path: string, { from, size }: { from: number; size: number }): ShipmateError {
  const what =
    from === 0
      ? `${path} appeared before a file that was being shipped already`
      : `${path} grew by ${size - from} bytes after it had ended`;
  const saved = from === 0 ? path : `what follows byte ${from} of ${path}`;
  return failure(
    'SOURCE_LATE_BYTES',
    `${what}: these bytes are not in the archive`,
    `keep ${saved} by hand, then move that file out of what "match:" matches: shipping goes on. ` +
      'If writers go on with the old file for long after a rotation, raise "settle:"',
  );
}

/** Names that rotation gave and that sort in another order than that of time: the archive would get the log in that order. */
export const misordered = (path: string, next: string) =>
  failure(
    'SOURCE_MISORDERED',
    `${next} comes after ${path} by its name, but was written before it`,
    'let rotation give names that sort in the order of time, as logrotate\'s "dateformat -%Y%m%d" does, and rename the ' +
      'files that are there: shipping goes on',
  );

export const COPYTRUNCATE =
  'if logrotate does it, replace "copytruncate" by "create" and let the writer open its file anew: what is written ' +
  'between copying and truncating is lost to everybody';

export const shrunk = (path: string, { size, offset }: { size: number; offset: number }) =>
  new Discontinuity(
    `${path} was shortened in place to ${size} bytes, of which ${offset} were read: bytes may be lost`,
    COPYTRUNCATE,
  );
