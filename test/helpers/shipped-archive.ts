import { randomUUID } from 'node:crypto';
import { headOf } from '../../src/archive/head.ts';
import { newClaim, openTerm, sealOpenTerm } from '../../src/archive/takeover.ts';
import { type Archive, findEnd } from '../../src/archive/walk.ts';
import { type BlockPool, openBlockPool } from '../../src/codec/blocks.ts';
import { encrypting, openEncoder } from '../../src/codec/encoder.ts';
import type { CursorBoard, Leadership } from '../../src/coordination/coordination.ts';
import { DEFAULT_WINDOW, decodeArchiveFile, encodeArchiveFile } from '../../src/core/archive.ts';
import type { ChainEnd } from '../../src/core/chain.ts';
import { streamKey } from '../../src/core/keys.ts';
import { samePlace } from '../../src/core/position.ts';
import { Metrics } from '../../src/metrics.ts';
import { Term } from '../../src/ship/term.ts';
import { Trouble } from '../../src/ship/trouble.ts';
import type { LogSource } from '../../src/source/source.ts';
import type { ObjectStore } from '../../src/store/store.ts';

export interface ShippedOptions {
  readonly stream?: string;
  readonly node?: string;
  readonly maxChunkBytes?: number;
  /** Of age; the archive must have a secret then. */
  readonly recipients?: readonly string[];
  /** The daemon's wall clock. */
  readonly now?: () => Date;
}

/** Starts threads only for chunks that are large. */
const encoder = openEncoder();
const log = { debug() {}, info() {}, warn() {}, error() {} };
const signal = new AbortController().signal;

/** Writes a new archive's stream.json, as `run --init` does. */
export async function createArchive(store: ObjectStore, stream = 'orders', type = 'fake'): Promise<Archive> {
  const file = encodeArchiveFile({
    v: 1,
    archive: randomUUID(),
    stream,
    cluster: 'acme',
    owner: newClaim(),
    node: 'db-1',
    identity: { type, name: null },
    window: DEFAULT_WINDOW,
    created: new Date().toISOString(),
  });
  await store.create(streamKey(stream), file, signal);
  return { store, info: decodeArchiveFile(file, 'test') };
}

/**
 * One reign after another, through the code that daemons run: seals the open term, opens the next one as the source
 * locates it (an operator accepts what needs one), ships all that the log has, and is gone.
 */
export async function shipTerm(archive: Archive, source: LogSource, options: ShippedOptions = {}): Promise<ChainEnd> {
  const { node = 'db-1', maxChunkBytes = 400, recipients = [], now = () => new Date() } = options;
  const writer = { claim: newClaim(), node, now };
  const sealed = await sealOpenTerm(archive, await findEnd(archive, null), writer, { signal });
  const located = await source.locate(await headOf(archive, sealed));
  const opened = await openTerm(archive, sealed, writer, located, { signal });

  const stop = new AbortController();
  const metrics = new Metrics({ version: 'test', node, cluster: 'test' }).stream(archive.info.stream);
  const settle = async (end: ChainEnd) => {
    const logEnd = await source.end();
    if (logEnd === null || (end.position !== null && samePlace(end.position, logEnd))) stop.abort(new Error('shipped'));
  };
  const term = new Term(opened, {
    archive,
    source,
    cursors: noCursors,
    leadership: leadership(stop.signal),
    writer,
    chunk: { maxBytes: maxChunkBytes, maxDelayMs: 0 },
    pool: poolFor(maxChunkBytes),
    encoder:
      recipients.length > 0 ? encrypting(encoder, { recipients, secret: () => archive.secret!.read() }) : encoder,
    metrics,
    log,
    trouble: new Trouble({ log, metrics }),
    nowMs: () => performance.now(),
    onSettled: (end) => void settle(end),
  });
  await settle(opened);
  await term.run(stop.signal).catch((error) => {
    if (!stop.signal.aborted) throw error;
  });
  return term.end;
}

function poolFor(maxChunkBytes: number): BlockPool {
  const blockBytes = Math.max(maxChunkBytes, 1 << 20);
  return openBlockPool({ blockBytes, maxBytes: 10 * blockBytes });
}

const noCursors: CursorBoard = {
  load: async () => null,
  save: async () => {},
  async *watch() {},
  forget: async () => {},
};

function leadership(during: AbortSignal): Leadership {
  return { signal: during, revision: 1n, confirmed: () => true, remainingMs: () => 1_000, resign: async () => {} };
}
