import { fstatSync } from 'node:fs';
import type { LogLevel } from './core/log.ts';

const STDERR = 2;

/** Whether what is written to stderr goes to systemd's journal: JOURNAL_STREAM names the very device and inode. */
export function stderrIsJournal(environment: NodeJS.ProcessEnv = process.env): boolean {
  const { JOURNAL_STREAM: stream } = environment;
  if (!stream) return false;
  try {
    const { dev, ino } = fstatSync(STDERR, { bigint: true });
    return stream === `${dev}:${ino}`;
  } catch {
    return false; // it is closed
  }
}

const PRIORITIES: Readonly<Record<LogLevel, number>> = { error: 3, warn: 4, info: 6, debug: 7 };

/** What begins a line for the journal, by which `journalctl -p warning` finds it (sd-daemon(3)). */
export const priorityPrefix = (level: LogLevel) => `<${PRIORITIES[level]}>`;
