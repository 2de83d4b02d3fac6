import type { Command } from 'commander';
import { readConfig } from './config-file.ts';
import { addHelp } from './help.ts';

export function defineRun(command: Command): void {
  addHelp(command, {
    notes: [
      'Ends in order on SIGTERM and SIGINT: what is in flight is settled, and a twin that is ready takes over at once. A second signal ends it on the spot.',
    ],
    examples: [
      'shipmate check          # first: what would go wrong, and the fix',
      'shipmate run --init     # on every twin: begins the archives, or joins them',
    ],
  });
  command
    .option('--init', "create a stream's archive, or join one that is there; safe to repeat")
    .option('--force', 'without etcd: go on with streams that another node shipped last')
    .action(async ({ init = false, force = false }: { init?: boolean; force?: boolean }) => {
      const toldToStop = firstSignal();
      const config = await readConfig(command);
      const { startDaemon } = await import('../wiring/daemon.ts');
      const daemon = await Promise.race([startDaemon(config, { init, force }), toldToStop]);
      if (!daemon) return; // told while it was starting: it leads nothing yet, and what it left half done is safe to repeat
      try {
        await Promise.race([daemon.done, toldToStop]);
      } finally {
        await daemon.stop();
      }
    });
}

/** Resolves at the first SIGTERM or SIGINT; a second one ends the process on the spot. */
function firstSignal(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  let signals = 0;
  const onSignal = () => {
    if (++signals > 1) process.exit(1);
    resolve();
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  return promise;
}
