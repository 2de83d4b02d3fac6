import type { Log } from '../../core/log.ts';
import type { Position } from '../../core/position.ts';
import { abortReason, Discontinuity, messageOf } from '../../errors.ts';
import type { LogSlice } from '../source.ts';
import type { Tailer } from '../tailer.ts';
import type { Binlogs, Lineage } from './binlogs.ts';
import { type Flavour, gtidStateAt } from './gtid.ts';
import { isBetweenTransactions, replay } from './replay.ts';
import type { Segment } from './segment.ts';
import { type Extent, SliceBuffer, Slices } from './slices.ts';
import { Transactions } from './transactions.ts';

export interface ReaderOptions {
  readonly stream: string;
  readonly binlogs: Binlogs;
  readonly tailer: Tailer;
  readonly flavour: Flavour;
  readonly maxSliceBytes: number;
  readonly log: Log;
}

/**
 * Follows the log from a position on, file after file. While it reads, descriptors keep what it has yet to read; when the
 * log is replaced it drains the old one first.
 */
export class LogReader {
  readonly #options: ReaderOptions;
  readonly #signal: AbortSignal;
  readonly #buffer: SliceBuffer;
  #lineage: Lineage | null = null;
  #segment: Segment | null = null;

  constructor(options: ReaderOptions, signal: AbortSignal) {
    this.#options = options;
    this.#signal = signal;
    this.#buffer = new SliceBuffer(options.maxSliceBytes);
  }

  async *read(from: Position | null): AsyncGenerator<LogSlice, never> {
    try {
      let slices = await this.#begin(from);
      for (;;) {
        yield* this.#file(slices);
        slices = await this.#nextFile();
      }
    } finally {
      await this.#segment?.release();
      await this.#lineage?.leave();
    }
  }

  /** All of the current file, waiting for more at its end until a successor is listed. */
  async *#file(slices: Slices): AsyncGenerator<LogSlice> {
    for (;;) {
      const mark = this.#options.tailer.mark();
      const trouble = await this.#refresh();
      const extent = await this.#extent(slices.readTo);
      for (;;) {
        if (this.#signal.aborted) throw abortReason(this.#signal);
        const slice = (await slices.next(extent)) ?? (await this.#rest(slices, extent));
        if (!slice) break;
        yield slice;
      }
      if (extent.ended) return;
      if (trouble) throw trouble;
      if (this.#lineage!.ended) throw this.#replaced();
      await this.#wait(mark);
    }
  }

  /** Looks at the index. Where that fails, what the descriptors keep is read to its end before the failure counts. */
  async #refresh(): Promise<Error | null> {
    try {
      await this.#options.binlogs.look();
      return null;
    } catch (error) {
      return error instanceof Error ? error : new Error(messageOf(error));
    }
  }

  /** How far the current file may be read: to its size, once that much is durable. */
  async #extent(readTo: number): Promise<Extent> {
    const segment = this.#segment!;
    // The order counts: a file's size is final only once its successor is listed.
    const ended = this.#lineage!.next(segment) !== undefined;
    const size = await segment.measure();
    if (size < readTo) throw this.#discontinuity(`it is shorter (${size} bytes) than what was read of it (${readTo})`);
    if (!(await segment.beginsAsBefore())) throw this.#replaced();
    await segment.sync(size);
    return { size, ended };
  }

  async #rest(slices: Slices, extent: Extent): Promise<LogSlice | null> {
    if (!extent.ended) return null;
    const slice = await slices.rest(extent);
    if (slice) {
      this.#options.log.warn('a binlog ends inside a transaction, as a crash leaves it; shipped as it is', {
        file: this.#segment!.path,
        offset: slice.from.offset,
        bytes: slice.bytes.length,
      });
    }
    return slice;
  }

  async #begin(from: Position | null): Promise<Slices> {
    for (;;) {
      if (this.#signal.aborted) throw abortReason(this.#signal);
      const mark = this.#options.tailer.mark();
      const newest = await this.#options.binlogs.look();
      // Once begun with one life of the log it is read to its end, even if it is replaced before the first byte.
      const lineage = this.#lineage ?? newest;
      const slices = from ? await this.#resume(lineage, from) : await this.#start(lineage, lineage.segments[0]);
      if (slices) return slices;
      await this.#wait(mark);
    }
  }

  /** The start of a file; null while its first events are being written. */
  async #start(lineage: Lineage, segment: Segment | undefined): Promise<Slices | null> {
    if (!segment || !(await this.#enter(lineage, segment))) return null;
    const header = await lineage.header(segment);
    if (!header && lineage.ended) throw this.#replaced();
    if (!header) return null;
    const { flavour, log } = this.#options;
    const transactions = new Transactions(flavour, gtidStateAt(flavour, header.startId));
    const place = { offset: 0, id: header.startId, insideEventTo: null };
    return new Slices({ segment, header, flavour, transactions, ...place, buffer: this.#buffer, log });
  }

  /** Goes on at a position; null while the event there, which tells where it stands, is not whole. */
  async #resume(lineage: Lineage, from: Position): Promise<Slices | null> {
    const { flavour, log } = this.#options;
    const segment = lineage.find(from);
    if (!segment || !(await this.#enter(lineage, segment))) {
      throw new Discontinuity(`stream ${this.#options.stream}: the binlog ${from.segment} is gone`);
    }
    const ended = lineage.next(segment) !== undefined;
    const header = await lineage.header(segment);
    if (header && (header.origin !== from.origin || header.incarnation !== from.incarnation)) throw this.#replaced();
    if (!header) return null;
    if (from.offset === 0) return this.#start(lineage, segment);
    const size = await segment.measure();
    if (size < from.offset) throw this.#discontinuity(`it ends at ${size}, before offset ${from.offset}`);
    if (size === from.offset && !ended && !lineage.ended) return null;

    const transactions = new Transactions(flavour, gtidStateAt(flavour, from.id));
    const place = { offset: from.offset, id: from.id, buffer: this.#buffer, log };
    if (size === from.offset || (await isBetweenTransactions(segment, header, from.offset))) {
      return new Slices({ segment, header, flavour, transactions, ...place, insideEventTo: null });
    }
    const replayed = await replay({ segment, header, flavour, upTo: from.offset, bytes: this.#buffer.bytes });
    return new Slices({ segment, header, flavour, ...place, ...replayed });
  }

  /** Goes over to the file after the one that ended. */
  async #nextFile(): Promise<Slices> {
    const before = this.#segment!;
    const lineage = this.#lineage!;
    const { origin } = (await before.header({ ended: true }))!;
    for (;;) {
      const mark = this.#options.tailer.mark();
      const trouble = await this.#refresh();
      const next = lineage.next(before);
      if (!next && trouble) throw trouble;
      if (!next || next.number !== before.number + 1) {
        throw this.#discontinuity(next ? `the next one here is ${next.name}` : 'its successor is gone');
      }
      const slices = await this.#start(lineage, next);
      if (slices) {
        const header = (await next.header({ ended: true }))!;
        if (header.origin !== origin)
          throw this.#discontinuity(`it is of ${header.origin}, the one before of ${origin}`);
        return slices;
      }
      await this.#wait(mark);
    }
  }

  /** Makes the segment the current one; false if its file is gone. */
  async #enter(lineage: Lineage, segment: Segment): Promise<boolean> {
    if (segment === this.#segment) return true;
    if (!(await segment.retain())) return false;
    await this.#segment?.release();
    this.#segment = segment;
    if (lineage !== this.#lineage) {
      lineage.enter();
      await this.#lineage?.leave();
      this.#lineage = lineage;
      await lineage.holdToo(segment);
    }
    this.#follow();
    return true;
  }

  #follow(): void {
    const { binlogs, tailer } = this.#options;
    tailer.follow([binlogs.index, this.#segment?.path].filter((path) => typeof path === 'string'));
  }

  async #wait(mark: number): Promise<void> {
    if (!this.#segment) this.#follow();
    await this.#options.tailer.changed(mark, this.#signal);
    if (this.#signal.aborted) throw abortReason(this.#signal);
  }

  #replaced(): Discontinuity {
    return this.#discontinuity('it was replaced (RESET MASTER, or a data directory put back)');
  }

  #discontinuity(what: string): Discontinuity {
    return new Discontinuity(
      `stream ${this.#options.stream}: the binlogs no longer go on from ${this.#segment!.name}: ${what}`,
    );
  }
}
