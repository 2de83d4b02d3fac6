import { patient } from '../archive/patient-store.ts';
import { retry } from '../archive/retry.ts';
import type { Archive } from '../archive/walk.ts';
import type { BlockPool } from '../codec/blocks.ts';
import type { Encoder } from '../codec/encoder.ts';
import type { Role, TwinStream } from '../coordination/coordination.ts';
import type { ChainEnd } from '../core/chain.ts';
import type { Result } from '../core/header.ts';
import { redact } from '../core/log.ts';
import type { Position } from '../core/position.ts';
import { messageOf, ShipmateError } from '../errors.ts';
import type { Backlog } from '../source/source.ts';
import type { ObjectStore } from '../store/store.ts';
import { Acknowledgement } from './acknowledge.ts';
import { Agreement } from './agreement.ts';
import { Copies, type CopyPlan } from './copies.ts';
import { Desk } from './desk.ts';
import { tellForeign } from './foreign.ts';
import type { Share } from './governor.ts';
import { Inspection } from './inspection.ts';
import { Measure } from './measure.ts';
import { handOnWhenOutpaced, PACE, type Pace } from './outpaced.ts';
import { type OpenedPrimary, openPrimary, type PrimaryOptions } from './primary.ts';
import { Progress } from './progress.ts';
import { Readiness } from './readiness.ts';
import { keepRemembered, REMEMBER_MS } from './remembered.ts';
import { keepRole } from './role.ts';
import type { Term } from './term.ts';
import { Trouble } from './trouble.ts';

export interface StreamOptions extends PrimaryOptions {
  readonly chunk: { readonly maxBytes: number; readonly maxDelayMs: number };
  readonly pool: BlockPool;
  readonly encoder: Encoder;
  /** The store as chunks are written to it: they may have to wait for bandwidth, where openings and seals do not. */
  readonly throttled?: (store: ObjectStore) => ObjectStore;
  readonly plan: CopyPlan & { readonly primary: string };
  /** Whether chunks wait for bandwidth now. */
  readonly heldBack?: () => boolean;
  /** A part of the bandwidth for each copy; without it copies are not held back. */
  readonly share?: () => Share;
  /** When a twin is so far ahead that it is handed the term; for tests. */
  readonly pace?: Pace;
  /** How long a twin whose config says otherwise is waited for, milliseconds. */
  readonly agreeWithinMs?: number;
  /** How often it is looked for a promotion, and for twins that ship elsewhere, milliseconds; for tests. */
  readonly rememberMs?: number;
  /** By which it is known how long nothing has moved, milliseconds; for tests. */
  readonly monotonicMs?: () => number;
  /** Told when what this twin publishes has changed. */
  readonly onChange: () => void;
}

/** A look at the archive is many reads, and one take-over several looks: a store that fails now and then must not stop it. */
const READS = { attempts: 4, signal: new AbortController().signal };

/** A stream on this twin, in short. */
export interface Standing {
  readonly name: string;
  readonly role: Role;
  /** Of the archive's end. */
  readonly term: number | null;
  readonly ready: boolean;
  readonly reason: string;
  /** As last measured. */
  readonly lagSeconds: number | null;
  /** What does not work right now. */
  readonly trouble: readonly string[];
}

/** One stream on one twin: opens its archive, keeps its role, and says how it stands. */
export class StreamShipper {
  readonly #options: StreamOptions;
  readonly #trouble: Trouble;
  readonly #agreement: Agreement;
  readonly #measure: Measure;
  readonly #over = new AbortController();
  #role: Role = 'starting';
  #readiness: Readiness | null = null;
  #settled: ChainEnd | null = null;
  /** The present one, or the last. */
  #term: Term | null = null;
  /** Where the present term, or the last one, began. */
  #began: Position | null = null;
  #archive: Archive | null = null;
  #opened: OpenedPrimary | null = null;
  /** Why it could not be opened so far. */
  #refusal: string | null = null;
  #inspection: Inspection | null = null;
  #copies: Copies | null = null;
  #lag: { readonly bytes: number | null; readonly seconds: number | null } = { bytes: null, seconds: null };
  /** Why it ended by itself. */
  #failure: string | null = null;
  #isRetired = false;
  readonly #progress: Progress;

  constructor(options: StreamOptions) {
    this.#options = options;
    this.#trouble = new Trouble(options);
    const { name: stream, node, log, coordination, source, agreeWithinMs: withinMs } = options;
    this.#agreement = new Agreement({ stream, node, log, twins: coordination.twins, withinMs });
    this.#measure = new Measure({
      source,
      log,
      signal: this.#over.signal,
      // A standby's readiness tells by itself.
      onHang: (error) => this.#role === 'master' && this.#trouble.report('source', error),
      onRecovered: () => this.#trouble.clear('source'),
    });
    this.#progress = new Progress(options.monotonicMs ?? (() => performance.now()));
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
    return this.#end?.position ?? null;
  }

  get #end(): ChainEnd | null {
    return (this.#role === 'master' ? this.#settled : this.#readiness?.end) ?? null;
  }

  /** What this twin itself shipped in the term that it leads, without a break, and is durable; null: it leads none. */
  get shipped(): { readonly from: Position; readonly to: Position } | null {
    const to = this.#settled?.position;
    return this.#role === 'master' && this.#began && to ? { from: this.#began, to } : null;
  }

  /** Runs until the signal aborts; returns after leaving in order, throws what an operator must look at. */
  async run(signal: AbortSignal): Promise<void> {
    try {
      while (!signal.aborted) {
        const opened = await this.#open(signal);
        if (opened) await this.#serve(opened, signal);
      }
    } catch (error) {
      this.#failure = redact(messageOf(error));
      throw error;
    } finally {
      this.#over.abort();
      this.#enter('stopped');
    }
  }

  /** Keeps this twin's role in the archive that was opened, until the signal aborts or it must be opened anew. */
  async #serve(opened: OpenedPrimary, until: AbortSignal): Promise<void> {
    const { generation, claim } = opened;
    const { coordination, name, node, log, onChange } = this.#options;
    const { throttled = (same) => same, rememberMs = REMEMBER_MS } = this.#options;
    const moved = new AbortController();
    const signal = AbortSignal.any([until, moved.signal]);
    const archive = { ...opened.archive, store: patient(opened.archive.store, READS) };
    this.#archive = archive;
    const isMaster = () => this.#role === 'master';
    const desk = new Desk({
      stream: name,
      node,
      requests: coordination.requests,
      cursors: coordination.cursors,
      twins: coordination.twins,
      log,
      end: () => readiness.end,
      isMaster,
      onDecision: () => readiness.reconsider(),
    });
    const onObject = tellForeign(this.#options);
    const readiness = new Readiness({
      archive,
      generation,
      source: this.#options.source,
      cursors: coordination.cursors,
      trouble: this.#trouble,
      accepted: (located, end) => desk.accepts(located, end),
      standsBack: () => desk.standsBack,
      ack: this.#options.plan.ack,
      onObject,
      onChange,
    });
    this.#readiness = readiness;
    const inspection = new Inspection({ ...this.#options, at: () => readiness.at });
    this.#inspection = inspection;
    const plan = { ...this.#options.plan, copies: opened.copies };
    this.#tellTooFewCopies(plan);
    const acknowledgement = new Acknowledgement(plan.ack);
    const leave = (why: Error) => moved.abort(why);
    const copies = new Copies({ ...this.#options, archive, plan, isMaster, acknowledgement });
    this.#copies = copies;
    const attending = Promise.allSettled([
      copies.keep(signal),
      desk.attend(signal),
      keepRemembered({ ...this.#options, archive, generation, rememberMs, leave }, signal),
      this.#agreement.keep(opened, { everyMs: rememberMs, isMaster, leave }, signal),
      inspection.keep(signal),
      handOnWhenOutpaced(
        {
          ...this.#options,
          stream: name,
          pace: this.#options.pace ?? PACE,
          twins: coordination.twins,
          requests: coordination.requests,
          isMaster,
        },
        signal,
      ),
    ]);
    await keepRole(
      {
        ...this.#options,
        archive,
        uploads: { ...archive, store: throttled(archive.store) },
        readiness,
        desk,
        trouble: this.#trouble,
        firstClaim: claim,
        acknowledgement,
        enter: (role) => this.#enter(role),
        onObject,
        onTerm: (term) => {
          this.#term = term;
        },
        onSettled: (end, chunk) => {
          copies.settled(end, chunk);
          if (end.slot === 1) this.#began = end.position;
          this.#settled = end;
        },
      },
      signal,
    );
    await attending;
  }

  /** It is taken out of the daemon: its numbers are no longer shown, also where they are being measured just now. */
  retire(): void {
    this.#isRetired = true;
  }

  /** What this twin tells the others, measured now; a source that can't be measured has no lag, not none. */
  async state(): Promise<TwinStream> {
    const { name, metrics, plan, config } = this.#options;
    const { generation = 0, config: shared = config(plan.primary) } = this.#opened ?? {};
    const backlog = await this.#ownBacklog();
    const lagBytes = backlog?.bytes ?? null;
    const lagSeconds = backlog && lagSince(backlog);
    this.#lag = { bytes: lagBytes, seconds: lagSeconds };
    const { ready, result, reason } = this.#standing();
    if (!this.#isRetired) {
      if (this.#end) metrics.cursor(this.#end.last ?? this.#end);
      metrics.lag(this.#lag);
      metrics.held(this.#options.source.heldBytes?.() ?? 0);
      metrics.readiness({ ready, result });
      metrics.alarm('gap', result === 'gap');
      metrics.alarm('fork', result === 'fork');
    }
    const stores = this.#isRetired ? [] : (this.#copies?.status() ?? []);
    return {
      name,
      role: this.#role,
      ready,
      reason,
      lagBytes,
      lagSeconds,
      ...(this.#role === 'master' && stores.length > 0 && { stores }),
      config: shared,
      ...(generation > 0 && { generation }),
    };
  }

  /** What keeps this stream from working, for /readyz; empty when all is well. */
  notReady(): string[] {
    if (this.#role === 'stopped')
      return [`stream ${this.name} has stopped: ${this.#failure ?? 'it was told to leave'}`];
    if (this.#role === 'starting') return [`stream ${this.name}: ${this.#refusal ?? 'starting'}`];
    return this.#trouble.standing().map((line) => `stream ${this.name}: ${line}`);
  }

  get standing(): Standing {
    return {
      name: this.name,
      role: this.#role,
      term: this.#end?.term ?? null,
      ...this.#standing(),
      lagSeconds: this.#lag.seconds,
      trouble: this.#trouble.standing(),
    };
  }

  /** Whether it has a role, or knows why not. */
  get isTried(): boolean {
    return this.#role !== 'starting' || this.#refusal !== null;
  }

  /** Whether it has not got on for minutes though nothing that is known keeps it; to be asked a few times a minute. */
  isStuck(): boolean {
    const { chunk, pool, heldBack = () => false } = this.#options;
    const hasLittle = (this.#lag.bytes ?? 0) <= chunk.maxBytes;
    const isIdle = this.#role === 'master' && (hasLittle || this.#term?.waitsForSource === true);
    const waits = this.#trouble.standing().length > 0 || pool.usage.waiting > 0 || heldBack();
    const { term, slot } = this.#end ?? {};
    return this.#progress.isStuck({
      mark: [this.#role, term, slot, this.#readiness?.looks].join(' '),
      excused: this.#role === 'stopped' || isIdle || waits,
    });
  }

  /** What this twin's own log has beyond the archive's end; null where that is not known, or it has forked away. */
  async #ownBacklog(): Promise<Backlog | null> {
    if (this.#role === 'master') return this.#measure.from(this.#settled?.position ?? null);
    if (!this.#readiness) return null;
    const { at, end, located, allowed } = this.#readiness;
    if (located?.result === 'fork' && !allowed) return null;
    // In another server's log only transactions are beyond the archive's end, not what this one begins each file with.
    const isOther = located?.result === 'move' && end?.position && end.position.origin !== at?.origin;
    if (at) return this.#measure.from(isOther ? end.position : at);
    return located && { bytes: 0, oldestMs: null };
  }

  #standing(): { ready: boolean; result: Result | null; reason: string } {
    if (this.#role === 'stopped') return { ready: false, result: null, reason: this.#failure ?? 'stopped' };
    if (this.#role === 'master' || this.#role === 'taking-over') {
      return { ready: true, result: 'resume', reason: [this.#role, ...this.#trouble.standing()].join('; ') };
    }
    const located = this.#readiness?.located;
    if (this.#readiness && located) {
      const reason = [`${located.result}: ${located.reason}`, this.#inspection?.summary].filter(Boolean).join('; ');
      return { ready: this.#readiness.allowed, result: located.result, reason };
    }
    return { ready: false, result: null, reason: this.#trouble.standing()[0] ?? this.#refusal ?? this.#role };
  }

  #enter(role: Role): void {
    if (role !== this.#role) this.#options.log.info(`role: ${role}`);
    this.#role = role;
    this.#options.metrics.role(role);
    this.#options.onChange();
  }

  /** Opens the archive, as often as it takes while store, source or etcd are away; null when aborted first. */
  async #open(signal: AbortSignal): Promise<OpenedPrimary | null> {
    this.#forget();
    this.#enter('starting');
    try {
      this.#opened = await retry(() => openPrimary(this.#options, this.#agreement, signal), {
        signal,
        again: (error) => error instanceof ShipmateError && error.verdict === 'retry',
        onFailure: (error) => {
          this.#trouble.report('archive', error);
          this.#refusal = this.#trouble.standing()[0] ?? null;
          this.#options.onChange();
        },
      });
      this.#trouble.clear('archive');
      return this.#opened;
    } catch (error) {
      if (signal.aborted) return null;
      throw error;
    }
  }

  /** A promotion takes a copy away, and `ack` goes on asking for it: a stall that nothing else would tell of. */
  #tellTooFewCopies({ ack, count, copies }: CopyPlan): void {
    const { name, metrics, log } = this.#options;
    const stores = 1 + Math.min(count, copies.length);
    metrics.alarm('too-few-copies', stores < ack);
    if (stores >= ack) return;
    log.error(
      `the plan says ack: ${ack}, but only ${stores} of its stores can hold the log now: nothing is acknowledged`,
      {
        hint: `the database keeps its log until its disk is full: give the plan of stream ${name} another copy, or lower ack`,
      },
    );
  }

  /** What is known of one store says nothing of the next. */
  #forget(): void {
    this.#archive = null;
    this.#opened = null;
    this.#refusal = null;
    this.#readiness = null;
    this.#settled = null;
    this.#term = null;
    this.#began = null;
    for (const part of ['store', 'archive', 'readiness', 'source', 'acknowledge'] as const) this.#trouble.clear(part);
  }
}

function lagSince({ bytes, oldestMs }: Backlog): number | null {
  if (bytes === 0) return 0;
  return oldestMs === null ? null : Math.max(0, (Date.now() - oldestMs) / 1000);
}
