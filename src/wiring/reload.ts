import type { BlockPool, BlockPoolOptions } from '../codec/blocks.ts';
import type { Config } from '../config.ts';
import { messageOf, ShipmateError } from '../errors.ts';
import { logLevel, type NodeLog } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import type { BandwidthLimits } from '../ship/limits.ts';
import { SLICE_BYTES } from '../wiring.ts';
import type { ConfiguredStreams } from './streams.ts';

/** What of a running daemon follows its config. */
export interface Reloadable {
  readonly streams: ConfiguredStreams;
  readonly pool: BlockPool;
  readonly limits: BandwidthLimits;
  readonly metrics: Metrics;
  readonly log: NodeLog;
}

/** `refused`: why; null where the config is in force. */
export interface ReloadOutcome {
  readonly refused: string | null;
}

/**
 * Goes over to another config, which `read` gives for the one that is in force. Never throws: where it is refused, or can't
 * be read, the old one stays in force, and why is logged and returned.
 */
export async function reload(
  { streams, pool, limits, metrics, log }: Reloadable,
  read: (running: Config) => Promise<Config>,
): Promise<ReloadOutcome> {
  try {
    const next = await read(streams.config);
    const changes = await changeWithRoom(next, { streams, pool });
    limits.change(next.limits);
    log.setLevel(logLevel(process.env, next.logLevel));
    metrics.reloaded(true);
    log.info('the config was reloaded', { ...changes });
    return { refused: null };
  } catch (error) {
    metrics.reloaded(false);
    const hint = error instanceof ShipmateError ? error.hint : undefined;
    log.error(`the config was not reloaded, and the old one stays in force: ${messageOf(error)}`, { hint });
    return { refused: messageOf(error) };
  }
}

/** Until all that change have left there must be blocks for them, and at once for those that come. */
async function changeWithRoom(next: Config, { streams, pool }: Pick<Reloadable, 'streams' | 'pool'>) {
  pool.resize(poolFor(streams.config, next));
  try {
    return await streams.change(next);
  } finally {
    pool.resize(poolFor(streams.config));
  }
}

/** Plain bytes of all streams together that may wait for their encoding, at the least. */
const POOL_BYTES = 32 << 20;

/**
 * Each stream gathers in one block; beyond that, enough for the encoder's threads to stay busy. Of several configs: what
 * any of them needs.
 */
export function poolFor(...configs: readonly Config[]): BlockPoolOptions {
  const streams = configs.map((config) => Object.values(config.streams));
  const blockBytes = Math.max(SLICE_BYTES, ...streams.flat().map(({ chunk }) => chunk.maxBytes));
  const blocks = 2 + Math.max(...streams.map(({ length }) => length));
  return { blockBytes, maxBytes: Math.max(POOL_BYTES, blocks * blockBytes) };
}
