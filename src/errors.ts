import { types } from 'node:util';

/**
 * What a failure means to the loop that meets it: `retry` may pass by itself, `fatal` needs an operator, `deposed` says
 * that another daemon owns the stream's next term.
 */
export type Verdict = 'retry' | 'fatal' | 'deposed';

export interface ErrorDetails {
  /** Stable, upper-case, for alerts and tests: `STORE_UNREACHABLE`. */
  code: string;
  /** What the operator should do; one sentence or two. */
  hint?: string | undefined;
  verdict?: Verdict;
  cause?: unknown;
}

/** Every failure that Shipmate itself reports: what happened (message), what to do (hint), what it means (verdict). */
export class ShipmateError extends Error {
  override readonly name: string = 'ShipmateError';
  readonly code: string;
  readonly hint: string | undefined;
  readonly verdict: Verdict;

  constructor(message: string, { code, hint, verdict = 'fatal', cause }: ErrorDetails) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.hint = hint;
    this.verdict = verdict;
  }
}

/** Wrong command line or config: exit code 2. */
export class UsageError extends ShipmateError {
  override readonly name = 'UsageError';
  constructor(message: string, hint?: string) {
    super(message, { code: 'USAGE', hint });
  }
}

/** The archive has a gap or is damaged: exit code 3. */
export class ArchiveNotWhole extends ShipmateError {
  override readonly name = 'ArchiveNotWhole';
  constructor(message: string, hint?: string) {
    super(message, { code: 'ARCHIVE_NOT_WHOLE', hint });
  }
}

/** Proof that the archive holds nothing of a file that was asked for: exit code 1 of `fetch`, by way of its launcher. */
export class NotInArchive extends ShipmateError {
  override readonly name = 'NotInArchive';
  constructor(message: string, hint?: string) {
    super(message, { code: 'NOT_IN_ARCHIVE', hint });
  }
}

/** Proof that another daemon owns the stream now: a seal or a stranger's object in our slot, or our leader key gone. */
export class Deposed extends ShipmateError {
  override readonly name = 'Deposed';
  constructor(message: string, cause?: unknown) {
    super(message, { code: 'DEPOSED', verdict: 'deposed', cause });
  }
}

/**
 * The source's bytes no longer go on from where they were read (RESET MASTER, a file that shrank, a purge): the term
 * ends, and the next opening says what happened (protocol rule 8).
 */
export class Discontinuity extends ShipmateError {
  override readonly name = 'Discontinuity';
  constructor(message: string, hint?: string) {
    super(message, { code: 'DISCONTINUITY', hint, verdict: 'retry' });
  }
}

/** Unlike `instanceof` it also knows errors of another realm: Node's own, in tests that run in a context of their own. */
export const isError = (value: unknown): value is Error => types.isNativeError(value);

export function messageOf(error: unknown): string {
  return isError(error) ? error.message : String(error);
}

/** Node's error code (`ENOENT`), or undefined. */
export function codeOf(error: unknown): string | undefined {
  return isError(error) && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** The reason of an aborted signal, as an Error that can be thrown. */
export function abortReason(signal: AbortSignal): Error {
  return isError(signal.reason) ? signal.reason : new Error('aborted', { cause: signal.reason });
}
