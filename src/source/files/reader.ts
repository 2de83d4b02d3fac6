import type { Position } from '../../core/position.ts';
import { abortReason, Discontinuity } from '../../errors.ts';
import type { LogSlice } from '../source.ts';
import type { Tailer } from '../tailer.ts';
import type { Directory } from './directory.ts';
import { late, misordered, shrunk } from './errors.ts';
import type { LogFile } from './file.ts';
import { startOf } from './place.ts';
import { Slices } from './slices.ts';

export interface ReaderOptions {
  readonly stream: string;
  readonly origin: string;
  readonly directory: Directory;
  readonly tailer: Tailer;
  readonly maxSliceBytes: number;
}

/** Follows the log from a position on, file after file. What it has yet to read, descriptors keep. */
export class FilesReader {
  readonly #options: ReaderOptions;
  readonly #signal: AbortSignal;
  readonly #buffer: Buffer;
  #file: LogFile | null = null;
  /** How long the current file has not grown, while another follows it. */
  #quiet = { size: -1, sinceMs: 0 };

  constructor(options: ReaderOptions, signal: AbortSignal) {
    this.#options = options;
    this.#signal = signal;
    this.#buffer = Buffer.allocUnsafeSlow(options.maxSliceBytes);
  }

  async *read(from: Position | null): AsyncGenerator<LogSlice, never> {
    try {
      let slices = await this.#begin(from);
      for (;;) {
        yield* this.#rest(slices);
        slices = await this.#goOver();
      }
    } finally {
      await this.#file?.release();
    }
  }

  /** All of the current file, waiting for more at its end until it has ended. */
  async *#rest(slices: Slices): AsyncGenerator<LogSlice> {
    const { directory, tailer } = this.#options;
    const file = this.#file!;
    for (;;) {
      const mark = tailer.mark();
      await directory.look();
      this.#demandNothingLate();
      // The order counts: a file's size is final only once another follows it.
      const hasNext = directory.next(file) !== undefined;
      const size = await this.#measure(slices.offset);
      if (!(await slices.isAsBefore())) {
        await this.#measure(slices.offset); // it may have been shortened only now
        throw this.#overwritten();
      }
      const ended = directory.layout.isComplete(file.name) || (hasNext && this.#isQuiet(size));
      await file.sync(size);
      for (;;) {
        if (this.#signal.aborted) throw abortReason(this.#signal);
        const slice = await slices.next({ size, ended });
        if (!slice) break;
        yield slice;
      }
      if (ended && hasNext && (await this.#measure(slices.offset)) === slices.offset) {
        file.endedAt = slices.offset;
        return;
      }
      await this.#wait(mark);
    }
  }

  /** Where the log goes on when the position is given; at the oldest byte otherwise, once there is one. */
  async #begin(from: Position | null): Promise<Slices> {
    const { directory } = this.#options;
    for (;;) {
      if (this.#signal.aborted) throw abortReason(this.#signal);
      const mark = this.#options.tailer.mark();
      await directory.look();
      const file = from ? await this.#find(from) : directory.oldest;
      if (file) {
        directory.shrunk = null;
        return this.#enter(file, from);
      }
      await this.#wait(mark);
    }
  }

  async #find(from: Position): Promise<LogFile> {
    const { directory, origin } = this.#options;
    const [file, another] = from.origin === origin ? await directory.candidates(from) : [];
    if (!file) throw this.#discontinuity(`${from.segment} is not here as it was shipped`);
    if (another) throw this.#discontinuity(`${file.name} and ${another.name} both begin as ${from.segment} does`);
    return file;
  }

  async #enter(file: LogFile, from: Position | null): Promise<Slices> {
    const { directory, origin } = this.#options;
    if (!(await file.retain())) throw this.#discontinuity(`${file.path} was removed before it was shipped`);
    const before = this.#file;
    this.#file = file;
    await before?.release();
    const at = from ?? (await startOf(directory, origin, file));
    if (before && at.segment === before.bound?.segment)
      throw this.#discontinuity(`the name ${at.segment} is used again`);
    directory.bind(file, at);
    await directory.holdToo(file);
    // What lies before was shipped, by whomever: more than that must not come.
    const earlier = directory.files.slice(0, directory.files.indexOf(file));
    if (!before) for (const each of earlier) each.endedAt ??= each.size;
    this.#quiet = { size: -1, sinceMs: 0 };
    return new Slices(at, { file, scanner: () => directory.layout.scanner(at.segment), buffer: this.#buffer });
  }

  /** Goes over to the file after the one that ended. */
  async #goOver(): Promise<Slices> {
    const { directory } = this.#options;
    const file = this.#file!;
    const next = directory.next(file);
    if (!next || !directory.goesOn(file, next)) {
      throw this.#discontinuity(
        `what follows ${file.name} is gone${next ? `: the next one here is ${next.name}` : ''}`,
      );
    }
    if (directory.isMisordered(file, next)) throw misordered(file.path, next.path);
    return this.#enter(next, null);
  }

  async #measure(offset: number): Promise<number> {
    const file = this.#file!;
    const size = (await file.measure()) ?? 0;
    if (size >= offset) return size;
    this.#options.directory.shrunk = file;
    throw shrunk(file.path, { size, offset });
  }

  /**
   * A writer may still write its last lines to a file when the next one is there. Times are compared within the file
   * system, whose clock may be another than ours.
   */
  #isQuiet(size: number): boolean {
    const { directory } = this.#options;
    const { settleMs } = directory.layout;
    const file = this.#file!;
    const nowMs = performance.now();
    if (size !== this.#quiet.size) this.#quiet = { size, sinceMs: nowMs };
    const laterMs = Math.max(
      ...directory
        .from(file)
        .slice(1)
        .map(({ modifiedMs }) => modifiedMs),
    );
    return nowMs - this.#quiet.sinceMs >= settleMs || laterMs - file.modifiedMs >= settleMs;
  }

  #demandNothingLate(): void {
    const { files, layout } = this.#options.directory;
    const earlier = files
      .slice(0, files.indexOf(this.#file!))
      .filter(({ listed, name }) => listed && layout.isPart(name));
    for (const file of earlier) {
      file.endedAt ??= 0;
      if (file.size > file.endedAt) throw late(file.path, { from: file.endedAt, size: file.size });
    }
  }

  async #wait(mark: number): Promise<void> {
    await this.#options.tailer.changed(mark, this.#signal);
    if (this.#signal.aborted) throw abortReason(this.#signal);
  }

  #overwritten(): Discontinuity {
    this.#options.directory.shrunk = this.#file;
    return this.#discontinuity(`${this.#file!.path} was overwritten: it no longer holds what was read of it`);
  }

  #discontinuity(what: string): Discontinuity {
    return new Discontinuity(`stream ${this.#options.stream}: ${what}`);
  }
}
