import type { Command } from 'commander';
import type { Config, StreamConfig } from '../config.ts';
import { messageOf } from '../errors.ts';
import type { ChunkReader } from '../restore/chunks.ts';
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
  open(stream: StreamConfig, storeName?: string): Promise<ChunkReader>;
  formatOf(stream: StreamConfig): LogFormat;
}

/** For each read: a quarter of a minute. */
const ATTEMPTS = 10;

/** Opens nothing yet, and needs of the environment only what the stores that are read need. */
export async function readArchives(command: Command): Promise<Archives> {
  const config = await readConfig(command, { lazy: true });
  const [{ openStore }, { logFormatOf }, { streamOf }, { openDecoder }, { ChunkReader }, { patient }] =
    await Promise.all([
      import('../wiring/stores.ts'),
      import('../wiring.ts'),
      import('../config.ts'),
      import('../codec/decoder.ts'),
      import('../restore/chunks.ts'),
      import('../archive/patient-store.ts'),
    ]);
  const [{ showProgress }, { demandArchive }] = await Promise.all([
    import('../restore/progress.ts'),
    import('../restore/reading.ts'),
  ]);
  const decoder = openDecoder();
  const onFailure = (error: unknown) => process.stderr.write(`warning: ${messageOf(error)}; trying again\n`);
  return {
    config,
    progress: showProgress(process.stderr),
    streams: (name) => (name === undefined ? Object.values(config.streams) : [streamOf(config, name)]),
    async open(stream, storeName = stream.plan.primary) {
      const store = await openStore(config, storeName);
      const reading = patient(store, { signal: new AbortController().signal, attempts: ATTEMPTS, onFailure });
      return new ChunkReader(await demandArchive(reading, stream.name), decoder);
    },
    formatOf: logFormatOf,
  };
}
