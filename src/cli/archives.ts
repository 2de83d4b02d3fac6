import type { Command } from 'commander';
import type { Config, StreamConfig } from '../config.ts';
import { messageOf } from '../errors.ts';
import type { ChunkReader } from '../restore/chunks.ts';
import type { Progress } from '../restore/progress.ts';
import type { LogFormat } from '../source/source.ts';
import type { ObjectStore } from '../store/store.ts';
import { readConfig } from './config-file.ts';
import { readIdentities } from './identity.ts';

/** What a command reads from: the stores alone, whatever else the config names. */
export interface Archives {
  readonly config: Config;
  readonly progress: Progress;
  /** A stream of the config, as the operator typed it; without a name every one. Throws UsageError. */
  streams(name?: string): readonly StreamConfig[];
  /** The stream's archive in its primary store, or in the one that is named. */
  open(stream: StreamConfig, storeName?: string): Promise<ChunkReader>;
  /** A store of the config, asked again where it fails for a moment. */
  store(name: string): Promise<ObjectStore>;
  formatOf(stream: StreamConfig): LogFormat;
}

/** For each read: a quarter of a minute, where failures come at once. */
const ATTEMPTS = 10;

/**
 * Opens nothing yet, and needs of the environment only what the stores that are read need. `identity`: path of the age
 * identity file that opens encrypted chunks.
 */
export async function readArchives(
  command: Command,
  { identity }: { readonly identity?: string | undefined } = {},
): Promise<Archives> {
  const config = await readConfig(command, { lazy: true });
  const [{ openStore }, { logFormatOf }, { streamOf }, { openDecoder }, { ChunkReader }, { patient }] =
    await Promise.all([
      import('../wiring/stores.ts'),
      import('../wiring/formats.ts'),
      import('../config.ts'),
      import('../codec/decoder.ts'),
      import('../restore/chunks.ts'),
      import('../archive/patient-store.ts'),
    ]);
  const [{ showProgress }, { demandArchive }] = await Promise.all([
    import('../restore/progress.ts'),
    import('../restore/reading.ts'),
  ]);
  const decoder = openDecoder({ identities: await readIdentities(identity) });
  const onFailure = (error: unknown) => process.stderr.write(`warning: ${messageOf(error)}; trying again\n`);
  const open = async (name: string) => {
    const onSlow = (error: Error) => process.stderr.write(`warning: store ${name}: ${error.message}; still waiting\n`);
    const { signal } = new AbortController();
    return patient(await openStore(config, name), { signal, attempts: ATTEMPTS, onFailure, onSlow });
  };
  return {
    config,
    progress: showProgress(process.stderr),
    streams: (name) => (name === undefined ? Object.values(config.streams) : [streamOf(config, name)]),
    async open(stream, storeName = stream.plan.primary) {
      return new ChunkReader(await demandArchive(await open(storeName), stream.name), decoder);
    },
    store: open,
    formatOf: logFormatOf,
  };
}
