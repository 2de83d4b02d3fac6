import type { Command } from 'commander';
import type { Config, ReadOptions } from '../config.ts';

export const DEFAULT_CONFIG_FILE = '/etc/shipmate/shipmate.yaml';

/** The config that `-c` or $SHIPMATE_CONFIG names. Throws UsageError. */
export async function readConfig(command: Command, options: ReadOptions = {}): Promise<Config> {
  const { loadConfig } = await import('../config.ts');
  return loadConfig(command.optsWithGlobals<{ config: string }>().config, options);
}
