import type { Cursor } from '../../src/coordination/coordination.ts';
import { openEtcd } from '../../src/coordination/etcd.ts';
import { createLog } from '../../src/log.ts';
import { STREAM } from '../helpers/cluster.ts';
import { until, type WaitOptions } from '../helpers/wait.ts';

export interface Heard {
  readonly cursor: Cursor;
  /** Monotonic, milliseconds. */
  readonly atMs: number;
}

/** Hears of a stream's cursor as a standby does. */
export interface CursorWatch {
  /** Oldest first. Where cursors follow each other quickly, some are passed over. */
  readonly heard: readonly Heard[];
  /** The first one, heard already or yet to come, for which it holds. */
  first(what: string, holds: (cursor: Cursor) => boolean, wait?: WaitOptions): Promise<Heard>;
  close(): Promise<void>;
}

/**
 * A cursor is saved when its object, and all before it, is durable: when it is heard of, that has been so for as long as
 * two round trips to etcd take.
 */
export async function watchCursor(endpoints: readonly string[], cluster = 'acme'): Promise<CursorWatch> {
  const log = createLog({ node: 'bench', level: 'error' });
  const coordination = await openEtcd({
    cluster,
    node: 'bench',
    endpoints,
    ttlMs: 5_000,
    onEtcdLoss: 'continue',
    log,
  });
  const closing = new AbortController();
  const heard: Heard[] = [];
  const listening = (async () => {
    for await (const cursor of coordination.cursors.watch(STREAM, closing.signal)) {
      heard.push({ cursor, atMs: performance.now() });
    }
  })();
  return {
    heard,
    first: (what, holds, wait) => until(what, () => heard.find(({ cursor }) => holds(cursor)), wait),
    async close() {
      closing.abort();
      await listening;
      await coordination.close();
    },
  };
}
