import { isJoined, lineageOf } from '../archive/lineage.ts';
import { patient } from '../archive/patient-store.ts';
import { answerOf, pause } from '../archive/retry.ts';
import { type Archive, findEnd, type Hint, readPlace } from '../archive/walk.ts';
import { chainStart } from '../core/archive.ts';
import { backoffMs } from '../core/backoff.ts';
import type { ChainEnd } from '../core/chain.ts';
import { copyLag } from '../core/copies.ts';
import type { Header, Read } from '../core/header.ts';
import { comparePlaces, type Place, placeKey, placeText, streamKey } from '../core/keys.ts';
import { type Log, redact } from '../core/log.ts';
import type { CopyState, CopyStatus } from '../core/status.ts';
import { abortReason, messageOf, ShipmateError } from '../errors.ts';
import type { ObjectStore } from '../store/store.ts';
import { Arrears } from './arrears.ts';
import { linked, type Next, settledBefore } from './copy-ahead.ts';
import type { Share } from './governor.ts';
import { diverged, type FloorObject, highestFloor, hole, mirror, readOrNull, readProven, wentBack } from './mirror.ts';
import { Wake } from './wake.ts';

export interface CopierOptions {
  /** The primary's. */
  readonly archive: Archive;
  /** The copy's. */
  readonly store: ObjectStore;
  /** How much later than in the primary each object is due here. */
  readonly delayMs: number;
  /** Up to where the primary's chain is known to go. */
  readonly end: () => ChainEnd;
  /** What chunks are held back by; openings, seals and floors never are. */
  readonly share?: Share | undefined;
  readonly log: Log;
  /** Wall clock. */
  readonly nowMs: () => number;
  /** Told of what the copy holds; null: it can't be relied on. */
  readonly onHeld: (end: ChainEnd | null) => void;
  readonly onState: () => void;
  /** Between attempts, at most; for tests. */
  readonly retryMs?: number;
}

/** Headers looked at ahead of what is copied, and objects on their way at once: a hung store may hold so many threads. */
const LOOK_AHEAD = 32;
const AT_ONCE = 4;
/** Of them together, unless a single one is larger. */
const BATCH_BYTES = 16 << 20;
const IDLE_MS = 60_000;
const RETRY_MS = 5_000;
const REPEAT_MS = 300_000;
const READS = { attempts: 4 };

/**
 * Follows the primary's chain as its reader, and creates the same objects in one copy. Where it goes on is what the copy
 * itself holds: nothing is kept elsewhere, so that whoever copies next, on whichever host, goes on there.
 *
 * An object is written once all before it are, but for so many that are under way at once (fewer than W, as in the
 * primary): a reader of the copy finds a chain whatever dies meanwhile. Seals and openings are written alone, so that no
 * term begins before the one before it is whole.
 */
export class Copier {
  readonly #options: CopierOptions;
  readonly #wake = new Wake();
  readonly #arrears = new Arrears();
  #at: ChainEnd | null = null;
  /** Where it was last seen to be, for the next look. */
  #hint: Hint | null = null;
  /** The last object that was written, or found to be there. */
  #newest: Place | null = null;
  #ahead: Next[] = [];
  /** When the first object that the copy lacks was written, and the newest one; null: it lacks none. */
  #nextMs: number | null = null;
  #newestMs = 0;
  #state: CopyState = 'waiting';
  #reason: string | null = null;
  #loggedAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: CopierOptions) {
    this.#options = options;
  }

  get status(): CopyStatus {
    const { store, delayMs } = this.#options;
    const { bytes: lagBytes, seconds: lagSeconds } = this.#lag();
    const reason = this.#reason === null ? {} : { reason: this.#reason };
    return { name: store.name, lagBytes, lagSeconds, delaySeconds: delayMs / 1000, state: this.#state, ...reason };
  }

  /** The primary's chain has grown by an object of so many bytes. */
  grown(bytes: number): void {
    this.#newestMs = this.#options.nowMs();
    this.#nextMs ??= this.#newestMs;
    this.#arrears.add(bytes);
    this.#wake.nudge();
  }

  /** Copies until the signal aborts (throws its reason); returns when the copy has diverged. */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => this.#arrears.stop(), { once: true });
    for (let failures = 0; ; failures++) {
      try {
        this.#at = await this.#answer(this.#begin(signal), signal);
        this.#ahead = [];
        this.#options.onHeld(this.#at);
        for (;;) {
          await this.#goOn(signal, failures > 0);
          this.#works();
          failures = 0;
        }
      } catch (error) {
        if (signal.aborted) throw abortReason(signal);
        if (error instanceof ShipmateError && error.code === 'COPY_DIVERGED') return this.#leaveAlone(error);
        this.#fails(error);
      }
      await pause(backoffMs(failures, { maxMs: this.#options.retryMs ?? RETRY_MS }), signal);
    }
  }

  /** Where the copy's chain ends now, proven to be the primary's. */
  async #begin(signal: AbortSignal): Promise<ChainEnd> {
    const { archive, store } = this.#options;
    const { stream } = archive.info;
    const key = streamKey(stream);
    const bytes = await readOrNull(archive.store, key);
    if (bytes === null) throw hole(archive, key);
    await mirror(store, key, { bytes, signal });
    const end = await this.#provenEnd(signal);
    this.#hint = end.last && { ...end.last, digest: end.digest };
    this.#newest = null;
    this.#countOn(end);
    const isBegun = (end.term > 1 || end.slot > 0) && (await isJoined(this.#copy(signal), end));
    if (isBegun) return end;
    const floor = await highestFloor(archive.store, stream);
    return floor ? await this.#beginAtFloor(floor, signal) : chainStart(archive.info);
  }

  /** Throws COPY_DIVERGED where that is not the primary's. */
  async #provenEnd(signal: AbortSignal): Promise<ChainEnd> {
    const copy = this.#copy(signal);
    const end = await this.#copyEnd(copy);
    await this.#demandSame(copy, end);
    return end;
  }

  #copy(signal: AbortSignal): Archive {
    const { archive, store } = this.#options;
    return { store: patient(store, { ...READS, signal }), info: archive.info };
  }

  /** What a failure left half done is known; else all that the copy lacks is listed. */
  #countOn(end: ChainEnd): void {
    const brought = this.#ahead.filter(({ read }) => comparePlaces(read.header, end) < 0);
    const at = brought.at(-1)?.end ?? this.#at;
    if (at === null || comparePlaces(at, end) !== 0 || this.#arrears.isLost) {
      this.#count(end);
      return;
    }
    for (const { bytes } of brought) this.#arrears.take(bytes);
    this.#ahead.splice(0, brought.length); // once, also where what follows fails
    this.#at = end;
  }

  #count(from: ChainEnd): void {
    this.#newestMs = this.#options.nowMs();
    this.#arrears.count(this.#options.archive, from, this.#options.end());
  }

  /** A copy whose own objects contradict each other is not one that a retry mends. */
  async #copyEnd(copy: Archive): Promise<ChainEnd> {
    try {
      return await findEnd(copy, this.#hint);
    } catch (error) {
      const code = error instanceof ShipmateError ? error.code : '';
      if (code === 'CHAIN_BROKEN' || code === 'BAD_OBJECT') throw diverged(copy.store, messageOf(error), error);
      if (code !== 'STORE_WENT_BACK') throw error;
      this.#options.log.warn(`the copy in store ${copy.store.name} has lost objects: they are copied again`);
      this.#hint = null;
      return findEnd(copy, null);
    }
  }

  /** What the copy's last header is must stand in the primary at the same place, or below its floor. */
  async #demandSame(copy: Archive, end: ChainEnd): Promise<void> {
    const { archive, store } = this.#options;
    const lineage = await lineageOf(copy, end, archive);
    if (lineage === 'held' || lineage === 'passed') return;
    const last = placeText(end.last!);
    if (lineage === 'other') throw diverged(store, `${last} is not what it is in the primary, or goes beyond its term`);
    if (comparePlaces(end, this.#options.end()) > 0) {
      throw diverged(store, `it goes up to ${last}, further than the primary`);
    }
    throw hole(archive, last);
  }

  /** One step: looks ahead, waits until something is due, or copies what is. `carefully`: one object, after a failure. */
  async #goOn(signal: AbortSignal, carefully: boolean): Promise<void> {
    const idleMs = this.#ahead.length === 0 ? await this.#answer(this.#look(signal), signal) : 0;
    const [next] = this.#ahead;
    const waitMs = next ? this.#dueMs(next) - this.#options.nowMs() : idleMs;
    if (!next || waitMs > 0) return this.#wake.wait(signal, Math.min(waitMs, IDLE_MS));
    const batch = this.#batch(carefully ? 1 : AT_ONCE);
    const chunkBytes = batch.reduce((sum, { read, bytes }) => sum + (read.header.kind === 'chunk' ? bytes : 0), 0);
    if (chunkBytes > 0) await this.#options.share?.take(chunkBytes, signal);
    await this.#answer(this.#bring(batch, signal), signal);
    this.#ahead.splice(0, batch.length);
    const last = batch.at(-1)!;
    this.#newest = last.place;
    this.#nextMs = (this.#ahead[0] ?? last).writtenMs;
    this.#moveTo(last.end);
    for (const { bytes } of batch) this.#arrears.take(bytes);
  }

  /** Reads the headers that come next; where there are none, returns when to look again at the latest, milliseconds. */
  async #look(signal: AbortSignal): Promise<number> {
    const { archive, nowMs } = this.#options;
    const from = this.#at!;
    const end = this.#options.end();
    const last = from.term === end.term ? end.slot : Number.POSITIVE_INFINITY;
    const count = Math.max(0, Math.min(LOOK_AHEAD, last - from.slot));
    if (from.term > end.term || count === 0) {
      this.#nextMs = null;
      this.#arrears.clear();
      return IDLE_MS;
    }
    const places = Array.from({ length: count }, (_, n) => ({ term: from.term, slot: from.slot + n }));
    const reads = await Promise.all(places.map((place) => readPlace(archive, place)));
    const ahead = linked(from, places, reads, nowMs());
    this.#nextMs = ahead[0]?.writtenMs ?? this.#nextMs;
    // Below a floor that rose meanwhile, what is met proves nothing: a seal there may be one that landed late (rule 12).
    const isSealed = ahead.at(-1)?.end.slot === 0;
    if (ahead.length === 0 || isSealed) {
      const floor = await highestFloor(archive.store, archive.info.stream);
      if (floor && comparePlaces(from, floor.end) < 0) return this.#passOver(from, floor, signal);
    }
    if (ahead.length === 0) throw hole(archive, placeText(from));
    this.#ahead = ahead;
    return 0;
  }

  /** Goes on at a floor, once that is due: a prune reaches a copy as late as what is written does. */
  async #passOver(from: ChainEnd, floor: FloorObject, signal: AbortSignal): Promise<number> {
    const { log, store, delayMs, nowMs } = this.#options;
    const waitMs = floor.timeMs === null ? 0 : floor.timeMs + delayMs - nowMs();
    if (waitMs > 0) return waitMs;
    log.warn(`the primary no longer has what the copy in store ${store.name} lacks: it goes on at the floor`, {
      lacks: placeText(from),
      floor: placeText(floor.end),
    });
    this.#moveTo(await this.#beginAtFloor(floor, signal));
    return 0;
  }

  /**
   * Readers of the copy begin at the floor from now on. What retention never deletes comes along: the openings and seals
   * before it, which prove who owns the floor's term and which branches of the log were left, and the file that a term may
   * begin with, without which its segments are of no use (a timeline's history).
   */
  async #beginAtFloor(floor: FloorObject, signal: AbortSignal): Promise<ChainEnd> {
    const { archive, store } = this.#options;
    const { term, slot, last } = floor.end;
    for (let place: Place | null = slot > 0 ? { term, slot: 0 } : last; place !== null; ) {
      const read: Read | null = await readPlace(archive, place);
      if (read === null || read.header.kind === 'chunk') break;
      await this.#mirror(place, read, signal);
      const second = { term: place.term, slot: 1 };
      const isBelow = read.header.kind === 'opening' && comparePlaces(second, floor.end) < 0;
      const first = isBelow ? await readPlace(archive, second) : null;
      if (first && isWholeFile(first.header)) await this.#mirror(second, first, signal);
      const isSealOfOpened = read.header.kind === 'seal' && place.slot > 0;
      place = isSealOfOpened ? { term: place.term, slot: 0 } : read.header.previous;
    }
    // A floor is the one object that a promotion meanwhile could not fence off: looked for in the last moment.
    await this.#provenEnd(signal);
    await mirror(store, floor.key, { bytes: floor.bytes, signal });
    this.#count(floor.end);
    return floor.end;
  }

  /** `ready`: resolves when it may be there. */
  async #mirror(
    place: Place,
    read: Read,
    signal: AbortSignal,
    ready: () => Promise<unknown> = async () => {},
  ): Promise<void> {
    const { archive, store } = this.#options;
    const key = placeKey(archive.info.stream, place);
    const bytes = await readProven(archive.store, key, read);
    await ready();
    await mirror(store, key, { bytes, signal });
  }

  /** What is due of what was looked at, as much as may be under way at once. */
  #batch(atOnce: number): Next[] {
    const nowMs = this.#options.nowMs();
    const batch: Next[] = [];
    let bytes = 0;
    for (const next of this.#ahead.slice(0, Math.min(atOnce, this.#options.archive.info.window))) {
      const isAlone = next.read.header.kind !== 'chunk';
      bytes += next.bytes;
      if (batch.length > 0 && (isAlone || bytes > BATCH_BYTES || this.#dueMs(next) > nowMs)) break;
      batch.push(next);
      if (isAlone) break;
    }
    return batch;
  }

  /** Waits for all of them, even where one fails: a store that hangs is not asked for more. */
  async #bring(batch: readonly Next[], signal: AbortSignal): Promise<void> {
    const { archive, store } = this.#options;
    const looking = this.#newest && store.head(placeKey(archive.info.stream, this.#newest));
    looking?.catch(() => {});
    const copying: Promise<void>[] = [];
    for (const { place, read } of batch) {
      const before = copying.slice(0, settledBefore(read.header, batch[0]!.place));
      copying.push(this.#mirror(place, read, signal, () => Promise.all(before)));
    }
    const outcomes = await Promise.allSettled(copying);
    const failed = outcomes.filter((outcome) => outcome.status === 'rejected').map(({ reason }) => reason);
    const isDiverged = (error: unknown) => error instanceof ShipmateError && error.code === 'COPY_DIVERGED';
    if (failed.length > 0) throw failed.find(isDiverged) ?? failed[0];
    if (looking && (await looking) === null) throw wentBack(store, this.#newest!);
  }

  /** A clock that was set back meanwhile must not hold up what has no delay. */
  #dueMs({ writtenMs }: Next): number {
    const { delayMs, nowMs } = this.#options;
    return Math.min(writtenMs, nowMs()) + delayMs;
  }

  #moveTo(end: ChainEnd): void {
    this.#at = end;
    this.#hint = end.last && { ...end.last, digest: end.digest };
    this.#options.onHeld(end);
  }

  #lag(): { readonly bytes: number | null; readonly seconds: number | null } {
    const { delayMs, nowMs } = this.#options;
    if (this.#at === null) return { bytes: null, seconds: null };
    if (this.#nextMs === null) return { bytes: 0, seconds: 0 };
    const { bytes: missingBytes } = this.#arrears;
    return copyLag({ missingBytes, nextMs: this.#nextMs, newestMs: this.#newestMs, delayMs, nowMs: nowMs() });
  }

  #answer<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
    return answerOf(work, { signal, onSlow: (error) => this.#fails(error) });
  }

  #works(): void {
    if (this.#state === 'ok') return;
    if (this.#state === 'failing') this.#options.log.info(`the copy in store ${this.#options.store.name} works again`);
    this.#enter('ok', null);
  }

  #fails(error: unknown): void {
    const { log, store } = this.#options;
    const { code, hint } = error instanceof ShipmateError ? error : {};
    if (this.#state !== 'failing' || performance.now() - this.#loggedAtMs > REPEAT_MS) {
      this.#loggedAtMs = performance.now();
      log.warn(`the copy in store ${store.name} has to wait: ${messageOf(error)}`, { code, hint });
    }
    this.#enter('failing', redact(messageOf(error)));
  }

  #leaveAlone(error: ShipmateError): void {
    this.#options.log.error(error.message, { code: error.code, hint: error.hint });
    this.#options.onHeld(null);
    this.#enter('diverged', error.message);
  }

  #enter(state: CopyState, reason: string | null): void {
    const isNews = state !== this.#state;
    this.#state = state;
    this.#reason = reason;
    if (isNews) this.#options.onState();
  }
}

/** Whether the chunk is all of a segment. */
const isWholeFile = (header: Header) => header.kind === 'chunk' && header.from.offset === 0 && header.endsSegment;
