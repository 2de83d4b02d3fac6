import type { Command } from 'commander';
import { addHelp } from './help.ts';
import { print, printJson } from './terminal.ts';

export function defineConfig(command: Command): void {
  addHelp(command, { examples: ['shipmate config example > /etc/shipmate/shipmate.yaml'] });
  command.helpCommand(false);
  command
    .command('example')
    .description('prints a config file with comments')
    .action(async () => {
      const { EXAMPLE } = await import('../config/example.ts');
      print(EXAMPLE.trimEnd());
    });
  command
    .command('schema')
    .description('prints the JSON schema of the config file, for editors')
    .action(async () => {
      const { jsonSchema } = await import('../config/schema.ts');
      printJson(jsonSchema());
    });
}
