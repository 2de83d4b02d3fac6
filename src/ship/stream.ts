import { type Opener, openArchive } from '../archive/identity.ts';
import { patient } from '../archive/patient-store.ts';
import { pause, retry, within } from '../archive/retry.ts';
import { type Archive, findEnd, readPlace } from '../archive/walk.ts';
import type { BlockPool } from '../codec/blocks.ts';
import type { Encoder } from '../codec/encoder.ts';
import type { ArchiveMemory, Coordination, Role, TwinStream } from '../coordination/coordination.ts';
import type { ChainEnd } from '../core/chain.ts';
import type { Result } from '../core/header.ts';
import type { Log } from '../core/log.ts';
import type { Position } from '../core/position.ts';
import { ShipmateError, UsageError } from '../errors.ts';
import type { StreamMetrics } from '../metrics.ts';
import type { Backlog, LogSource } from '../source/source.ts';
import type { ObjectStore } from '../store/store.ts';
import { Desk } from './desk.ts';
import { Inspection } from './inspection.ts';
import { handOnWhenOutpaced, PACE, type Pace } from './outpaced.ts';
import { Readiness } from './readiness.ts';
import { keepRole } from './role.ts';
import { Trouble } from './trouble.ts';

export interface StreamOptions {
  readonly name: string;
  readonly node: string;
  readonly cluster: string;
  readonly source: LogSource;
  readonly store: ObjectStore;
  readonly coordination: Coordination;
  /** Archive ids that this host remembers. */
  readonly memory: ArchiveMemory;
  readonly chunk: { readonly maxBytes: number; readonly maxDelayMs: number };
  readonly pool: BlockPool;
  readonly encoder: Encoder;
  readonly metrics: StreamMetrics;
  readonly log: Log;
  /** Digest of the config that must agree between twins. */
  readonly config: string;
  readonly init: boolean;
  /** Solo: seal a term of another node. */
  readonly force: boolean;
  /** When a twin is so far ahead that it is handed the term; for tests. */
  readonly pace?: Pace;
  /** Told when what this twin publishes has changed. */
  readonly onChange: () => void;
}

/** A look at the archive is many reads, and one take-over several looks: a store that fails now and then must not stop it. */
const READS = { attempts: 4, signal: new AbortController().signal };
const REMEMBER_MS = 5_000;
const MEASURE_MS = 1_000;

/** One stream on one twin: opens its archive, keeps its role, and says how it stands. */
export class StreamShipper {
  readonly #options: StreamOptions;
  readonly #trouble: Trouble;
  #role: Role = 'starting';
  #readiness: Readiness | null = null;
  #settled: ChainEnd | null = null;
  /** Where the present term, or the last one, began. */
  #began: Position | null = null;
  #archive: Archive | null = null;
  #opened: string | null = null;
  #inspection: Inspection | null = null;
  #measuring: Promise<Backlog> | null = null;

  constructor(options: StreamOptions) {
    this.#options = options;
    this.#trouble = new Trouble(options);
  }

  get name(): string {
    return this.#options.name;
  }

  /** Once it is open. */
  get archive(): Archive | null {
    return this.#archive;
  }

  /** Up to where the archive is durable, as last heard. */
  get archiveEnd(): Position | null {
    return (this.#role === 'master' ? this.#settled : this.#readiness?.end)?.position ?? null;
  }

  /** What this twin itself shipped in the term that it leads, without a break, and is durable; null: it leads none. */
  get shipped(): { readonly from: Position; readonly to: Position } | null {
    const to = this.#settled?.position;
    return this.#role === 'master' && this.#began && to ? { from: this.#began, to } : null;
  }

  /** Runs until the signal aborts; returns after leaving in order, throws what an operator must look at. */
  async run(signal: AbortSignal): Promise<void> {
    const { coordination, name, node, log, metrics, onChange } = this.#options;
    const opened = await this.#open(signal);
    if (opened === null) return;
    const { claim } = opened;
    const archive = { ...opened.archive, store: patient(opened.archive.store, READS) };
    this.#archive = archive;
    const desk = new Desk({
      stream: name,
      node,
      requests: coordination.requests,
      cursors: coordination.cursors,
      twins: coordination.twins,
      log,
      end: () => readiness.end,
      onDecision: () => readiness.reconsider(),
    });
    const readiness = new Readiness({
      archive,
      source: this.#options.source,
      cursors: coordination.cursors,
      trouble: this.#trouble,
      accepted: (located, end) => desk.accepts(located, end),
      standsBack: () => desk.standsBack,
      onChange,
    });
    this.#readiness = readiness;
    const inspection = new Inspection({ ...this.#options, at: () => readiness.at });
    this.#inspection = inspection;
    const attending = Promise.allSettled([
      desk.attend(signal),
      this.#keepRemembered(archive, signal),
      inspection.keep(signal),
      handOnWhenOutpaced(
        {
          ...this.#options,
          stream: name,
          pace: this.#options.pace ?? PACE,
          twins: coordination.twins,
          requests: coordination.requests,
          isMaster: () => this.#role === 'master',
        },
        signal,
      ),
    ]);
    await keepRole(
      {
        ...this.#options,
        archive,
        readiness,
        desk,
        trouble: this.#trouble,
        firstClaim: claim,
        enter: (role) => this.#enter(role),
        onSettled: (end) => {
          if (end.slot === 1) this.#began = end.position;
          this.#settled = end;
          metrics.cursor(end.last ?? end);
        },
      },
      signal,
    );
    await attending;
  }

  /** What this twin tells the others, measured now; a source that can't be measured has no lag, not none. */
  async state(): Promise<TwinStream> {
    const { name, metrics, config } = this.#options;
    const backlog = await this.#ownBacklog();
    const lagBytes = backlog?.bytes ?? null;
    const lagSeconds = backlog && lagSince(backlog);
    const { ready, result, reason } = this.#standing();
    metrics.lag({ bytes: lagBytes, seconds: lagSeconds });
    metrics.held(this.#options.source.heldBytes?.() ?? 0);
    metrics.readiness({ ready, result });
    metrics.alarm('gap', result === 'gap');
    metrics.alarm('fork', result === 'fork');
    return { name, role: this.#role, ready, reason, lagBytes, lagSeconds, config };
  }

  /** What keeps this stream from working, for /readyz; empty when all is well. */
  notReady(): string[] {
    if (this.#role === 'starting') return [`stream ${this.name}: ${this.#opened ?? 'starting'}`];
    return this.#trouble.standing().map((line) => `stream ${this.name}: ${line}`);
  }

  /** What this twin's own log has beyond the archive's end; null where that is not known, or it has forked away. */
  async #ownBacklog(): Promise<Backlog | null> {
    if (this.#role === 'master') return this.#measure(this.#settled?.position ?? null);
    if (!this.#readiness) return null;
    const { at, located, allowed } = this.#readiness;
    if (located?.result === 'fork' && !allowed) return null;
    if (at) return this.#measure(at);
    return located && { bytes: 0, oldestMs: null };
  }

  /** Null where it can't be measured, or hangs: the twins must hear of the rest all the same. */
  async #measure(from: Position | null): Promise<Backlog | null> {
    const { source, log } = this.#options;
    this.#measuring ??= source.backlog(from).finally(() => {
      this.#measuring = null;
    });
    return within(MEASURE_MS, this.#measuring).catch((error) => {
      log.debug('the backlog could not be measured', { error });
      return null;
    });
  }

  #standing(): { ready: boolean; result: Result | null; reason: string } {
    if (this.#role === 'master' || this.#role === 'taking-over')
      return { ready: true, result: 'resume', reason: this.#role };
    const located = this.#readiness?.located;
    if (this.#readiness && located) {
      const reason = [`${located.result}: ${located.reason}`, this.#inspection?.summary].filter(Boolean).join('; ');
      return { ready: this.#readiness.allowed, result: located.result, reason };
    }
    return { ready: false, result: null, reason: this.#trouble.standing()[0] ?? this.#opened ?? this.#role };
  }

  #enter(role: Role): void {
    if (role !== this.#role) this.#options.log.info(`role: ${role}`);
    this.#role = role;
    this.#options.metrics.role(role);
    this.#options.onChange();
  }

  /** Opens the archive, as often as it takes while store, source or etcd are away; null when aborted first. */
  async #open(signal: AbortSignal): Promise<{ archive: Archive; claim: string | null } | null> {
    const { name, source, store, coordination, memory, cluster, node, init } = this.#options;
    this.#enter('starting');
    const attempt = async () => {
      await this.#demandSameConfig();
      const identity = await source.identity();
      const memories: Opener['memories'] = [coordination.archives, memory];
      const opened = await openArchive({ store, stream: name, cluster, node, identity, memories, signal }, init);
      if (coordination.kind === 'solo') await this.#demandOwnArchive(opened.archive, opened.claim);
      return opened;
    };
    try {
      const opened = await retry(attempt, {
        signal,
        again: (error) => error instanceof ShipmateError && error.verdict === 'retry',
        onFailure: (error) => {
          this.#trouble.report('archive', error);
          this.#opened = this.#trouble.standing()[0] ?? null;
          this.#options.onChange();
        },
      });
      this.#trouble.clear('archive');
      return opened;
    } catch (error) {
      if (signal.aborted) return null;
      throw error;
    }
  }

  /** An etcd that was wiped under a running daemon learns the archive's id again (rule 1). */
  async #keepRemembered({ info }: Archive, signal: AbortSignal): Promise<never> {
    const { coordination, name, log, metrics } = this.#options;
    for (;;) {
      await pause(REMEMBER_MS, signal);
      try {
        const known = await coordination.archives.load(name);
        const stands = known?.state === 'created';
        metrics.alarm('archive-id', stands && known.id !== info.archive);
        if (stands) continue; // a proposal is a newcomer's, which found etcd empty
        await coordination.archives.confirm(name, info.archive);
        log.warn('etcd had forgotten which archive this stream has; it was told again', { archive: info.archive });
      } catch (error) {
        log.debug('etcd could not be asked for the archive id', { error });
      }
    }
  }

  /** Twins that ship to different stores would each think that the other's archive is theirs: the later one stops. */
  async #demandSameConfig(): Promise<void> {
    const { coordination, node, name, config } = this.#options;
    for (const twin of await coordination.twins.read()) {
      const theirs = twin.node === node ? undefined : twin.streams.find((stream) => stream.name === name);
      if (theirs && theirs.config !== config && theirs.role !== 'starting') {
        throw new UsageError(
          `stream ${name}: the store, prefix or plan in this config differs from those of node ${twin.node}`,
          'twins must ship to the same place: make both configs agree, then start this daemon again',
        );
      }
    }
  }

  /** Rule 15: two solo daemons that restart for ever must not seal each other for ever. */
  async #demandOwnArchive(archive: Archive, created: string | null): Promise<void> {
    const { node, name, force } = this.#options;
    if (created !== null || force) return;
    const { last } = await findEnd(archive, null);
    const owner = last && (await readPlace(archive, last))?.header.node;
    if (!owner || owner === node) return;
    throw new ShipmateError(`stream ${name}: the archive was last written by node ${owner}, this is ${node}`, {
      code: 'SOLO_OTHER_NODE',
      hint: `make sure that no daemon runs on ${owner} any more, then start once with: shipmate run --force`,
    });
  }
}

function lagSince({ bytes, oldestMs }: Backlog): number | null {
  if (bytes === 0) return 0;
  return oldestMs === null ? null : Math.max(0, (Date.now() - oldestMs) / 1000);
}
