import type { Log, LogFields, LogLevel } from '../../src/core/log.ts';

export interface Line {
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: LogFields;
}

/** A log that keeps its lines for the test to look at. */
export function recordedLog(): Log & { readonly lines: readonly Line[] } {
  const lines: Line[] = [];
  const keep =
    (level: LogLevel) =>
    (message: string, fields: LogFields = {}) => {
      lines.push({ level, message, fields });
    };
  return { lines, debug: keep('debug'), info: keep('info'), warn: keep('warn'), error: keep('error') };
}
