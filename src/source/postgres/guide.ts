import { join } from 'node:path';
import type { Restored, Until } from '../source.ts';
import { parseTarget } from './cutter.ts';
import { lsnText } from './lsn.ts';
import { parseWalName } from './wal-name.ts';

const NAME = 'recovery-settings.conf';

/** The settings with which PostgreSQL recovers from a restored directory, and how to use them. */
export function recoveryGuide({ stream, directory, runs, until }: Restored): { name: string; content: string } {
  const last = parseWalName(runs.at(-1)?.segments.at(-1) ?? '');
  const settings = [
    `restore_command = ${quoted(`cp ${forShell(directory)}/%f "%p"`)}`,
    ...(last ? [`recovery_target_timeline = '${last.timeline}'`] : []),
    ...targetOf(until),
  ];
  return { name: NAME, content: `${[...usage(stream, join(directory, NAME), until), '', ...settings].join('\n')}\n` };
}

function targetOf(until: Until): string[] {
  if (until.kind === 'latest') return [];
  const target =
    until.kind === 'time'
      ? `recovery_target_time = '${new Date(until.ms).toISOString().replace('T', ' ').replace('Z', '+00')}'`
      : `recovery_target_lsn = '${lsnText(parseTarget(until.id).lsn)}'`;
  return [target, 'recovery_target_inclusive = on'];
}

function usage(stream: string, path: string, until: Until): string[] {
  const after =
    until.kind === 'latest'
      ? ['#  5. It recovers to the end of what was restored, and then takes writes on a new timeline.']
      : [
          '#  5. It recovers to the target, and waits there, readable (recovery_target_action = pause). Look, and then:',
          '#       SELECT pg_wal_replay_resume();   -- it takes writes on a new timeline',
        ];
  return [
    `# How PostgreSQL recovers stream ${stream} from this directory; the server's user must be able to read it.`,
    '#',
    '#  1. Put a base backup, of the same cluster and from before the target, into an empty data directory, $PGDATA.',
    '#  2. Empty $PGDATA/pg_wal: what a copied server left there may belong to another end than this one.',
    '#  3. Let its configuration end with this file:',
    `#       echo "include ${escaped(quoted(path))}" >>"$PGDATA/postgresql.conf"`,
    '#     and no other recovery setting in postgresql.auto.conf, which would come after it.',
    '#  4. touch "$PGDATA/recovery.signal" and start the server.',
    ...after,
    '#  6. Take the include out again.',
  ];
}

/** For the shell that PostgreSQL starts, in a setting where a percent sign begins a placeholder. */
const forShell = (path: string) => `'${path.replaceAll("'", "'\\''")}'`.replaceAll('%', '%%');

/** A string of a configuration file. */
const quoted = (text: string) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "''").replaceAll('\n', '\\n')}'`;

/** Inside double quotes of a shell. */
const escaped = (text: string) => text.replaceAll(/[\\"$`]/g, '\\$&');
