import { pause, retry, within } from '../archive/retry.ts';
import type { Writer } from '../archive/takeover.ts';
import type { Archive } from '../archive/walk.ts';
import type { BlockPool } from '../codec/blocks.ts';
import type { Encoder } from '../codec/encoder.ts';
import type { CursorBoard, Leadership } from '../coordination/coordination.ts';
import { backoffMs } from '../core/backoff.ts';
import type { ChainEnd } from '../core/chain.ts';
import type { Chunk } from '../core/header.ts';
import type { Log } from '../core/log.ts';
import type { Position } from '../core/position.ts';
import { Discontinuity } from '../errors.ts';
import type { StreamMetrics } from '../metrics.ts';
import type { LogSlice, LogSource } from '../source/source.ts';
import { Acknowledgement } from './acknowledge.ts';
import { Chunker, type Cut } from './chunker.ts';
import { cursorOf } from './cursor.ts';
import { Latest } from './latest.ts';
import type { Trouble } from './trouble.ts';
import { UploadWindow } from './window.ts';

export interface TermOptions {
  readonly archive: Archive;
  readonly source: LogSource;
  readonly cursors: CursorBoard;
  readonly leadership: Leadership;
  readonly writer: Writer;
  readonly chunk: { readonly maxBytes: number; readonly maxDelayMs: number };
  readonly pool: BlockPool;
  readonly encoder: Encoder;
  readonly metrics: StreamMetrics;
  readonly log: Log;
  readonly trouble: Trouble;
  /** Monotonic, milliseconds. */
  readonly nowMs: () => number;
  /** Which stores must hold what the source is acknowledged; by default the primary alone. */
  readonly acknowledgement?: Acknowledgement;
  readonly onSettled: (end: ChainEnd, chunk: Chunk) => void;
}

/** How long what a term has under way may take to end: the lease is never held for what hangs. */
const END_MS = 1_000;
/** A source that could be read for so long without a failure works, if nothing is left to read. */
const STEADY_MS = 10_000;
/** How exactly a log tells when something was written. */
const EVENT_TIME_MS = 1_000;

/**
 * One master's unbroken reign, from its opening on: reads the log, cuts chunks, uploads them, and tells the twins and
 * the source how far it got. The logs on disk are the queue: what isn't read yet waits there.
 */
export class Term {
  readonly #options: TermOptions;
  readonly #window: UploadWindow;
  readonly #chunker: Chunker;
  readonly #ending = new AbortController();
  readonly #toSave: Latest<ChainEnd>;
  readonly #acknowledgement: Acknowledgement;
  #readUpTo: Position | null;
  #lastCutMs = Number.NEGATIVE_INFINITY;
  #awaitsSlice = false;

  constructor(opened: ChainEnd, options: TermOptions) {
    const { archive, writer, encoder, chunk, pool, nowMs, trouble } = options;
    this.#options = options;
    this.#readUpTo = opened.position;
    this.#chunker = new Chunker({ maxBytes: chunk.maxBytes, pool, nowMs });
    this.#toSave = new Latest(opened);
    this.#acknowledgement = options.acknowledgement ?? new Acknowledgement(1);
    this.#acknowledgement.settled(opened);
    this.#window = new UploadWindow(opened, {
      archive,
      writer,
      encoder,
      upload: { signal: this.#ending.signal, onFailure: trouble.reporter('store') },
      onSettled: (header, cut) => this.#settled(header, cut),
      onFailure: (error) => this.#ending.abort(error),
    });
  }

  /** The chain up to which everything is durable. */
  get end(): ChainEnd {
    return this.#window.settled;
  }

  /**
   * Whether the source alone can get it on. There may be unread bytes all the same: a large event of which the server has
   * written only a part is none yet.
   */
  get waitsForSource(): boolean {
    return this.#awaitsSlice && this.#window.isEmpty;
  }

  /**
   * Ships until the signal aborts (throws its reason), proof comes that the term is over (Deposed), or the log does not
   * go on (Discontinuity, after everything before that is durable).
   */
  async run(signal: AbortSignal): Promise<never> {
    const end = () => this.#ending.abort(signal.reason);
    signal.addEventListener('abort', end, { once: true });
    if (signal.aborted) end();
    const inner = this.#ending.signal;
    const shipping = this.#ship(inner).finally(() => this.#chunker.drop());
    const tasks = [shipping, this.#saveCursors(inner), this.#acknowledge(inner)];
    try {
      return await Promise.race([aborted(inner), ...tasks]);
    } finally {
      signal.removeEventListener('abort', end);
      this.#ending.abort(new Error('the term is over'));
      await within(END_MS, Promise.allSettled(tasks)).catch(() => {
        this.#options.log.warn('a term is over, but its source or etcd hangs: left behind');
      });
    }
  }

  /** Reads the log from where the last slice ended, again after every failure that may pass. */
  async #ship(signal: AbortSignal): Promise<never> {
    const { source, trouble } = this.#options;
    for (let failures = 0; ; failures++) {
      const before = this.#readUpTo;
      try {
        await this.#gather(source.read(this.#readUpTo, signal), signal);
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof Discontinuity) {
          await this.#flush(signal);
          throw error;
        }
        if (this.#readUpTo !== before) failures = 0;
        trouble.report('source', error);
        await pause(backoffMs(failures), signal);
      }
    }
  }

  async #gather(slices: AsyncIterable<LogSlice>, signal: AbortSignal): Promise<void> {
    const iterator = slices[Symbol.asyncIterator]();
    const over = new AbortController();
    const steady = setTimeout(() => this.#clearIfAllIsRead(over.signal), STEADY_MS);
    try {
      const ask = () => {
        const next = iterator.next();
        next.catch(() => {}); // where a cut fails meanwhile, nobody awaits it
        return next;
      };
      let next = ask();
      for (;;) {
        while (this.#chunker.ready && (await this.#dueBefore(next))) await this.#cut(signal);
        this.#awaitsSlice = true;
        const { value: slice, done } = await next;
        this.#awaitsSlice = false;
        if (done) return;
        this.#options.trouble.clear('source');
        while (!this.#chunker.fits(slice)) await this.#cut(signal);
        await this.#chunker.add(slice, signal);
        this.#readUpTo = slice.to;
        next = ask();
      }
    } finally {
      this.#awaitsSlice = false;
      over.abort();
      clearTimeout(steady);
      await iterator.return?.().catch(() => {});
    }
  }

  /**
   * A log that nobody writes to gives no slice by which it would show that it can be read again. That a read has not failed
   * shows nothing: it may hang.
   */
  async #clearIfAllIsRead(over: AbortSignal): Promise<void> {
    const { source, trouble, log } = this.#options;
    try {
      const { bytes } = await source.backlog(this.#readUpTo);
      if (bytes === 0 && !over.aborted) trouble.clear('source');
    } catch (error) {
      log.debug('the backlog could not be measured', { error });
    }
  }

  /**
   * Whether what is gathered is due before the next slice is there: `maxDelay` after the last cut, so that the first
   * bytes after a pause leave at once. Full windows let chunks grow instead.
   */
  async #dueBefore(next: Promise<unknown>): Promise<boolean> {
    const { chunk, nowMs } = this.#options;
    const waitMs = this.#lastCutMs + chunk.maxDelayMs - nowMs();
    if (waitMs <= 0 && this.#window.hasRoom) return true;
    const { promise: waited, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, Math.max(0, waitMs));
    const due = waited.then(() => this.#window.room()).then(() => true);
    due.catch(() => {}); // a failed window aborts the term by itself
    try {
      return await Promise.race([next.then(() => false), due]);
    } finally {
      clearTimeout(timer);
    }
  }

  async #cut(signal: AbortSignal): Promise<void> {
    await this.#window.room();
    signal.throwIfAborted();
    const cut = await this.#chunker.take(signal);
    if (cut === null) return;
    this.#lastCutMs = this.#options.nowMs();
    this.#window.submit(cut);
  }

  /** Rule 8: what was read before the log broke off is settled first. */
  async #flush(signal: AbortSignal): Promise<void> {
    while (!this.#chunker.empty) await this.#cut(signal);
    await this.#window.drained();
  }

  #settled(header: Chunk, cut: Cut): void {
    const { metrics, nowMs, trouble, onSettled } = this.#options;
    trouble.clear('store');
    metrics.shipped({
      plainBytes: header.length,
      storedBytes: header.stored.bytes,
      writeToDurableMs: Math.max(nowMs() - cut.readAtMs, ageMs(cut)),
    });
    this.#toSave.set(this.#window.settled);
    this.#acknowledgement.settled(this.#window.settled);
    onSettled(this.#window.settled, header);
  }

  /** Rule 7: what is settled is saved as the cursor; a failed compare of the leader key ends the term. */
  async #saveCursors(signal: AbortSignal): Promise<never> {
    const { cursors, leadership, trouble } = this.#options;
    for (;;) {
      await this.#toSave.next(signal);
      await retry(() => cursors.save(cursorOf(this.end, this.#acknowledgement), leadership), {
        signal,
        onFailure: trouble.reporter('coordination'),
        maxMs: 1_000,
      });
      trouble.clear('coordination');
    }
  }

  /**
   * Neither waits for the other: what is settled stays in the chain whatever etcd says. Where copies count, the twins are
   * told as well, who acknowledge on their own servers.
   */
  async #acknowledge(signal: AbortSignal): Promise<never> {
    const { source, trouble } = this.#options;
    for (;;) {
      const { position } = await this.#acknowledgement.next(signal);
      if (this.#acknowledgement.stores > 1) this.#toSave.set(this.end);
      if (position === null) continue;
      await retry(() => source.acknowledge(position), { signal, onFailure: trouble.reporter('acknowledge') });
      trouble.clear('acknowledge');
    }
  }
}

/** Of a chunk's oldest event, at the least: binlogs give whole seconds. What waited in the log unread has waited too. */
function ageMs({ firstEventMs }: Cut): number {
  return firstEventMs === null ? 0 : Date.now() - firstEventMs - EVENT_TIME_MS;
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const fail = () => reject(signal.reason);
    if (signal.aborted) fail();
    else signal.addEventListener('abort', fail, { once: true });
  });
}
