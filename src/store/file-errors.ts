import { codeOf, isError, messageOf, ShipmateError, type Verdict } from '../errors.ts';

interface Meaning {
  readonly code: string;
  readonly verdict: Verdict;
  readonly hint: string;
}

const full: Meaning = {
  code: 'STORE_FULL',
  verdict: 'retry',
  hint: 'make room in the file system, or raise the quota; shipping goes on by itself',
};
const denied: Meaning = {
  code: 'STORE_DENIED',
  verdict: 'fatal',
  hint: 'the daemon needs to read and write there: check owner, mode, mount options and security policies',
};
const down: Meaning = {
  code: 'STORE_DOWN',
  verdict: 'retry',
  hint: 'mount it again; the directory is never created, so that a lost mount is not taken for an empty store',
};
const split: Meaning = {
  code: 'STORE_UNFIT',
  verdict: 'fatal',
  hint: 'all that is below the root must be one file system: mount at the root, not below it',
};
const failing: Meaning = {
  code: 'STORE_FAILED',
  verdict: 'retry',
  hint: "look at the file system's disk or server, and at the kernel's log",
};

const MEANINGS: Readonly<Record<string, Meaning>> = {
  ENOSPC: full,
  EDQUOT: full,
  EFBIG: full,
  EACCES: denied,
  EPERM: denied,
  EROFS: denied,
  EXDEV: split,
  ESTALE: down,
  ENOTCONN: down,
  ENODEV: down,
  ENXIO: down,
  EHOSTDOWN: down,
  EHOSTUNREACH: down,
  ETIMEDOUT: down,
};

/** Whether an error came from the operating system; all others are passed on as they are. */
export const isSystemError = (error: unknown) => isError(error) && 'errno' in error && 'syscall' in error;

/** What a file system's error means to a store, in the operator's words. */
export function fileStoreError(store: string, action: string, cause: unknown): ShipmateError {
  const meaning = MEANINGS[codeOf(cause) ?? ''] ?? failing;
  return new ShipmateError(`store ${store}: can't ${action}: ${messageOf(cause)}`, { ...meaning, cause });
}

export function rootGone(store: string, path: string, why: string, cause?: unknown): ShipmateError {
  return new ShipmateError(`store ${store}: ${path} ${why}`, { ...down, cause });
}

export function noHardLinks(store: string, path: string, cause: unknown): ShipmateError {
  return new ShipmateError(`store ${store}: the file system of ${path} has no hard links: ${messageOf(cause)}`, {
    code: 'STORE_UNFIT',
    hint: 'an object appears whole or not at all by link(2): use a file system that has it (not FAT, not every FUSE or SMB mount)',
    cause,
  });
}
