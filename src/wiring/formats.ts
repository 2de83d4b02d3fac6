import type { StreamConfig } from '../config.ts';
import { filesFormat } from '../source/files/format.ts';
import { mariadbFormat } from '../source/mariadb/format.ts';
import { postgresFormat } from '../source/postgres/format.ts';
import type { LogFormat } from '../source/source.ts';

/**
 * How a stream's segments are cut and indexed; opens nothing, and asks nothing of the config that belongs to a host, for
 * that may stand in a variable which is not set here. MariaDB's and MySQL's binlogs have one format.
 */
export function logFormatOf({ source }: StreamConfig): LogFormat {
  if (source.type === 'postgres') return postgresFormat();
  if (source.type !== 'files') return mariadbFormat();
  const { layout, match, order, live, cut, settle: settleMs } = source;
  return filesFormat({ layout, match, order, live, cut, settleMs });
}
