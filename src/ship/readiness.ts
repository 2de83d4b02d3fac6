import { headOf } from '../archive/head.ts';
import { answerOf, pause } from '../archive/retry.ts';
import { type Archive, findEnd, type OnObject } from '../archive/walk.ts';
import type { Cursor, CursorBoard } from '../coordination/coordination.ts';
import type { ChainEnd } from '../core/chain.ts';
import { comparePlaces } from '../core/keys.ts';
import type { Position } from '../core/position.ts';
import { ShipmateError } from '../errors.ts';
import type { Located, LogSource } from '../source/source.ts';
import { Withheld } from './acknowledge-standby.ts';
import type { Trouble } from './trouble.ts';
import { Wake } from './wake.ts';

export interface ReadinessOptions {
  readonly archive: Archive;
  /** Store generation of the archive as it was opened. */
  readonly generation: number;
  readonly source: LogSource;
  readonly cursors: CursorBoard;
  readonly trouble: Trouble;
  /** Whether an operator has accepted what `locate` alone does not allow. */
  readonly accepted: (located: Located, end: ChainEnd) => boolean;
  /** Whether another node was asked to take over just now. */
  readonly standsBack: () => boolean;
  /** How many stores must hold what a source is acknowledged, by this twin's config. */
  readonly ack: number;
  /** Told of each object that is new in the archive. */
  readonly onObject: OnObject;
  readonly onChange: () => void;
}

/** How often the answer is worked out while the cursor moves, and while it does not. */
const LEAST_PAUSE_MS = 400;
const IDLE_MS = 1_000;
/** What did not happen again for so long is taken for over. */
const STEADY_MS = 30_000;
const OF_A_REIGN = ['archive', 'store', 'source', 'acknowledge'] as const;

/** Could this twin take over now? Worked out all the time against the moving cursor, before it is needed. */
export class Readiness {
  readonly #options: ReadinessOptions;
  #end: ChainEnd | null = null;
  #located: Located | null = null;
  #at: Position | null = null;
  #told: Cursor | null = null;
  #looks = 0;
  readonly #withheld = new Withheld();
  readonly #changed = new Wake();

  constructor(options: ReadinessOptions) {
    this.#options = options;
  }

  /** The archive's end as last seen. */
  get end(): ChainEnd | null {
    return this.#end;
  }

  /** How often it was worked out, or failed to be. */
  get looks(): number {
    return this.#looks;
  }

  get located(): Located | null {
    return this.#located;
  }

  /**
   * Where this twin's own log goes on from the archive's end, as last worked out: another place than that end where the
   * twins' servers have logs of their own. Null while that is not known, or it has nothing beyond.
   */
  get at(): Position | null {
    return this.#at;
  }

  get allowed(): boolean {
    if (this.#located === null || this.#end === null || this.#options.standsBack()) return false;
    return this.#located.allowed || this.#options.accepted(this.#located, this.#end);
  }

  /** Follows the cursor until the signal aborts (throws its reason). */
  async follow(signal: AbortSignal): Promise<never> {
    const moved = new Wake();
    const watching = this.#watch(moved, signal);
    try {
      for (;;) {
        await this.#tryRefresh(signal);
        await pause(LEAST_PAUSE_MS, signal);
        await moved.wait(signal, IDLE_MS - LEAST_PAUSE_MS);
      }
    } finally {
      await Promise.allSettled([watching]);
    }
  }

  /** Looks at the store and the source now; throws what either of them says. */
  async refresh(): Promise<{ end: ChainEnd; located: Located }> {
    const end = await this.#findEnd();
    const located = await this.locate(end);
    this.#set(end, located);
    return { end, located };
  }

  async locate(end: ChainEnd): Promise<Located> {
    const { archive, source } = this.#options;
    return source.locate(await headOf(archive, end));
  }

  /** What was found before a reign says nothing about the time after it. */
  forget(): void {
    this.#set(this.#end, null);
  }

  /** The state after a take-over or a term of our own: the twin is where the archive is. */
  moveTo(end: ChainEnd): void {
    this.#end = end;
    this.#at = end.position;
  }

  /** Resolves once a take-over is allowed (or, with `allowed: false`, no longer). One waiter at a time. */
  async until(allowed: boolean, signal: AbortSignal): Promise<void> {
    while (this.allowed !== allowed) await this.#changed.wait(signal);
  }

  /** Something outside changed that `allowed` depends on: an operator's decision. */
  reconsider(): void {
    this.#changed.nudge();
    this.#options.onChange();
  }

  async #tryRefresh(signal: AbortSignal): Promise<void> {
    const { trouble, source } = this.#options;
    const fail = (error: unknown) => {
      trouble.report('readiness', error);
      this.#set(this.#end, null);
    };
    try {
      const { end, located } = await answerOf(this.refresh(), { signal, onSlow: fail });
      trouble.clear('readiness');
      // What troubled a reign of this twin comes back at its next one, or is over.
      if (located.allowed) for (const part of OF_A_REIGN) trouble.clear(part, { quietMs: STEADY_MS });
      const upTo = this.#acknowledgeable(end, located);
      if (upTo !== null) await answerOf(source.acknowledge(upTo), { signal, onSlow: fail });
    } catch (error) {
      signal.throwIfAborted();
      fail(error);
    }
  }

  /** Up to where this twin's own server may let go of its log: where copies count, the master says which part is held. */
  #acknowledgeable(end: ChainEnd, { at }: Located): Position | null {
    if (end.position === null || at === null) return null;
    const held = this.#told?.acknowledged;
    if (held === undefined && this.#options.ack === 1) return at;
    if (held === undefined && this.#told !== null) this.#options.trouble.report('acknowledge', this.#uncounted());
    if (end.last) this.#withheld.add(end.last, at);
    return held ? this.#withheld.take(held) : null;
  }

  #uncounted(): ShipmateError {
    const { archive, ack } = this.#options;
    return new ShipmateError(`this config says ack: ${ack}, but the master does not tell which stores hold the log`, {
      code: 'ACK_DIFFERS',
      hint: `nothing is acknowledged to this host's server: let the plan of stream ${archive.info.stream} say the same on all hosts`,
      verdict: 'retry',
    });
  }

  /**
   * Walks on from the newest place that etcd or this twin knows of: an object that was there and is not shows a store that
   * went back in time (rule 9).
   */
  async #findEnd(): Promise<ChainEnd> {
    const { archive, cursors, trouble, generation, onObject } = this.#options;
    const { stream } = archive.info;
    let cursor: Cursor | null = null;
    try {
      cursor = await cursors.load(stream);
      trouble.clear('coordination');
    } catch (error) {
      trouble.report('coordination', error);
    }
    const known = this.#end?.last ? { ...this.#end.last, digest: this.#end.digest } : null;
    // One of another generation is of another store's chain: here it would look like a store that went back in time.
    const isOfThisChain =
      cursor?.archive === archive.info.archive && (cursor.generation ?? 0) === (this.#end?.generation ?? generation);
    const told = isOfThisChain ? cursor : null;
    this.#told = told;
    return findEnd(archive, told && known && comparePlaces(told, known) < 0 ? known : (told ?? known), onObject);
  }

  /** Only makes `follow` look sooner: a watch that fails is begun again, and what is wrong `follow` meets itself. */
  async #watch(moved: Wake, signal: AbortSignal): Promise<void> {
    const { cursors, archive } = this.#options;
    while (!signal.aborted) {
      try {
        for await (const _ of cursors.watch(archive.info.stream, signal)) moved.nudge();
      } catch {}
      await pause(IDLE_MS, signal).catch(() => {});
    }
  }

  #set(end: ChainEnd | null, located: Located | null): void {
    this.#looks++;
    this.#end = end;
    this.#located = located;
    if (located) this.#at = located.at;
    this.reconsider();
  }
}
