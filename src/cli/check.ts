import { styleText } from 'node:util';
import type { Command } from 'commander';
import { ShipmateError } from '../errors.ts';
import type { About } from '../inspect.ts';
import { readConfig } from './config-file.ts';
import { addHelp } from './help.ts';
import { leftHanging } from './leave.ts';
import { print, printable, printJson } from './terminal.ts';

const MARKS = { ok: ['green', 'ok     '], warning: ['yellow', 'warning'], error: ['red', 'error  '] } as const;

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
    if (json) printJson({ findings });
    else for (const finding of findings) print(lineOf(finding));
    const errors = findings.filter(({ level }) => level === 'error').length;
    if (errors > 0) {
      throw new ShipmateError(`${errors} of ${findings.length} checks found what would go wrong`, {
        code: 'CHECK_FAILED',
        hint: 'each error above says what to do',
      });
    }
  });
}

function lineOf({ level, about, message, hint }: About): string {
  const [colour, mark] = MARKS[level];
  const shown = process.stdout.hasColors?.() ? styleText(colour, mark) : mark;
  return printable(`${shown} ${about}: ${message}`) + (hint === undefined ? '' : `\n        ${printable(hint)}`);
}
