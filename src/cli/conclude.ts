import { ArchiveNotWhole } from '../errors.ts';
import { tellError } from './terminal.ts';

/**
 * After all streams were looked at: tells of every failure, and throws the one that decides the exit code. That an archive is
 * not whole weighs more than that one could not be read.
 */
export function conclude(failures: readonly unknown[]): void {
  const worst = failures.find((error) => error instanceof ArchiveNotWhole) ?? failures[0];
  for (const error of failures) if (error !== worst) tellError(error);
  if (worst !== undefined) throw worst;
}
