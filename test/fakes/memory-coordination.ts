import { orAbort } from '../../src/coordination/abort.ts';
import type {
  Answer,
  ArchiveMemory,
  Coordination,
  Cursor,
  CursorBoard,
  Elector,
  Leadership,
  LimitsBoard,
  OperatorRequest,
  Overview,
  PendingRequest,
  Promotion,
  RememberedArchive,
  RequestBoard,
  Twin,
  TwinBoard,
} from '../../src/coordination/coordination.ts';
import { overviewOf, stands } from '../../src/coordination/formats.ts';
import type { Override } from '../../src/core/limits.ts';
import { abortReason, Deposed, ShipmateError } from '../../src/errors.ts';
import { MemoryLimits } from './memory-limits.ts';

/** A lease: what stands under it goes with it. */
interface Lease {
  readonly node: string;
  /** False once the hub has dropped it. */
  alive: boolean;
}

interface Candidate {
  readonly lease: Lease;
  readonly revision: bigint;
}

interface HubStream {
  candidates: Candidate[];
  cursor: Cursor | null;
  archive: RememberedArchive | null;
  secret: string | null;
  promotion: Promotion | null;
  readonly requests: Map<string, { request: OperatorRequest; answer: Answer | null }>;
}

/**
 * What etcd is to the twins, in one process and without a clock: nothing expires, is cut off or comes back unless the
 * test says so, and everything else happens within microtasks.
 */
export class MemoryHub {
  readonly streams = new Map<string, HubStream>();
  readonly nodes = new Map<string, { lease: Lease; twin: Twin }>();
  readonly limits = new Map<string, Override>();
  readonly #clients = new Set<MemoryCoordination>();
  #revision = 0n;
  #names = 0;
  #change = Promise.withResolvers<void>();

  client(node: string, { onEtcdLoss = 'continue' }: { onEtcdLoss?: 'continue' | 'stop' } = {}): MemoryCoordination {
    const client = new MemoryCoordination(this, node, onEtcdLoss);
    this.#clients.add(client);
    return client;
  }

  /** Drops the node's lease, and all under it; by its own clock that has run out as well. It learns so when connected. */
  expire(node: string): void {
    for (const client of this.#clients) if (client.node === node) client.expire();
  }

  /** Everything is gone and revisions start over, as when etcd comes back with an empty disk. */
  wipe(): void {
    this.streams.clear();
    this.nodes.clear();
    this.limits.clear();
    this.#revision = 0n;
    for (const client of this.#clients) client.expire();
    this.changed();
  }

  stream(name: string): HubStream {
    let stream = this.streams.get(name);
    if (!stream) {
      stream = { candidates: [], cursor: null, archive: null, secret: null, promotion: null, requests: new Map() };
      this.streams.set(name, stream);
    }
    return stream;
  }

  drop(lease: Lease): void {
    lease.alive = false;
    for (const stream of this.streams.values()) {
      stream.candidates = stream.candidates.filter((candidate) => candidate.lease !== lease);
    }
    if (this.nodes.get(lease.node)?.lease === lease) this.nodes.delete(lease.node);
    this.changed();
  }

  nextRevision(): bigint {
    this.#revision++;
    return this.#revision;
  }

  nextName(): string {
    this.#names++;
    return `request-${this.#names}`;
  }

  changed(): void {
    const { resolve } = this.#change;
    this.#change = Promise.withResolvers<void>();
    resolve();
  }

  /** Resolves at the next change of anything. */
  change(): Promise<void> {
    return this.#change.promise;
  }
}

/** One daemon's or command's view of the hub. */
export class MemoryCoordination implements Coordination {
  readonly kind = 'etcd';
  readonly node: string;
  readonly hub: MemoryHub;
  readonly onEtcdLoss: 'continue' | 'stop';
  readonly cursors: CursorBoard;
  readonly archives: ArchiveMemory;
  readonly twins: TwinBoard;
  readonly requests: RequestBoard;
  readonly limits: LimitsBoard;
  readonly #electors = new Map<string, MemoryElector>();
  #connected = true;
  #ranOut = false;
  #lease: Lease | null = null;
  /** What the hub could not be told while the connection was cut. */
  #untold: (() => void)[] = [];

  constructor(hub: MemoryHub, node: string, onEtcdLoss: 'continue' | 'stop') {
    this.hub = hub;
    this.node = node;
    this.onEtcdLoss = onEtcdLoss;
    this.cursors = new MemoryCursors(this);
    this.archives = new MemoryArchives(this);
    this.twins = new MemoryTwins(this);
    this.requests = new MemoryRequests(this);
    this.limits = new MemoryLimits(this);
  }

  elector(stream: string): MemoryElector {
    let elector = this.#electors.get(stream);
    if (!elector) {
      elector = new MemoryElector(this, stream);
      this.#electors.set(stream, elector);
    }
    return elector;
  }

  async overview(): Promise<Overview> {
    this.reach();
    const known = [...this.hub.streams].filter(
      ([, { candidates, cursor, archive }]) => candidates[0] || cursor || archive,
    );
    const streams = known.map(([name, { candidates, cursor, promotion }]) =>
      overviewOf(name, { master: candidates[0]?.lease.node ?? null, cursor, promotion }),
    );
    return { streams, twins: await this.twins.read() };
  }

  health(): { reachable: boolean; leaseRemainingMs: number | null } {
    return { reachable: this.#connected, leaseRemainingMs: this.#lease ? this.remainingMs() : null };
  }

  async certificates(): Promise<ReadonlyMap<string, number>> {
    return new Map();
  }

  async close(): Promise<void> {
    if (this.#lease) this.hub.drop(this.#lease);
    this.#learn('the daemon closed');
  }

  /** From now on no call reaches the hub. */
  cutOff(): void {
    this.#connected = false;
  }

  /** The lease runs out by this client's own clock; the hub still has it. */
  runOut(): void {
    this.#ranOut = true;
    if (this.onEtcdLoss === 'continue') return;
    for (const elector of this.#electors.values()) {
      elector.leadership?.end(new ShipmateError('the lease ran out', { code: 'LEASE_RAN_OUT', verdict: 'retry' }));
    }
  }

  heal(): void {
    this.#connected = true;
    for (const tell of this.#untold.splice(0)) tell();
    if (this.#lease?.alive) this.#ranOut = false;
    else this.#learn('the lease is gone');
    this.hub.changed();
  }

  expire(): void {
    if (!this.#lease) return;
    this.runOut();
    this.hub.drop(this.#lease);
    if (this.#connected) this.#learn('the lease is gone');
  }

  get connected(): boolean {
    return this.#connected;
  }

  remainingMs(): number {
    return this.#ranOut ? 0 : 5_000;
  }

  /** Throws unless the hub can be reached. */
  reach(): void {
    if (!this.#connected) throw new ShipmateError('cut off', { code: 'ETCD_UNREACHABLE', verdict: 'retry' });
  }

  lease(): Lease {
    if (!this.#lease?.alive) {
      this.#lease = { node: this.node, alive: true };
      this.#ranOut = false;
    }
    return this.#lease;
  }

  /** Does `action` now, or as soon as the connection is whole. */
  tell(action: () => void): void {
    if (this.#connected) action();
    else this.#untold.push(action);
  }

  /** What `read` gives, and again at every change that makes it another; nothing while cut off. */
  async *follow<T>(read: () => T, signal: AbortSignal): AsyncGenerator<T, void, undefined> {
    let last: string | undefined;
    while (!signal.aborted) {
      const change = this.hub.change();
      if (this.#connected) {
        const now = read();
        const seen = JSON.stringify(now);
        if (seen !== last) {
          last = seen;
          yield now;
          continue;
        }
      }
      await orAbort(change, signal).catch(() => {});
    }
  }

  #learn(why: string): void {
    for (const elector of this.#electors.values()) elector.leadership?.end(new Deposed(why));
  }
}

class MemoryElector implements Elector {
  readonly #client: MemoryCoordination;
  readonly #stream: string;
  #candidacy: Promise<void> | null = null;
  leadership: MemoryLeadership | null = null;

  constructor(client: MemoryCoordination, stream: string) {
    this.#client = client;
    this.#stream = stream;
  }

  async campaign(signal: AbortSignal): Promise<Leadership> {
    while (this.#candidacy !== null) await orAbort(this.#candidacy, signal);
    if (signal.aborted) throw abortReason(signal);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#candidacy = promise;
    const { hub } = this.#client;
    let candidate: Candidate | null = null;
    const leave = (gone: Candidate | null) => {
      this.leadership = null;
      this.#candidacy = null;
      if (gone) this.#client.tell(() => this.#remove(gone));
      resolve();
    };
    while (!signal.aborted) {
      const change = hub.change();
      if (this.#client.connected) {
        const { candidates } = hub.stream(this.#stream);
        if (!candidate || !candidates.includes(candidate)) {
          candidate = { lease: this.#client.lease(), revision: hub.nextRevision() };
          candidates.push(candidate);
        }
        if (candidates[0] === candidate) {
          const won = candidate;
          this.leadership = new MemoryLeadership(this.#client, won, () => leave(won));
          return this.leadership;
        }
      }
      await orAbort(change, signal).catch(() => {});
    }
    leave(candidate);
    throw abortReason(signal);
  }

  #remove(candidate: Candidate): void {
    const stream = this.#client.hub.stream(this.#stream);
    stream.candidates = stream.candidates.filter((other) => other !== candidate);
    this.#client.hub.changed();
  }
}

class MemoryLeadership implements Leadership {
  readonly candidate: Candidate;
  readonly revision: bigint;
  readonly #client: MemoryCoordination;
  readonly #over = new AbortController();
  readonly #leave: () => void;

  constructor(client: MemoryCoordination, candidate: Candidate, leave: () => void) {
    this.#client = client;
    this.candidate = candidate;
    this.revision = candidate.revision;
    this.#leave = leave;
  }

  get signal(): AbortSignal {
    return this.#over.signal;
  }

  confirmed(): boolean {
    return !this.signal.aborted && this.remainingMs() > 0;
  }

  remainingMs(): number {
    return this.#client.remainingMs();
  }

  async resign(): Promise<void> {
    this.end(new Deposed('resigned'));
  }

  end(reason: ShipmateError): void {
    if (this.signal.aborted) return;
    this.#leave();
    this.#over.abort(reason);
  }
}

class MemoryCursors implements CursorBoard {
  readonly #client: MemoryCoordination;

  constructor(client: MemoryCoordination) {
    this.#client = client;
  }

  async load(stream: string): Promise<Cursor | null> {
    this.#client.reach();
    return this.#client.hub.stream(stream).cursor;
  }

  async save(cursor: Cursor, by: Leadership): Promise<void> {
    this.#client.reach();
    if (!(by instanceof MemoryLeadership)) throw new TypeError('the leadership was not won here');
    const stream = this.#client.hub.stream(cursor.stream);
    if (!stream.candidates.includes(by.candidate)) {
      const deposed = new Deposed('the leader key is gone');
      by.end(deposed);
      throw deposed;
    }
    stream.cursor = cursor;
    this.#client.hub.changed();
  }

  async *watch(stream: string, signal: AbortSignal): AsyncGenerator<Cursor, void, undefined> {
    const { hub } = this.#client;
    for await (const cursor of this.#client.follow(() => hub.stream(stream).cursor, signal)) if (cursor) yield cursor;
  }

  async forget(stream: string): Promise<void> {
    this.#client.reach();
    this.#client.hub.stream(stream).cursor = null;
    this.#client.hub.changed();
  }
}

class MemoryArchives implements ArchiveMemory {
  readonly #client: MemoryCoordination;

  constructor(client: MemoryCoordination) {
    this.#client = client;
  }

  async load(stream: string): Promise<RememberedArchive | null> {
    this.#client.reach();
    return this.#client.hub.stream(stream).archive;
  }

  async propose(stream: string, id: string): Promise<RememberedArchive> {
    this.#client.reach();
    const kept = this.#client.hub.stream(stream);
    kept.archive ??= { id, state: 'proposed' };
    return kept.archive;
  }

  async confirm(stream: string, id: string): Promise<void> {
    this.#client.reach();
    this.#client.hub.stream(stream).archive = { id, state: 'created' };
  }

  async secret(stream: string): Promise<string | null> {
    this.#client.reach();
    return this.#client.hub.stream(stream).secret;
  }

  async keepSecret(stream: string, offered: string): Promise<string> {
    this.#client.reach();
    const kept = this.#client.hub.stream(stream);
    kept.secret ??= offered;
    return kept.secret;
  }

  async generation(stream: string): Promise<Promotion | null> {
    this.#client.reach();
    return this.#client.hub.stream(stream).promotion;
  }

  async raise(stream: string, promotion: Promotion): Promise<Promotion> {
    this.#client.reach();
    const kept = this.#client.hub.stream(stream);
    if (!stands(kept.promotion, promotion)) kept.promotion = promotion;
    return kept.promotion ?? promotion;
  }
}

class MemoryTwins implements TwinBoard {
  readonly #client: MemoryCoordination;

  constructor(client: MemoryCoordination) {
    this.#client = client;
  }

  async publish(twin: Twin): Promise<void> {
    this.#client.reach();
    const { hub, node } = this.#client;
    const lease = this.#client.lease();
    const there = hub.nodes.get(node);
    if (there && there.lease !== lease) {
      throw new ShipmateError(`another daemon calls itself "${node}"`, { code: 'NODE_NAME_TAKEN' });
    }
    hub.nodes.set(node, { lease, twin });
    hub.changed();
  }

  async read(): Promise<Twin[]> {
    this.#client.reach();
    return [...this.#client.hub.nodes.values()].map(({ twin }) => twin);
  }
}

class MemoryRequests implements RequestBoard {
  readonly #client: MemoryCoordination;

  constructor(client: MemoryCoordination) {
    this.#client = client;
  }

  async ask(stream: string, request: OperatorRequest, timeoutMs: number): Promise<Answer | null> {
    this.#client.reach();
    const { hub } = this.#client;
    const key = hub.nextName();
    const { requests } = hub.stream(stream);
    requests.set(key, { request, answer: null });
    hub.changed();
    try {
      const signal = AbortSignal.timeout(timeoutMs);
      for await (const answer of this.#client.follow(() => requests.get(key)?.answer ?? null, signal)) {
        if (answer) return answer;
      }
      return null;
    } finally {
      requests.delete(key);
      hub.changed();
    }
  }

  async *watch(stream: string, signal: AbortSignal): AsyncGenerator<PendingRequest, void, undefined> {
    const { hub } = this.#client;
    const given = new Set<string>();
    for await (const pending of this.#client.follow(() => [...hub.stream(stream).requests], signal)) {
      for (const [key, { request, answer }] of pending) {
        if (answer || given.has(key)) continue;
        given.add(key);
        yield { key, request };
      }
    }
  }

  async answer({ key }: PendingRequest, answer: Answer): Promise<void> {
    this.#client.reach();
    for (const { requests } of this.#client.hub.streams.values()) {
      const kept = requests.get(key);
      if (kept) kept.answer ??= answer;
    }
    this.#client.hub.changed();
  }
}
