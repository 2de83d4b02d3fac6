import { DEFAULT_CONFIG_FILE } from '../src/cli/config-file.ts';
import { buildProgram } from '../src/cli/program.ts';
import { bashCompletion } from './completions/bash.ts';
import { fishCompletion } from './completions/fish.ts';
import { commandShapes } from './completions/shapes.ts';
import { zshCompletion } from './completions/zsh.ts';

// The completions of a shell, made from the commands themselves: `node scripts/completions.ts bash|zsh|fish`.

const SHELLS = new Map([
  ['bash', bashCompletion],
  ['zsh', zshCompletion],
  ['fish', fishCompletion],
]);

const completion = SHELLS.get(process.argv[2] ?? '');
if (completion === undefined) {
  process.stderr.write(`usage: node scripts/completions.ts ${[...SHELLS.keys()].join('|')}\n`);
  process.exit(2);
}
const commands = commandShapes(await buildProgram(() => true));
process.stdout.write(completion({ commands, configFile: DEFAULT_CONFIG_FILE }));
