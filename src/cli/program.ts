import { Command, Option } from 'commander';
import { version } from '../version.ts';
import { COMMANDS } from './commands.ts';
import { DEFAULT_CONFIG_FILE } from './config-file.ts';

/** The program with every command; of those that `isWanted` names the options too, since loading them takes time. */
export async function buildProgram(isWanted: (name: string) => boolean): Promise<Command> {
  if (process.env.SHIPMATE_CONFIG === '') delete process.env.SHIPMATE_CONFIG; // to the launcher, too, that is as if unset
  const program = new Command('shipmate')
    .description("Ships a database's log to object storage while it is written, from two hosts at once.")
    .version(version, '--version', 'print the version')
    .helpOption('--help', 'print help')
    .addOption(new Option('-c, --config <file>', 'config file').env('SHIPMATE_CONFIG').default(DEFAULT_CONFIG_FILE))
    .helpCommand('help [command]', 'print the help of a command')
    .exitOverride()
    .configureOutput({ writeErr: () => {} })
    .configureHelp({ showGlobalOptions: true });
  for (const { name, summary, load } of COMMANDS) {
    const command = program.command(name).summary(summary).description(summary);
    if (isWanted(name)) (await load())(command);
  }
  return program;
}
