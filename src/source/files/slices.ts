import type { Position } from '../../core/position.ts';
import type { LogSlice } from '../source.ts';
import type { LogFile } from './file.ts';
import { idText, placeOf } from './names.ts';
import type { Scanner } from './scan.ts';

export interface SlicesOptions {
  readonly file: LogFile;
  readonly scanner: () => Scanner;
  /** As long as the longest slice. */
  readonly buffer: Buffer;
}

/** How far a file may be read now. */
export interface Extent {
  /** Bytes before this are there and durable. */
  readonly size: number;
  /** Whether `size` is the file's end for good. */
  readonly ended: boolean;
}

/** What was handed out last is compared again: a file that was overwritten in place is found by it. */
const TAIL_BYTES = 4096;

/**
 * Cuts one file into slices: up to the last record's end that the buffer holds; pieces of a record that is larger. What
 * is left of an unfinished one is read again when the file has grown, since until it is shipped it may be taken back.
 */
export class Slices {
  /** Up to where slices were handed out. */
  offset: number;
  readonly #options: SlicesOptions;
  readonly #place: Position;
  /** Where the last whole record before `offset` ends: what IDs name. */
  #recordEnd: number;
  #scanner: Scanner | null = null;
  /** Where the scanner began. */
  #scannedFrom = 0;
  #ms: number | null = null;
  /** The last bytes before `offset`, as far as they were handed out. */
  #tail = Buffer.alloc(0);

  constructor(at: Position, options: SlicesOptions) {
    this.#options = options;
    this.#place = at;
    this.offset = at.offset;
    this.#recordEnd = Math.min(placeOf(at.id)?.offset ?? at.offset, at.offset);
  }

  /** Whether the file still holds what was handed out of it last. */
  async isAsBefore(): Promise<boolean> {
    const there = Buffer.alloc(this.#tail.length);
    const filled = await fill(this.#options.file, there, this.offset - there.length);
    return filled === there.length && there.equals(this.#tail);
  }

  /** The next slice; null when the file must grow first, or has ended. */
  async next({ size, ended }: Extent): Promise<LogSlice | null> {
    const { file, buffer } = this.#options;
    if (this.offset === size) return null;
    const scanner = await this.#scannerHere();
    const wanted = Math.min(buffer.length, size - this.offset);
    const filled = await fill(file, buffer.subarray(0, wanted), this.offset);
    scanner.feed(buffer.subarray(0, filled));
    const recordEnd = this.#scannedFrom + scanner.boundary;
    const isWhole = ended && this.offset + filled === size;
    if (recordEnd > this.offset) return this.#take(recordEnd, scanner, { size, ended });
    if (isWhole) return this.#take(size, scanner, { size, ended });
    if (filled < buffer.length) {
      this.#scanner = null;
      return null;
    }
    const from = this.#position(this.offset);
    this.offset += filled;
    return this.#slice(from, buffer.subarray(0, filled), { boundary: false, endsSegment: false }, scanner.ms);
  }

  /** What the scanner has seen behind the record's end is scanned again. */
  #take(to: number, scanner: Scanner, { size, ended }: Extent): LogSlice {
    const from = this.#position(this.offset);
    const bytes = this.#options.buffer.subarray(0, to - this.offset);
    this.offset = to;
    this.#recordEnd = to;
    this.#scanner = null;
    return this.#slice(from, bytes, { boundary: true, endsSegment: ended && to === size }, scanner.ms);
  }

  #slice(
    from: Position,
    bytes: Uint8Array,
    flags: Pick<LogSlice, 'boundary' | 'endsSegment'>,
    lastEventMs: number | null,
  ): LogSlice {
    const firstEventMs = this.#ms ?? lastEventMs;
    this.#ms = lastEventMs ?? this.#ms;
    this.#tail = Buffer.concat([this.#tail, bytes.subarray(-TAIL_BYTES)]).subarray(-TAIL_BYTES);
    return { from, to: this.#position(this.offset), bytes, ...flags, firstEventMs, lastEventMs: this.#ms };
  }

  /** A scanner that has seen the current record up to `offset`. */
  async #scannerHere(): Promise<Scanner> {
    const { file, scanner: begin, buffer } = this.#options;
    if (this.#scanner) return this.#scanner;
    const scanner = begin();
    this.#scanner = scanner;
    this.#scannedFrom = scanner.mayBeginInside ? this.offset : this.#recordEnd;
    for (let at = this.#scannedFrom; at < this.offset; ) {
      const filled = await fill(file, buffer.subarray(0, Math.min(buffer.length, this.offset - at)), at);
      if (filled === 0) break;
      scanner.feed(buffer.subarray(0, filled));
      at += filled;
    }
    return scanner;
  }

  #position(offset: number): Position {
    const { origin, incarnation, segment } = this.#place;
    return { origin, incarnation, segment, offset, id: idText(segment, this.#recordEnd) };
  }
}

async function fill(file: LogFile, into: Buffer, offset: number): Promise<number> {
  let filled = 0;
  while (filled < into.length) {
    const read = await file.read(into, filled, into.length - filled, offset + filled);
    if (read === 0) break;
    filled += read;
  }
  return filled;
}
