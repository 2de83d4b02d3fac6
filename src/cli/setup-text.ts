import type { Preparation } from '../setup/plan.ts';
import type { UnitPreparation } from '../setup/unit.ts';
import { printable } from './terminal.ts';
import { wrap } from './wrap.ts';

export interface SetupReport {
  /** Null: nothing was written. */
  readonly file: string | null;
  /** Where the config is that was there. */
  readonly kept: string | null;
  /** System user that the daemon runs as. */
  readonly user: string;
  readonly joins: boolean;
  /** Whether there is another host to set up. */
  readonly hasTwin: boolean;
  readonly preparations: readonly Preparation[];
  /** Null: the package's unit needs nothing. */
  readonly unit: UnitPreparation | null;
}

/** What was done, what an administrator has to run, and what comes then. Prose is at most `width` wide; what is typed stays whole. */
export function setupText(report: SetupReport, width: number): string {
  const { file, kept, user, joins, hasTwin, preparations, unit } = report;
  const written = file === null ? 'nothing was written' : `wrote ${file} (mode 0640)`;
  const at = file === null || file === '/etc/shipmate/shipmate.yaml' ? '' : ` -c ${file}`;
  return [
    kept === null ? written : `${written}; what was there is ${kept} now`,
    '',
    'First, as an administrator:',
    ...preparations.flatMap((one) => ['', ...preparationLines(one, { joins, width })]),
    ...(unit === null ? [] : ['', ...unitLines(unit)]),
    '',
    `Then, on this host, as ${user}, whom the daemon runs as:`,
    `  shipmate check${at}`,
    `  shipmate run --init${at}`,
    'or, where the package is installed: systemctl enable --now shipmate',
    ...(joins || !hasTwin ? [] : ['', 'On the other host, with a copy of this config: shipmate setup --join FILE']),
  ]
    .map(printable)
    .join('\n');
}

function preparationLines(
  { stream, client, sql, files, shell, notes }: Preparation,
  { joins, width }: { joins: boolean; width: number },
): string[] {
  const where = joins ? 'on the primary, if it was not done yet (it is replicated)' : 'on the primary';
  const lines = [
    ...notes.flatMap((note) => wrap(note, { width, first: '  !', rest: '    ' })),
    ...shell.map((line) => `  ${line}`),
    ...files.flatMap(({ file, lines: texts }) => [
      `  in ${file}, before all others:`,
      ...texts.map((text) => `    ${text}`),
    ]),
    ...(sql.length > 0 ? [`  ${where}, by`, `  ${client}`, ...sql.map((line) => `    ${line}`)] : []),
  ];
  return [`stream ${stream}:`, ...(lines.length > 0 ? lines : ['  nothing'])];
}

const unitLines = ({ file, lines, shell }: UnitPreparation): string[] => [
  'where the package is installed:',
  `  in ${file}:`,
  ...lines.map((line) => `    ${line}`),
  ...shell.map((line) => `  ${line}`),
];
