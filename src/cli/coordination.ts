import { hostname, userInfo } from 'node:os';
import type { Command } from 'commander';
import type { Config } from '../config.ts';
import type { Coordination, Overview } from '../coordination/coordination.ts';
import { nearestHint } from '../core/nearest.ts';
import { UsageError } from '../errors.ts';
import { readConfig } from './config-file.ts';

/** Opens etcd (solo: the local state) for one command, and closes it whatever happens. */
export async function withCoordination<T>(
  command: Command,
  use: (coordination: Coordination, config: Config) => Promise<T>,
): Promise<T> {
  const config = await readConfig(command, { lazy: true });
  const [{ openCoordination }, { createLog, logLevel }] = await Promise.all([
    import('../wiring.ts'),
    import('../log.ts'),
  ]);
  const log = createLog({ node: hostname(), level: process.env.SHIPMATE_LOG_LEVEL ? logLevel() : 'error' });
  const coordination = await openCoordination(config, log);
  try {
    return await use(coordination, config);
  } finally {
    await coordination.close();
  }
}

/** Throws UsageError for a stream that neither this config nor any twin knows. */
export function checkStream(name: string, config: Config, { streams, twins }: Overview): void {
  const told = [...streams, ...twins.flatMap((twin) => twin.streams)].map((stream) => stream.name);
  const known = [...new Set([...Object.keys(config.streams), ...told])].sort();
  if (known.includes(name)) return;
  throw new UsageError(`neither the config nor any twin knows a stream "${name}"`, nearestHint(name, known));
}

/** Who asks, for the daemons' logs. */
export function operator(): string {
  try {
    return `${userInfo().username}@${hostname()}`;
  } catch {
    return `uid ${process.getuid?.()}@${hostname()}`; // a user without an entry in passwd
  }
}
