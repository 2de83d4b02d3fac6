import type { Command } from 'commander';
import { streamKey } from '../core/keys.ts';
import { ShipmateError } from '../errors.ts';
import { withCoordination } from './coordination.ts';
import { addHelp, STREAM } from './help.ts';
import { confirm, print, printable, requireTerminal } from './terminal.ts';

export function defineAdopt(command: Command): void {
  addHelp(command, {
    notes: [
      'For when a daemon refuses a store because it remembers another archive: the right answer only if the store that the config names is the right one.',
    ],
    examples: ['shipmate adopt orders'],
  });
  command
    .argument('<stream>', STREAM)
    .option('--yes', 'do not ask')
    .action(async (stream: string, { yes = false }: { yes?: boolean }) => {
      requireTerminal({ yes });
      await withCoordination(command, async (coordination, config) => {
        const [{ withOpener }, { generationOf, remember }, { adoptArchive, readArchive }] = await Promise.all([
          import('../wiring.ts'),
          import('../archive/generation.ts'),
          import('../archive/identity.ts'),
        ]);
        await withOpener(config, stream, coordination, async (opener) => {
          const { store, memories } = opener;
          const found = await readArchive(store, stream);
          const said = found
            ? `Store ${store.name} holds archive ${found.info.archive} of ${stream}, made by node ${found.info.node} of cluster ` +
              `${found.info.cluster} on ${found.info.created}. From now on it is this cluster's archive of ${stream}, ` +
              'whatever was remembered before.'
            : `Store ${store.name} holds no archive of ${stream} (${streamKey(stream)}). A new one is begun there, from the oldest ` +
              'byte still on disk; what an earlier archive held is not in it.';
          print(printable(said));
          if (!(await confirm(`adopt ${stream}?`, { yes }))) {
            throw new ShipmateError(`the archive of stream ${stream} was not adopted`, {
              code: 'ADOPT_DECLINED',
              hint: 'answer y, or give --yes, to go on',
            });
          }
          const info = await adoptArchive(opener, coordination.cursors);
          const archive = { store, info };
          await remember(archive, await generationOf(archive), memories);
          print(`archive ${info.archive} is the archive of ${stream} now; restart daemons that refused it`);
        });
      });
    });
}
