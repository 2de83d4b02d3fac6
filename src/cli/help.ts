import type { Command } from 'commander';
import { wrap } from './wrap.ts';

/** Of an argument: a stream of the config. */
export const STREAM = 'its name in the config';

const WIDTH = 80;

interface More {
  /** What there is to know, a paragraph each. */
  readonly notes?: readonly string[];
  /** What to type. */
  readonly examples: readonly string[];
}

/** Adds what stands below a command's options, in --help and in the man page. */
export function addHelp(command: Command, { notes = [], examples }: More): void {
  const blocks = [
    ...notes.map((note) => wrap(note, { width: WIDTH })),
    ['Examples:', ...examples.map((line) => `  ${line}`)],
  ];
  command.addHelpText('after', blocks.map((lines) => `\n${lines.join('\n')}`).join('\n'));
}
