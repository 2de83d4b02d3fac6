import type { Preparation } from '../setup/plan.ts';
import { printable } from './terminal.ts';

export interface SetupReport {
  /** Null: nothing was written. */
  readonly file: string | null;
  /** Where the config is that was there. */
  readonly kept: string | null;
  /** System user that the daemon runs as. */
  readonly user: string;
  readonly joins: boolean;
  readonly preparations: readonly Preparation[];
}

/** What was done, what an administrator has to run, and what comes then. */
export function setupText({ file, kept, user, joins, preparations }: SetupReport): string {
  const written = file === null ? 'nothing was written' : `wrote ${file} (mode 0640)`;
  const at = file === null || file === '/etc/shipmate/shipmate.yaml' ? '' : ` -c ${file}`;
  return [
    kept === null ? written : `${written}; what was there is ${kept} now`,
    `the daemon runs as ${user}`,
    '',
    'First, as an administrator:',
    ...preparations.flatMap((one) => preparationLines(one, joins)),
    '',
    'Then, on this host:',
    `  shipmate check${at}          # as ${user}: what is missing, and what to run`,
    `  shipmate run --init${at}     # or, where the package is installed: systemctl enable --now shipmate`,
    ...(joins ? [] : ['and on the other host, with a copy of this config:', '  shipmate setup --join FILE']),
  ]
    .map(printable)
    .join('\n');
}

function preparationLines({ stream, client, sql, files, shell, notes }: Preparation, joins: boolean): string[] {
  const where = joins ? 'on the primary, if it is not there yet: servers replicate it' : 'on the primary';
  const lines = [
    ...notes.map((note) => `  ! ${note}`),
    ...shell.map((line) => `  ${line}`),
    ...files.flatMap(({ file, lines: texts }) => [
      `  in ${file}, before all others:`,
      ...texts.map((text) => `    ${text}`),
    ]),
    ...(sql.length > 0 ? [`  ${client}     # ${where}`, ...sql.map((line) => `    ${line}`)] : []),
  ];
  return [`stream ${stream}:`, ...(lines.length > 0 ? lines : ['  nothing'])];
}
