import { CommanderError } from 'commander';
import { nearestHint } from '../core/nearest.ts';
import { ArchiveNotWhole, NotInArchive, UsageError } from '../errors.ts';
import { COMMANDS } from './commands.ts';
import { buildProgram } from './program.ts';
import { tellError } from './terminal.ts';

/** `notInArchive` is for bin/shipmate, which makes 1 of it: nothing else that ends Node may look like it. */
const EXIT = { done: 0, failed: 1, usage: 2, notWhole: 3, notInArchive: 100 } as const;

/** Carries out a command line (without the program's own name); returns the exit code. Never throws. */
export async function shipmate(argv: readonly string[]): Promise<number> {
  try {
    const program = await buildProgram((name) => argv.includes(name));
    await program.parseAsync(argv, { from: 'user' });
    return EXIT.done;
  } catch (thrown) {
    const error = thrown instanceof CommanderError ? ofCommander(thrown, argv) : thrown;
    if (error === null) return EXIT.done;
    tellError(error);
    return exitCodeOf(error);
  }
}

/** Commander's complaint in our form; null where it only printed what was asked for. */
function ofCommander({ code, exitCode, message }: CommanderError, argv: readonly string[]): UsageError | null {
  if (exitCode === 0) return null;
  const command = COMMANDS.find(({ name }) => argv.includes(name));
  const help = `"shipmate ${command ? `${command.name} ` : ''}--help" tells more`;
  if (code === 'commander.help') return nothingToHelpWith(argv) ?? new UsageError('no command given', help);
  const [said = '', suggestion] = message.replace(/^error: /, '').split('\n');
  const meant = /^\(Did you mean (?:one of )?(.*)\?\)$/.exec(suggestion ?? '')?.[1];
  return new UsageError(said, meant === undefined ? help : `did you mean ${meant.replace(/[^, ]+/g, '"$&"')}?`);
}

/** `help` of a command that is not there looks to commander as if none was given. */
function nothingToHelpWith(argv: readonly string[]): UsageError | null {
  const asked = argv.includes('help') ? argv[argv.indexOf('help') + 1] : undefined;
  if (asked === undefined) return null;
  const known = COMMANDS.map(({ name }) => name);
  return new UsageError(`unknown command '${asked}'`, nearestHint(asked, known));
}

function exitCodeOf(error: unknown): number {
  if (error instanceof UsageError) return EXIT.usage;
  if (error instanceof NotInArchive) return EXIT.notInArchive;
  return error instanceof ArchiveNotWhole ? EXIT.notWhole : EXIT.failed;
}
