import { createInterface } from 'node:readline/promises';
import { inspect } from 'node:util';
import { redact } from '../core/log.ts';
import { messageOf, ShipmateError, UsageError } from '../errors.ts';
import { priorityPrefix, stderrIsJournal } from '../journal.ts';

const oneLine = (text: string) => text.replace(/\s*[\r\n]+\s*/g, ' ').trim();

/** On stderr: `error: …`, then `hint: …`, a line each; with SHIPMATE_LOG_LEVEL=debug also where it came from. */
export function tellError(error: unknown): void {
  const hint = error instanceof ShipmateError ? error.hint : undefined;
  const prefix = stderrIsJournal() ? priorityPrefix('error') : '';
  const say = (word: string, text: string) =>
    process.stderr.write(`${prefix}${word}: ${printable(redact(oneLine(text)))}\n`);
  say('error', messageOf(error));
  say('hint', hint ?? 'SHIPMATE_LOG_LEVEL=debug prints where this comes from');
  if (process.env.SHIPMATE_LOG_LEVEL === 'debug') process.stderr.write(`${redact(inspect(error))}\n`);
}

export const print = (text: string) => void process.stdout.write(`${text}\n`);
export const printJson = (value: unknown) => print(JSON.stringify(value, null, 2));

const DEFAULT_WIDTH = 80;

/** Whether escape codes may be written: on a terminal that has colours, unless $NO_COLOR says no, or where $FORCE_COLOR says yes. */
export function wantsColour(out: NodeJS.WriteStream, environment: NodeJS.ProcessEnv = process.env): boolean {
  const { NO_COLOR, FORCE_COLOR } = environment;
  if (NO_COLOR) return false;
  if (FORCE_COLOR !== undefined) return !/^(0|false)$/i.test(FORCE_COLOR);
  return out.isTTY === true && environment.TERM !== 'dumb' && out.hasColors(16, environment);
}

/** How wide a text on stdout may be, and whether in colour. */
export function viewOf(out: NodeJS.WriteStream = process.stdout): { width: number; colour: boolean } {
  return { width: (out.isTTY && out.columns) || DEFAULT_WIDTH, colour: wantsColour(out) };
}

/** How `check` and `status` begin a line. */
export const MARKS = {
  ok: { style: 'green', text: 'ok    ' },
  warning: { style: 'yellow', text: 'warn  ' },
  error: { style: 'red', text: 'error ' },
} as const;

/** Text that others wrote (a reason, a node's name) without what a terminal would obey. */
export const printable = (text: string) => text.replace(/\p{Cc}+/gu, ' ');

/**
 * An operator's yes to what was just told. With `yes` nobody is asked; throws UsageError when there is nobody to ask,
 * and resolves false on anything but a yes.
 */
export async function confirm(question: string, { yes }: { readonly yes: boolean }): Promise<boolean> {
  if (yes) return true;
  requireTerminal({ yes });
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  const left = new Promise<null>((resolve) => terminal.once('close', () => resolve(null))); // Ctrl-C, Ctrl-D
  try {
    const answer = await Promise.race([terminal.question(`${question} [y/N] `).catch(() => null), left]);
    if (answer === null) process.stderr.write('\n'); // what follows has a line of its own
    return /^y(es)?$/i.test(answer?.trim() ?? '');
  } finally {
    terminal.close();
  }
}

/** Early, so that a script is told before anything else happens. */
export function requireTerminal({ yes }: { readonly yes: boolean }, hint = 'give --yes if you are sure'): void {
  if (yes || process.stdin.isTTY) return;
  throw new UsageError('this asks before it acts, and there is no terminal to ask on', hint);
}
