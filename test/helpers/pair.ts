import { readArchive } from '../../src/archive/identity.ts';
import { readChain, readFloor } from '../../src/archive/walk.ts';
import { openBlockPool } from '../../src/codec/blocks.ts';
import { openEncoder } from '../../src/codec/encoder.ts';
import type { ArchiveMemory, Coordination, Role, TwinStream } from '../../src/coordination/coordination.ts';
import type { Read } from '../../src/core/header.ts';
import { Metrics } from '../../src/metrics.ts';
import type { CopyPlan } from '../../src/ship/copies.ts';
import { runDaemon } from '../../src/ship/daemon.ts';
import type { Pace } from '../../src/ship/outpaced.ts';
import { StreamShipper } from '../../src/ship/stream.ts';
import { RunningStreams } from '../../src/ship/streams.ts';
import { Wake } from '../../src/ship/wake.ts';
import type { LogSource } from '../../src/source/source.ts';
import type { ObjectStore } from '../../src/store/store.ts';
import { FakeLog } from '../fakes/fake-log.ts';
import { openFakeSource } from '../fakes/fake-source.ts';
import { type MemoryCoordination, MemoryHub } from '../fakes/memory-coordination.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { until } from './wait.ts';

/** One for all: every encoder starts threads. */
const encoder = openEncoder();

/** The one stream of a pair. */
export const STREAM = 'orders';
/** Who asks, in an operator's request. */
export const asker = { by: 'a test', time: '2026-01-01T00:00:00Z' };

export interface TwinOptions {
  readonly init?: boolean;
  readonly force?: boolean;
  /** Digest of the config that must agree. */
  readonly config?: string;
  /** As this twin sees them; by default what all of them share. */
  readonly store?: ObjectStore;
  readonly plan?: Partial<CopyPlan> & { readonly primary: string };
  /** Where the plan has several. */
  readonly stores?: (name: string) => ObjectStore;
  /** What this host remembers; by default nothing yet. */
  readonly memory?: ArchiveMemory;
  readonly source?: LogSource;
  readonly coordination?: (own: MemoryCoordination) => Coordination;
  readonly pace?: Pace;
  /** What chunks have to wait for. */
  readonly throttled?: (store: ObjectStore) => ObjectStore;
  readonly agreeWithinMs?: number;
  readonly rememberMs?: number;
  readonly monotonicMs?: () => number;
}

/** The coordination with some of its parts exchanged. */
export const but = (parts: (own: MemoryCoordination) => Partial<Coordination>) => (own: MemoryCoordination) =>
  new Proxy<Coordination>(own, {
    get(target, name) {
      const given = Reflect.get(parts(own), name);
      const value = given ?? Reflect.get(target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });

/** Twins in one process: the real role loop over a log, a store and a coordination in memory. */
export class Pair {
  readonly log = new FakeLog();
  readonly store = new MemoryStore();
  readonly hub = new MemoryHub();
  readonly #stops: (() => Promise<unknown>)[] = [];

  start(node: string, { init = true, force = false, config = 'same', ...own }: TwinOptions = {}) {
    const client = this.hub.client(node);
    const coordination = own.coordination?.(client) ?? client;
    const memory = own.memory ?? new MemoryHub().client(node).archives;
    const changed = new Wake();
    const metrics = new Metrics({ version: 'test', node, cluster: 'test' });
    const said: string[] = [];
    const say = (message: string) => void said.push(message);
    const log = { debug: say, info: say, warn: say, error: say };
    const shipper = new StreamShipper({
      name: STREAM,
      node,
      cluster: 'test',
      source: own.source ?? openFakeSource(this.log),
      plan: {
        ...{ primary: 'memory', copies: [], count: own.plan?.copies?.length ?? 0, delayMs: 0, order: [], ack: 1 },
        ...own.plan,
      },
      openStore: async (name) => own.stores?.(name) ?? own.store ?? this.store,
      coordination,
      memory,
      chunk: { maxBytes: 1 << 20, maxDelayMs: 5 },
      pool: openBlockPool({ blockBytes: 1 << 20, maxBytes: 4 << 20 }),
      encoder,
      metrics: metrics.stream(STREAM),
      log,
      config: (primary) => `${config} ${primary}`,
      init,
      force,
      ...(own.pace && { pace: own.pace }),
      ...(own.throttled && { throttled: own.throttled }),
      ...(own.agreeWithinMs !== undefined && { agreeWithinMs: own.agreeWithinMs }),
      ...(own.rememberMs !== undefined && { rememberMs: own.rememberMs }),
      ...(own.monotonicMs && { monotonicMs: own.monotonicMs }),
      onChange: () => changed.nudge(),
    });
    const stopping = new AbortController();
    const streams = new RunningStreams();
    streams.start(shipper);
    const done = runDaemon({ node, version: 'test', streams, coordination, log, changed }, stopping.signal);
    done.catch(() => {});
    const stop = async () => {
      stopping.abort(new Error('stopped'));
      await done.finally(() => coordination.close());
    };
    this.#stops.push(stop);
    return { node, coordination, client, shipper, streams, done, stop, said, metrics };
  }

  async stop(): Promise<void> {
    await Promise.allSettled(this.#stops.splice(0).map((stop) => stop()));
  }

  async twin(node: string): Promise<TwinStream | undefined> {
    const twins = await this.hub.client('observer').twins.read();
    return twins.find((twin) => twin.node === node)?.streams[0];
  }

  hasRole = (node: string, role: Role) =>
    until(`${node} is ${role}`, async () => (await this.twin(node))?.role === role, { withinMs: 30_000 });

  isReady = (node: string) =>
    until(`${node} is ready`, async () => (await this.twin(node))?.ready, { withinMs: 30_000 });

  async chain(): Promise<Read[]> {
    const archive = await readArchive(this.store, STREAM);
    const reads: Read[] = [];
    if (archive) await readChain(archive, await readFloor(archive), (_, read) => reads.push(read));
    return reads;
  }

  /** All that the log holds now is in the chain. */
  shipped = () =>
    until(
      'everything is shipped',
      async () => {
        const end = (await this.chain()).findLast(({ header }) => header.kind === 'chunk')?.header;
        const last = this.log.segments.at(-1)!;
        return end?.kind === 'chunk' && end.to.incarnation === last.incarnation && end.to.offset === last.bytes.length;
      },
      { withinMs: 30_000 },
    );

  async openings(): Promise<string[]> {
    return (await this.chain()).flatMap(({ header }) =>
      header.kind === 'opening' ? [`${header.node}: ${header.result}`] : [],
    );
  }
}
