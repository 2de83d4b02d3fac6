import type { Command } from 'commander';
import type { Config } from '../config.ts';
import { Wake } from '../ship/wake.ts';
import { openNotifier, takeNotifyAddress } from '../systemd/notifier.ts';
import { Service } from '../systemd/service.ts';
import type { Daemon } from '../wiring/daemon.ts';
import { readConfig } from './config-file.ts';
import { addHelp } from './help.ts';

export function defineRun(command: Command): void {
  addHelp(command, {
    notes: [
      'Ends in order on SIGTERM and SIGINT: uploads under way are broken off, and a twin that is ready takes over at once. A second signal ends it on the spot.',
      'Reads its config anew on SIGHUP: streams, stores, plans, limits and the log level can change while it runs. A config that is wrong is refused, and the old one stays in force.',
    ],
    examples: [
      'shipmate check          # first: what would go wrong, and the fix',
      'shipmate run --init     # on every twin: begins the archives, or joins them',
    ],
  });
  command
    .option('--init', "create a stream's archive, or join one that is there; safe to repeat")
    .option('--force', 'without etcd: go on with streams that another node shipped last')
    .action((options: { init?: boolean; force?: boolean }) => run(command, options));
}

async function run(command: Command, { init = false, force = false }: { init?: boolean; force?: boolean }) {
  const { toldToStop, hangups } = takeSignals();
  const address = takeNotifyAddress();
  const config = await readConfig(command);
  const [{ startDaemon }, { createLog, logLevel }] = await Promise.all([
    import('../wiring/daemon.ts'),
    import('../log.ts'),
  ]);
  const log = createLog({ node: config.node, level: logLevel(process.env, config.logLevel) });
  const daemon = await Promise.race([startDaemon(config, { init, force, log }), toldToStop]);
  if (!daemon) return; // told while it was starting: it leads nothing yet, and what it left half done is safe to repeat
  const service = new Service({ daemon, notifier: openNotifier(address, { log }), log });
  const ending = new AbortController();
  const read = (running: Config) => readConfig(command, { running });
  try {
    await Promise.race([
      daemon.done,
      toldToStop,
      service.attend(ending.signal),
      reloadOnHangup({ daemon, service, hangups, read }, ending.signal),
    ]);
  } finally {
    ending.abort(new Error('the daemon ends'));
    service.stopping();
    await daemon.stop();
  }
}

interface Reloading {
  readonly daemon: Daemon;
  readonly service: Service;
  readonly hangups: Wake;
  readonly read: (running: Config) => Promise<Config>;
}

/** One after the other; those that come meanwhile are one. */
async function reloadOnHangup({ daemon, service, hangups, read }: Reloading, signal: AbortSignal): Promise<never> {
  for (;;) {
    await hangups.wait(signal);
    await service.reloading();
    const { refused } = await daemon.reload(read);
    await service.reloaded(refused);
  }
}

/** `toldToStop` resolves at the first SIGTERM or SIGINT; a second one ends the process on the spot. */
function takeSignals(): { toldToStop: Promise<void>; hangups: Wake } {
  const { promise: toldToStop, resolve } = Promise.withResolvers<void>();
  const hangups = new Wake();
  let signals = 0;
  const onSignal = () => {
    if (++signals > 1) process.exit(1);
    resolve();
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  process.on('SIGHUP', () => hangups.nudge());
  return { toldToStop, hangups };
}
