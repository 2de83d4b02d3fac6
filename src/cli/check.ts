import type { Command } from 'commander';
import { countText } from '../core/format.ts';
import { ShipmateError } from '../errors.ts';
import type { About } from '../inspect.ts';
import { readConfig } from './config-file.ts';
import { addHelp } from './help.ts';
import { leftHanging } from './leave.ts';
import { styled } from './table.ts';
import { MARKS, print, printJson, viewOf } from './terminal.ts';
import { wrap } from './wrap.ts';

export function defineCheck(command: Command): void {
  addHelp(command, {
    notes: [
      'Changes nothing but one probe object in each store. As the user that the daemon runs as it finds the most: run it where, and as whom, the daemon will run. Exit code 1: an error was found; warnings alone end with 0.',
    ],
    examples: [
      'sudo -u shipmate shipmate check',
      'shipmate check --json | jq \'.findings[] | select(.level != "ok")\'',
    ],
  });
  command.option('--json', 'print JSON').action(async ({ json = false }: { json?: boolean }) => {
    const config = await readConfig(command);
    const { inspect } = await import('../inspect.ts');
    const findings = await inspect(config);
    leftHanging(); // what gave no answer may hold a thread
    const { colour, width } = viewOf();
    if (json) printJson({ findings });
    else print(findingsText(findings, { colour, width: process.stdout.isTTY ? width : Number.POSITIVE_INFINITY }));
    const errors = findings.filter(({ level }) => level === 'error').length;
    if (errors > 0) {
      throw new ShipmateError(`${errors} of ${findings.length} checks found what would go wrong`, {
        code: 'CHECK_FAILED',
        hint: 'each error above says what to do',
      });
    }
  });
}

/** For a terminal: by subject, each finding with what to do; last how many there are of each level. */
export function findingsText(
  findings: readonly About[],
  options: { readonly width: number; readonly colour: boolean },
): string {
  const count = (level: About['level']) => findings.filter((finding) => finding.level === level).length;
  const sums = [countText(count('error'), 'error'), countText(count('warning'), 'warning'), `${count('ok')} ok`];
  const bySubject = Map.groupBy(findings, ({ about }) => about);
  return [
    ...[...bySubject].flatMap(([about, found]) => [
      styled('bold', about, options),
      ...found.flatMap((finding) => findingLines(finding, options)),
    ]),
    '',
    sums.join(', '),
  ].join('\n');
}

function findingLines({ level, message, hint }: About, options: { width: number; colour: boolean }): string[] {
  const { style, text } = MARKS[level];
  const [first, rest] = [`  ${text}`, ' '.repeat(2 + text.length)];
  const [line = '', ...lines] = wrap(message, { ...options, first, rest });
  const hints = hint === undefined ? [] : wrap(hint, { ...options, first: `${rest}→`, rest: `${rest}  ` });
  return [`  ${styled(style, text, options)}${line.slice(first.length)}`, ...lines, ...hints];
}
