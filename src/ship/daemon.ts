import { pause } from '../archive/retry.ts';
import type { Coordination, Twin } from '../coordination/coordination.ts';
import { FORMAT_VERSION } from '../core/header.ts';
import type { Log } from '../core/log.ts';
import { messageOf, ShipmateError } from '../errors.ts';
import { compareClocks } from './clocks.ts';
import type { BandwidthLimits } from './limits.ts';
import type { RunningStreams } from './streams.ts';
import type { Wake } from './wake.ts';

export interface DaemonOptions {
  readonly node: string;
  readonly version: string;
  /** Started by whoever put the daemon together. */
  readonly streams: RunningStreams;
  readonly coordination: Coordination;
  readonly log: Log;
  /** What may be sent; absent where nothing asks, in tests. */
  readonly limits?: BandwidthLimits;
  /** Nudged whenever a stream's published state has changed. */
  readonly changed: Wake;
}

/** What the twins read of each other is never older than half a second; measuring takes some of it. */
const PUBLISH_MS = 400;
/** Changes closer together than this are published as one. */
const GATHER_MS = 20;

/** Keeps the twins told until the signal aborts and every stream has left; whatever ends early ends all, and is thrown. */
export async function runDaemon(options: DaemonOptions, signal: AbortSignal): Promise<void> {
  const failed = new AbortController();
  const publishing = new AbortController();
  const published = publish(options, publishing.signal).catch((error) => {
    if (!publishing.signal.aborted) failed.abort(error);
  });
  const limited = options.limits?.keep(publishing.signal);
  const { node, coordination, log } = options;
  const compared = compareClocks({ node, twins: coordination.twins, log }, publishing.signal).catch(() => {});
  try {
    await options.streams.untilEnded(AbortSignal.any([signal, failed.signal]));
  } finally {
    publishing.abort(new Error('stopped'));
    await Promise.all([published, limited, compared]);
  }
  if (failed.signal.aborted) throw failed.signal.reason;
}

/** Tells the twins how every stream stands, on change and twice a second. */
async function publish(
  { node, version, streams, coordination, log, limits, changed }: DaemonOptions,
  signal: AbortSignal,
) {
  let failure: string | null = null;
  for (;;) {
    const twin: Twin = {
      node,
      version,
      format: FORMAT_VERSION,
      time: new Date().toISOString(),
      streams: await Promise.all(streams.shippers.map((stream) => stream.state())),
      ...(limits && { bandwidth: limits.state() }),
    };
    try {
      await coordination.twins.publish(twin);
      if (failure !== null) log.info('the twins can be told again how this one stands');
      failure = null;
    } catch (error) {
      if (error instanceof ShipmateError && error.verdict === 'fatal') throw error;
      if (failure === null) log.warn(`the twins can't be told how this one stands: ${messageOf(error)}`, { error });
      failure = messageOf(error);
    }
    await pause(GATHER_MS, signal);
    await changed.wait(signal, PUBLISH_MS - GATHER_MS);
  }
}
