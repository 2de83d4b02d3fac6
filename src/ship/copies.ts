import { readArchive } from '../archive/identity.ts';
import { answerOf, pause, within } from '../archive/retry.ts';
import type { Archive } from '../archive/walk.ts';
import type { ChainEnd } from '../core/chain.ts';
import { type CopyFacts, copyDelayMs, rankCopies } from '../core/copies.ts';
import type { Chunk } from '../core/header.ts';
import { termsPrefix } from '../core/keys.ts';
import type { Log } from '../core/log.ts';
import type { CopyStatus } from '../core/status.ts';
import { abortReason, messageOf } from '../errors.ts';
import type { StreamMetrics } from '../metrics.ts';
import type { ObjectStore } from '../store/store.ts';
import type { Acknowledgement } from './acknowledge.ts';
import { Copier } from './copier.ts';
import type { Share } from './governor.ts';
import { Wake } from './wake.ts';

/** What a plan says of its copies. */
export interface CopyPlan {
  readonly copies: readonly string[];
  readonly count: number;
  readonly delayMs: number;
  readonly order: readonly string[];
  readonly ack: number;
}

export interface CopiesOptions {
  /** The primary's, as it was opened. */
  readonly archive: Archive;
  readonly plan: CopyPlan;
  /** A store of the config by its name. */
  readonly openStore: (name: string) => Promise<ObjectStore>;
  /** Only a master copies; two that do at once do no harm. */
  readonly isMaster: () => boolean;
  readonly acknowledgement: Acknowledgement;
  /** Of the bandwidth, one for each copy; without it nothing is held back. */
  readonly share?: (() => Share) | undefined;
  readonly metrics: Pick<StreamMetrics, 'copies' | 'alarm'>;
  readonly log: Log;
  /** Wall clock; for tests. */
  readonly nowMs?: () => number;
  /** Told when what `status` says has changed. */
  readonly onChange: () => void;
}

/** How long the first choice waits for stores that do not answer, and how often they are asked again. */
const LOOK_MS = 5_000;
const LOOK_AGAIN_MS = 2_000;
/** How soon it is seen that this twin has become master, or is none any more. */
const WATCH_MS = 200;

/** A store that may be copied to. */
interface Place {
  readonly name: string;
  /** Once it could be opened. */
  store: ObjectStore | null;
  readonly share: Share | undefined;
  facts: CopyFacts | null;
  rank: number | null;
  copying: { readonly copier: Copier; readonly ended: Promise<void>; readonly end: AbortController } | null;
}

/**
 * Carries out what a stream's plan says of its copies, beside the role loop and never in its way: while this twin is
 * master, each copy that was chosen is brought after the primary by a loop of its own.
 */
export class Copies {
  readonly #options: CopiesOptions;
  readonly #places: readonly Place[];
  readonly #wake = new Wake();
  #end: ChainEnd | null = null;

  constructor(options: CopiesOptions) {
    this.#options = options;
    const { plan, share } = options;
    this.#places = plan.copies.map((name) => {
      return { name, store: null, share: share?.(), facts: null, rank: null, copying: null };
    });
  }

  /** The primary's chain is settled up to there; `chunk` is what came last, where that is one. */
  settled(end: ChainEnd, chunk?: Chunk): void {
    this.#end = end;
    for (const { copying } of this.#places) copying?.copier.grown(chunk?.stored.bytes ?? 0);
    this.#wake.nudge();
  }

  /** How the copies stand that this twin makes, by rank; those that were not chosen are not among them. */
  status(): CopyStatus[] {
    const { metrics, plan } = this.#options;
    const copies = this.#places
      .flatMap(({ name, rank, copying }) => (rank === null ? [] : [{ name, rank, copying }]))
      .sort((a, b) => a.rank - b.rank)
      .map(({ name, rank, copying }) => copying?.copier.status ?? notBegun(name, copyDelayMs(rank, plan)));
    metrics.copies(copies);
    metrics.alarm(
      'copy-failing',
      copies.some(({ state }) => state === 'failing'),
    );
    metrics.alarm(
      'copy-diverged',
      copies.some(({ state }) => state === 'diverged'),
    );
    return copies;
  }

  /** Runs until the signal aborts; then nothing is under way any more, but for what hangs. Never throws. */
  async keep(signal: AbortSignal): Promise<void> {
    if (this.#places.length === 0) return;
    while (!signal.aborted) {
      try {
        while (!this.#works) await this.#wake.wait(signal, WATCH_MS);
        await this.#copyWhileMaster(signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#options.log.error(`copying has failed, and begins again: ${messageOf(error)}`, { error });
        await pause(LOOK_AGAIN_MS, signal).catch(() => {});
      }
    }
  }

  get #works(): boolean {
    return this.#end !== null && this.#options.isMaster();
  }

  async #copyWhileMaster(signal: AbortSignal): Promise<void> {
    const tenure = new AbortController();
    const during = AbortSignal.any([signal, tenure.signal]);
    for (const place of this.#places) place.facts = null;
    const looking = this.#places.map((place) => this.#look(place, during));
    for (const look of looking) look.catch(() => {}); // ends with the tenure
    const chosen = this.#choose(looking, during);
    try {
      while (this.#works) await pause(WATCH_MS, signal);
    } finally {
      tenure.abort(new Error('no longer master'));
      await Promise.allSettled([chosen, ...looking]);
      await Promise.allSettled(this.#places.map((place) => this.#leave(place)));
      for (const place of this.#places) place.rank = null;
      this.#options.onChange();
    }
  }

  /** Ranks the stores once all have answered, or soon without those that do not; and anew when one comes back. */
  async #choose(looking: readonly Promise<void>[], signal: AbortSignal): Promise<void> {
    const { count, copies, delayMs } = this.#options.plan;
    const ranksMatter = count < copies.length || delayMs > 0;
    if (ranksMatter) await within(LOOK_MS, Promise.all(looking)).catch(() => {});
    if (signal.aborted) return;
    this.#rank(signal);
    for (const [index, place] of this.#places.entries()) {
      if (place.facts === null) looking[index]!.then(() => signal.aborted || this.#rank(signal)).catch(() => {});
    }
  }

  #rank(signal: AbortSignal): void {
    const { plan, log } = this.#options;
    const names = rankCopies(this.#places, plan);
    for (const place of this.#places) {
      const { name } = place;
      const rank = names.includes(name) ? names.indexOf(name) + 1 : null;
      if (rank === place.rank && place.copying) continue;
      place.rank = rank;
      const left = this.#leave(place);
      if (rank === null) continue;
      const delayMs = copyDelayMs(rank, plan);
      log.info(`copies to store ${name}`, { rank, delaySeconds: delayMs / 1000 });
      left.then(() => !signal.aborted && place.rank === rank && this.#start(place, delayMs, signal)).catch(() => {});
    }
    this.#options.onChange();
  }

  #start(place: Place, delayMs: number, signal: AbortSignal): void {
    const { archive, log, nowMs = Date.now, acknowledgement, onChange } = this.#options;
    const { store, share } = place;
    if (store === null || place.copying) return; // begun once it can be opened
    const copier = new Copier({
      ...{ archive, store, delayMs, share, log, nowMs, onState: onChange },
      end: () => this.#end!,
      onHeld: (end) => acknowledgement.held(store.name, end),
    });
    const end = new AbortController();
    const ended = copier.run(AbortSignal.any([signal, end.signal])).catch((error) => {
      if (!signal.aborted && !end.signal.aborted) log.error(`copying to ${store.name} ended: ${messageOf(error)}`);
    });
    place.copying = { copier, ended, end };
  }

  async #leave(place: Place): Promise<void> {
    const { copying } = place;
    place.copying = null;
    copying?.end.abort(new Error('not copied to any more'));
    await copying?.ended;
  }

  /** Asks a store what it is fit for until it answers. */
  async #look(place: Place, signal: AbortSignal): Promise<void> {
    const { log, openStore } = this.#options;
    for (;;) {
      if (signal.aborted) throw abortReason(signal);
      try {
        const store = await openStore(place.name);
        place.store = store;
        place.facts = await answerOf(this.#factsOf(store), { signal, onSlow: () => {} });
        return;
      } catch (error) {
        log.debug(`store ${place.name} does not say what it holds: ${messageOf(error)}`);
      }
      await pause(LOOK_AGAIN_MS, signal);
    }
  }

  async #factsOf(store: ObjectStore): Promise<CopyFacts> {
    const { info } = this.#options.archive;
    const there = await readArchive(store, info.stream);
    if (there && there.info.digest !== info.digest) return { holds: false, fits: false, freeBytes: 0 };
    const holds = there !== null;
    const freeBytes = (await store.capacity())?.freeBytes ?? null;
    return { holds, freeBytes, fits: holds || freeBytes === null || (await this.#needsAtMost(freeBytes)) };
  }

  /** Whether all that the primary holds of the archive is no more than that. */
  async #needsAtMost(maxBytes: number): Promise<boolean> {
    const { store, info } = this.#options.archive;
    let bytes = 0;
    for await (const { size } of store.list(termsPrefix(info.stream))) {
      bytes += size;
      if (bytes > maxBytes) return false;
    }
    return true;
  }
}

function notBegun(name: string, delayMs: number): CopyStatus {
  return { name, lagBytes: null, lagSeconds: null, delaySeconds: delayMs / 1000, state: 'waiting' };
}
