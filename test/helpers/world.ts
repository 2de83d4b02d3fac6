import { setImmediate as turn } from 'node:timers/promises';
import { headOf } from '../../src/archive/head.ts';
import { newClaim, openTerm, sealOpenTerm } from '../../src/archive/takeover.ts';
import { type Archive, findEnd } from '../../src/archive/walk.ts';
import { openBlockPool } from '../../src/codec/blocks.ts';
import { openEncoder } from '../../src/codec/encoder.ts';
import type { Cursor, CursorBoard, Leadership } from '../../src/coordination/coordination.ts';
import { chainStart, decodeArchiveFile, encodeArchiveFile } from '../../src/core/archive.ts';
import { type ChainEnd, step } from '../../src/core/chain.ts';
import { encodeFloor } from '../../src/core/floor.ts';
import { type Chunk, decodeHeader, type Read } from '../../src/core/header.ts';
import { comparePlaces, floorKey, placeKey, streamKey } from '../../src/core/keys.ts';
import { ShipmateError } from '../../src/errors.ts';
import type { StreamMetrics } from '../../src/metrics.ts';
import { Term } from '../../src/ship/term.ts';
import { Trouble } from '../../src/ship/trouble.ts';
import type { LogSource } from '../../src/source/source.ts';
import type { ObjectStore } from '../../src/store/store.ts';
import { FakeLog } from '../fakes/fake-log.ts';
import { openFakeSource } from '../fakes/fake-source.ts';
import { type Fault, FaultyStore, Gate } from '../fakes/faulty-store.ts';
import { MemoryStore } from '../fakes/memory-store.ts';

/** One for all: every encoder starts threads. */
const encoder = openEncoder();
const STREAM = 'orders';

/**
 * Where a daemon can die, named after what it was about to do or had just done. `before` leaves nothing in the store,
 * `after` leaves the object and a daemon that never hears of it.
 */
export const CRASH_POINTS = [
  'before-seal',
  'after-seal',
  'before-opening',
  'after-opening',
  'before-chunk',
  'after-chunk',
  'before-cursor',
  'after-cursor',
] as const;
export type CrashPoint = (typeof CRASH_POINTS)[number];

class Crashed extends Error {}

export interface WorldOptions {
  readonly random: () => number;
  readonly window: number;
  /** Share of store operations that go wrong, 0 to 1. */
  readonly faultRate: number;
}

/**
 * A store in memory, one log, and daemons that run the real take-over and the real term against them, each elected
 * whenever the test likes: several at once if it likes. After every creation the chain is checked as a reader sees it.
 */
export class World {
  readonly log = new FakeLog();
  readonly store = new MemoryStore();
  readonly #options: WorldOptions;
  readonly #gates: Gate[] = [];
  #info = decodeArchiveFile(archiveFile(1), 'test');
  #chain: Read[] = [];
  readonly #decoded = new Map<string, Read>();
  #terms = new Map<number, string>();
  #floor: ChainEnd;
  cursor: Cursor | null = null;
  readonly cursorsSeen: Cursor[] = [];
  /** Bytes of the log that the source was told are safe. */
  #acknowledged: { segment: string; offset: number } | null = null;
  #violation: { readonly error: unknown } | null = null;
  faultRate: number;

  constructor(options: WorldOptions) {
    this.#options = options;
    this.faultRate = options.faultRate;
    const file = archiveFile(options.window);
    this.store.overwrite(streamKey(STREAM), file);
    this.#info = decodeArchiveFile(file, 'test');
    this.#floor = chainStart(this.#info);
  }

  /** Elects a daemon; its reign goes on until `ends` aborts, proof comes that it is deposed, or it crashes. */
  elect(ends: AbortSignal, crashAt: CrashPoint | null = null): Promise<void> {
    const running = this.#reign(ends, crashAt).catch((error) => {
      if (isExpected(error) || ends.aborted) return;
      throw error;
    });
    running.catch(() => {}); // whoever elected awaits it later
    return running;
  }

  /** Lets one of the writes that were held back land (or learn that it can't). */
  landOne(): void {
    const [gate] = this.#gates.splice(Math.floor(this.#options.random() * this.#gates.length), 1);
    gate?.open();
  }

  async landAll(): Promise<void> {
    for (const gate of this.#gates.splice(0)) gate.open();
    await turn();
  }

  /** Retention: a floor at a random object of the chain but never above the newest chunk, and the chunks below it gone. */
  async raiseFloor(): Promise<void> {
    const newest = this.#chain.findLastIndex(({ header }) => header.kind === 'chunk');
    const above = this.#chain
      .slice(0, newest + 1)
      .filter(({ header }) => header.kind !== 'seal' && comparePlaces(header, this.#floor) >= 0);
    const chosen = above[Math.floor(this.#options.random() * above.length)];
    if (!chosen) return;
    const end = this.#walkTo(chosen);
    this.store.overwrite(floorKey(STREAM, end), encodeFloor(end));
    this.#floor = end;
    const gone = this.#chain.filter(({ header }) => header.kind === 'chunk' && comparePlaces(header, end) < 0);
    await this.store.delete(gone.map(({ header }) => placeKey(STREAM, header)));
  }

  /** A successor with a healthy store ships all that the log has. */
  async finish(): Promise<void> {
    this.faultRate = 0;
    await this.landAll();
    const done = new AbortController();
    const last = this.log.segments.at(-1);
    const deadline = performance.now() + 60_000;
    while (last && !this.#hasShipped(last.name, last.bytes.length)) {
      this.demandUnbroken();
      if (performance.now() > deadline) throw new Error('the successor does not get on');
      const reign = this.elect(done.signal);
      let over = false;
      const ended = reign.finally(() => {
        over = true;
      });
      ended.catch(() => {});
      while (!over && !this.#hasShipped(last.name, last.bytes.length) && performance.now() < deadline) await turn();
      if (over) await reign;
    }
    done.abort(new Error('done'));
    this.demandUnbroken();
  }

  /** Throws the first broken invariant. */
  demandUnbroken(): void {
    if (this.#violation) throw this.#violation.error;
  }

  /** The bytes of the living log as a reader puts them together from the chain, by segment. */
  shipped(): Map<string, Buffer> {
    const segments = new Map<string, Buffer>();
    for (const { header } of this.#chain) {
      if (header.kind !== 'chunk') continue;
      const { segment, offset } = header.from;
      const before = segments.get(segment) ?? Buffer.alloc(0);
      if (before.length !== offset) throw new Error(`${segment} goes on at ${offset}, but ends at ${before.length}`);
      segments.set(segment, Buffer.concat([before, this.#bytesOf(header)]));
    }
    return segments;
  }

  get chain(): readonly Read[] {
    return this.#chain;
  }

  /** Checks the chain as a reader sees it now: it only ever grows, each term has one owner, what was acknowledged is in it. */
  check(): void {
    try {
      this.#demandWhole();
    } catch (error) {
      // The daemons take it for a failing store and try again: remembered, and thrown at the end.
      this.#violation ??= { error };
    }
  }

  #demandWhole(): void {
    let end = chainStart(this.#info);
    const seen: Read[] = [];
    const below = this.#chain.filter(({ header }) => comparePlaces(header, this.#floor) < 0);
    if (comparePlaces(this.#floor, end) > 0) {
      seen.push(...below);
      end = this.#floor;
    }
    for (let read = this.#readNow(end); read !== null; read = this.#readNow(end)) {
      const stepped = step(end, read);
      if (stepped.met === 'foreign') throw new Error(`a stranger's object at ${JSON.stringify(read.header)}`);
      end = stepped.end;
      seen.push(read);
    }
    this.#chain.forEach((known, index) => {
      if (seen[index]?.digest !== known.digest) throw new Error(`the chain lost or changed object ${index}`);
    });
    for (const { header } of seen) {
      if (header.kind === 'seal') continue;
      const owner = this.#terms.get(header.term) ?? header.claim;
      if (owner !== header.claim) throw new Error(`term ${header.term} has two owners`);
      this.#terms.set(header.term, owner);
    }
    this.#chain = seen;
    const safe = this.#acknowledged;
    if (safe && !this.#hasShipped(safe.segment, safe.offset)) throw new Error('acknowledged, but not in the chain');
  }

  async #reign(ends: AbortSignal, crashAt: CrashPoint | null): Promise<void> {
    const crash = new AbortController();
    const signal = AbortSignal.any([ends, crash.signal]);
    const die = (point: CrashPoint) => {
      if (point === crashAt) crash.abort(new Crashed(point));
      if (crash.signal.aborted) throw new Crashed(point);
    };
    const store = this.#storeOf(die, signal);
    const archive: Archive = { store, info: this.#info };
    const writer = { claim: newClaim(), node: 'node', now: () => new Date(0) };
    const retries = { signal, maxMs: 0 };
    const from = await this.#begin(archive, signal);
    let end = await sealOpenTerm(archive, from, writer, retries);
    const located = await this.#source().locate(await headOf(archive, end));
    if (!located.allowed) return;
    end = await openTerm(archive, end, writer, located, retries);
    const log = { debug() {}, info() {}, warn() {}, error() {} };
    const term = new Term(end, {
      archive,
      source: this.#source(),
      cursors: this.#cursors(die),
      leadership: leadershipFor(signal),
      writer,
      chunk: { maxBytes: 400, maxDelayMs: 0 },
      pool: openBlockPool({ blockBytes: 1024, maxBytes: 64 * 1024 }),
      encoder,
      metrics: silentMetrics,
      log,
      trouble: new Trouble({ log, metrics: silentMetrics }),
      nowMs: () => 0,
      onSettled() {},
    });
    await term.run(signal);
  }

  async #begin(archive: Archive, signal: AbortSignal): Promise<ChainEnd> {
    for (;;) {
      signal.throwIfAborted();
      const hint = this.#options.random() < 0.5 ? this.cursor : null;
      const end = await findEnd(archive, hint).catch((error) => {
        if (error instanceof ShipmateError && error.code === 'STORE_FAILED') return null;
        throw error;
      });
      if (end) return end;
      await turn();
    }
  }

  #source(): LogSource {
    const source = openFakeSource(this.log, { maxSliceBytes: 300 });
    return {
      ...source,
      acknowledge: async ({ segment, offset }) => {
        if (offset > 0) this.#acknowledged = { segment, offset };
        this.check();
      },
    };
  }

  #cursors(die: (point: CrashPoint) => void): CursorBoard {
    return {
      load: async () => this.cursor,
      save: async (cursor) => {
        die('before-cursor');
        this.cursor = cursor;
        this.cursorsSeen.push(cursor);
        die('after-cursor');
      },
      async *watch() {},
      forget: async () => {},
    };
  }

  #storeOf(die: (point: CrashPoint) => void, signal: AbortSignal): FaultyStore {
    const { store } = this;
    const checked: ObjectStore = {
      name: store.name,
      create: async (key, body, signalOfCreate) => {
        const kind = key.includes('/terms/') ? decodeHeader(body as Uint8Array, key).header.kind : null;
        if (kind && !signal.aborted) die(`before-${kind}`);
        const outcome = await store.create(key, body, signalOfCreate);
        this.check();
        if (kind && !signal.aborted) die(`after-${kind}`);
        return outcome;
      },
      read: (key, range) => store.read(key, range),
      readStart: (key, maxBytes) => store.readStart(key, maxBytes),
      head: (key) => store.head(key),
      list: (prefix, from) => store.list(prefix, from),
      delete: (keys) => store.delete(keys),
      capacity: () => store.capacity(),
    };
    return new FaultyStore(checked, (operation) => this.#fault(operation));
  }

  #fault(operation: string): Fault | undefined {
    const { random } = this.#options;
    if (random() >= this.faultRate) return undefined;
    if (operation !== 'create' && random() < 0.3) return { kind: 'before' };
    if (operation !== 'create' && random() < 0.4) return { kind: 'delay', until: turn() };
    const gate = new Gate();
    const kinds =
      operation === 'create' ? (['before', 'after', 'late', 'late', 'delay'] as const) : (['delay'] as const);
    const kind = kinds[Math.floor(random() * kinds.length)]!;
    if (kind === 'late' || kind === 'delay') this.#gates.push(gate);
    return { kind, until: gate.opened };
  }

  #readNow(place: ChainEnd): Read | null {
    const key = placeKey(STREAM, place);
    if (!this.#present(key)) return null;
    const known = this.#decoded.get(key) ?? decodeHeader(this.store.peek(key), key);
    this.#decoded.set(key, known); // nothing is ever overwritten
    return known;
  }

  #present(key: string): boolean {
    try {
      return this.store.peek(key).length > 0;
    } catch {
      return false;
    }
  }

  #walkTo(target: Read): ChainEnd {
    let end = chainStart(this.#info);
    for (const read of this.#chain) {
      if (read === target) break;
      end = step(end, read).end;
    }
    return end;
  }

  #hasShipped(segment: string, offset: number): boolean {
    return this.#chain.some(
      ({ header }) => header.kind === 'chunk' && header.to.segment === segment && header.to.offset >= offset,
    );
  }

  #bytesOf({ from, length }: Chunk): Buffer {
    const found = this.log.segments.find(({ name }) => name === from.segment);
    if (!found) throw new Error(`${from.segment} is not in the log`);
    return found.bytes.subarray(from.offset, from.offset + length);
  }
}

function isExpected(error: unknown): boolean {
  return error instanceof Crashed || (error instanceof ShipmateError && error.verdict !== 'fatal');
}

function leadershipFor(signal: AbortSignal): Leadership {
  return { signal, revision: 1n, confirmed: () => true, remainingMs: () => 1_000, resign: async () => {} };
}

function archiveFile(window: number): Buffer {
  return encodeArchiveFile({
    v: 1,
    archive: 'archive-1',
    stream: STREAM,
    cluster: 'test',
    owner: 'claim-of-init',
    node: 'node',
    identity: { type: 'fake', name: null },
    window,
    created: new Date(0).toISOString(),
  });
}

const silentMetrics: StreamMetrics = {
  role() {},
  readiness() {},
  cursor() {},
  lag() {},
  shipped() {},
  store() {},
  upload() {},
  tookOver() {},
  deposed() {},
  handedOn() {},
  copies() {},
  findings() {},
  held() {},
  retention() {},
  alarm() {},
};
