import type { Command } from 'commander';
import type { Archive } from '../archive/walk.ts';
import type { Config, StreamConfig } from '../config.ts';
import { messageOf } from '../errors.ts';
import type { Progress } from '../restore/progress.ts';
import type { LogFormat } from '../source/source.ts';
import { readConfig } from './config-file.ts';

/** What a command reads from: the stores alone, whatever else the config names. */
export interface Archives {
  readonly config: Config;
  readonly progress: Progress;
  /** A stream of the config, as the operator typed it; without a name every one. Throws UsageError. */
  streams(name?: string): readonly StreamConfig[];
  /** The stream's archive in its primary store, or in the one that is named. */
  open(stream: StreamConfig, storeName?: string): Promise<Archive>;
  formatOf(stream: StreamConfig): LogFormat;
}

/** Opens nothing yet, and needs of the environment only what the stores that are read need. */
export async function readArchives(command: Command): Promise<Archives> {
  const config = await readConfig(command, { lazy: true });
  const [{ openStore, logFormatOf }, { streamOf }, { patient }, { showProgress }, { demandArchive }] =
    await Promise.all([
      import('../wiring.ts'),
      import('../config.ts'),
      import('../restore/patient-store.ts'),
      import('../restore/progress.ts'),
      import('../restore/reading.ts'),
    ]);
  const onFailure = (error: unknown) => process.stderr.write(`warning: ${messageOf(error)}; trying again\n`);
  return {
    config,
    progress: showProgress(process.stderr),
    streams: (name) => (name === undefined ? Object.values(config.streams) : [streamOf(config, name)]),
    open(stream, storeName = stream.plan.primary) {
      const store = openStore(config, storeName);
      return demandArchive(patient(store, { signal: new AbortController().signal, onFailure }), stream.name);
    },
    formatOf: logFormatOf,
  };
}
