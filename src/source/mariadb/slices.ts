import { crc32 } from '@node-rs/crc32';
import type { Log } from '../../core/log.ts';
import type { Position } from '../../core/position.ts';
import type { LogSlice } from '../source.ts';
import { corrupt } from './errors.ts';
import { CHECKSUM_BYTES, eventLength, eventMs, eventType, HEADER_BYTES, MAGIC, TYPE, typeName, u32 } from './events.ts';
import { type Fault, Framer } from './frames.ts';
import { type Flavour, gtidText, MariadbGtidState, placeId } from './gtid.ts';
import type { Segment, SegmentHeader } from './segment.ts';
import { isGtid, type Transactions } from './transactions.ts';

/** Memory that the slices of one reader are cut from, file after file: as long as the longest slice. */
export class SliceBuffer {
  readonly bytes: Buffer;
  readonly framer: Framer;

  constructor(maxSliceBytes: number) {
    this.bytes = Buffer.allocUnsafeSlow(maxSliceBytes);
    this.framer = new Framer(maxSliceBytes);
  }
}

export interface SlicesOptions {
  readonly segment: Segment;
  readonly header: SegmentHeader;
  readonly flavour: Flavour;
  readonly transactions: Transactions;
  /** Where to begin: an event's start, or inside one that is too large for a slice. */
  readonly offset: number;
  /** The ID there. */
  readonly id: string;
  /** Where the event ends that `offset` lies in; null: it lies in none. */
  readonly insideEventTo: number | null;
  readonly buffer: SliceBuffer;
  readonly log: Log;
}

/** How far a file may be read now. */
export interface Extent {
  /** Bytes before this are there and durable. */
  readonly size: number;
  /** Whether `size` is the file's end for good. */
  readonly ended: boolean;
}

/** Bytes handed out piece by piece: an event that is too large for the buffer, or what a crash left of one. */
interface Pieces {
  readonly end: number;
  readonly ms: number | null;
  readonly isTorn: boolean;
}

/**
 * Cuts one file into slices: up to the last transaction boundary that the buffer holds; whole events of a transaction
 * that fills the buffer; pieces of an event that does.
 */
export class Slices {
  readonly #options: SlicesOptions;
  readonly #bytes: Buffer;
  /** File offset of the buffer's first byte, which is an event's (in pieces: any) or the file's first. */
  #offset: number;
  /** The buffer holds #filled bytes, whole events up to #scanned, whole transactions up to #boundary. */
  #filled = 0;
  #scanned = 0;
  #boundary = 0;
  /** The last slice is still in the buffer's first bytes. */
  #taken = 0;
  #fault: Fault | null = null;
  #hasToldSkip = false;
  #pieces: Pieces | null;
  #id: string;
  #boundaryMs: number | null = null;
  #scannedMs: number | null = null;

  constructor(options: SlicesOptions) {
    this.#options = options;
    this.#bytes = options.buffer.bytes;
    this.#offset = options.offset;
    this.#id = options.id;
    const { insideEventTo } = options;
    this.#pieces = insideEventTo === null ? null : { end: insideEventTo, ms: null, isTorn: false };
  }

  /** File offset up to which bytes were read, handed out or not. */
  get readTo(): number {
    return this.#offset + this.#filled;
  }

  /** The next slice; null when the file must grow first, or has no whole event left. Throws SOURCE_CORRUPT. */
  async next(extent: Extent): Promise<LogSlice | null> {
    this.#drop();
    if (this.#pieces) return this.#piece(this.#pieces, extent);
    await this.#fill(extent.size);
    this.#scan();
    if (this.#boundary > 0) return this.#take(this.#boundary, extent);
    if (this.#fault) await this.#judge(this.#fault, extent);
    else if (this.#scanned > 0 && this.#filled === this.#bytes.length) return this.#take(this.#scanned, extent);
    else if (this.#scanned === 0 && this.#largeEventEnd() <= extent.size) return this.#largeEvent(extent);
    return null;
  }

  /** What an ended file has left when `next` finds no more: the traces of a crash, byte for byte. Null: nothing. */
  async rest(extent: Extent): Promise<LogSlice | null> {
    this.#drop();
    if (this.#offset === extent.size) return null;
    this.#pieces = { end: extent.size, ms: null, isTorn: true };
    return this.#piece(this.#pieces, extent);
  }

  #drop(): void {
    if (this.#taken === 0) return;
    this.#bytes.copyWithin(0, this.#taken, this.#filled);
    this.#offset += this.#taken;
    this.#filled -= this.#taken;
    this.#scanned -= this.#taken;
    this.#boundary = 0;
    this.#taken = 0;
    this.#fault = null;
  }

  async #fill(size: number): Promise<void> {
    const { segment } = this.#options;
    const end = Math.min(this.#bytes.length, size - this.#offset);
    while (this.#filled < end) {
      const read = await segment.read(this.#bytes, this.#filled, end - this.#filled, this.readTo);
      if (read === 0) break;
      this.#filled += read;
    }
  }

  #scan(): void {
    const { header, transactions, buffer } = this.#options;
    const { framer } = buffer;
    const bytes = this.#bytes;
    if (this.#offset === 0 && this.#scanned === 0) {
      if (this.#filled < MAGIC.length) return;
      this.#scanned = MAGIC.length;
    }
    const { fault } = framer.frame(bytes, this.#scanned, this.#filled, header);
    const checksumBytes = header.checksums ? CHECKSUM_BYTES : 0;
    let at = this.#scanned;
    for (let i = 0; i < framer.count; i++) {
      const end = framer.ends[i]!;
      transactions.event(bytes, at, end - checksumBytes);
      this.#tellWhatIsMissing(at);
      this.#scannedMs = eventMs(bytes, at);
      if (transactions.atBoundary) {
        this.#boundary = end;
        this.#boundaryMs = this.#scannedMs;
      }
      at = end;
    }
    this.#scanned = at;
    this.#fault = fault;
  }

  /** What the log itself says that it lacks: nobody else would know of it before a restore. */
  #tellWhatIsMissing(at: number): void {
    const { header, segment, transactions, log } = this.#options;
    const type = eventType(this.#bytes, at);
    if (type !== TYPE.incident && !isGtid(type)) return;
    const { state } = transactions;
    const place = { file: segment.path, offset: this.#offset + at };
    if (type === TYPE.incident) {
      log.warn('the server says that changes are missing in its binlog here (an incident event)', {
        ...place,
        hint: 'what is restored and goes beyond lacks them: take a base backup now',
      });
    } else if (!this.#hasToldSkip && state instanceof MariadbGtidState && state.skippedBy(header.serverId)) {
      // One for each file: a replica that skips may do so often.
      this.#hasToldSkip = true;
      const { domain } = state.begunGtid();
      log.warn(
        `${state.begun()} follows ${gtidText(state.lastOf(domain)!)}: what is between was skipped on this replica`,
        {
          ...place,
          hint: 'the archive lacks it too; if the primary has it, let its twin lead, and take a base backup. See docs/mariadb.md',
        },
      );
    }
  }

  /** The first `end` bytes of the buffer as a slice. */
  #take(end: number, extent: Extent): LogSlice {
    const isBoundary = end === this.#boundary;
    const firstEventAt = this.#offset === 0 ? MAGIC.length : 0;
    return this.#slice(end, extent, {
      boundary: isBoundary,
      firstEventMs: eventMs(this.#bytes, firstEventAt),
      lastEventMs: isBoundary ? this.#boundaryMs : this.#scannedMs,
    });
  }

  #slice(end: number, extent: Extent, rest: Pick<LogSlice, 'boundary' | 'firstEventMs' | 'lastEventMs'>): LogSlice {
    const to = this.#offset + end;
    const from = this.#position(this.#offset);
    if (rest.boundary) this.#id = this.#stateId(to);
    this.#taken = end;
    return {
      from,
      to: this.#position(to),
      bytes: this.#bytes.subarray(0, end),
      endsSegment: extent.ended && to === extent.size,
      ...rest,
    };
  }

  /** Where an event ends that does not fit into the buffer, as far as its header is there; otherwise beyond any file. */
  #largeEventEnd(): number {
    if (this.#filled < HEADER_BYTES) return Number.POSITIVE_INFINITY;
    const length = eventLength(this.#bytes, 0);
    return length > this.#bytes.length ? this.#offset + length : Number.POSITIVE_INFINITY;
  }

  /** Checks a large event to its end before the first piece is handed out. */
  async #largeEvent(extent: Extent): Promise<LogSlice | null> {
    const { header, transactions } = this.#options;
    const end = this.#largeEventEnd();
    const ms = eventMs(this.#bytes, 0);
    const type = eventType(this.#bytes, 0);
    transactions.event(this.#bytes, 0, end - this.#offset);
    if (header.checksums) await this.#checkLarge(end, type);
    this.#filled = 0;
    this.#pieces = { end, ms, isTorn: false };
    return this.#piece(this.#pieces, extent);
  }

  async #checkLarge(end: number, type: number): Promise<void> {
    const { segment } = this.#options;
    const bytes = this.#bytes;
    let crc = 0;
    for (let at = this.#offset; at < end - CHECKSUM_BYTES; ) {
      const read = await segment.read(bytes, 0, Math.min(bytes.length, end - CHECKSUM_BYTES - at), at);
      if (read === 0) break;
      crc = crc32(bytes.subarray(0, read), crc);
      at += read;
    }
    await segment.read(bytes, 0, CHECKSUM_BYTES, end - CHECKSUM_BYTES);
    if (crc !== u32(bytes, 0)) throw this.#corrupt(this.#offset, `the checksum of ${typeName(type)} is wrong`);
  }

  async #piece({ end, ms, isTorn }: Pieces, extent: Extent): Promise<LogSlice | null> {
    const { transactions } = this.#options;
    this.#filled = 0;
    await this.#fill(Math.min(end, extent.size));
    if (this.#filled === 0) return null;
    const isLast = this.readTo === end;
    if (isLast) this.#pieces = null;
    this.#scanned = this.#filled;
    const boundary = isLast && !isTorn && transactions.atBoundary;
    return this.#slice(this.#filled, extent, { boundary, firstEventMs: ms, lastEventMs: ms });
  }

  /** Tells what a crash may have left at the end of a file from damage, which throws. */
  async #judge({ at, what }: Fault, { size, ended }: Extent): Promise<void> {
    const { segment } = this.#options;
    const isZeros = !this.#bytes.subarray(at, this.#filled).some((byte) => byte !== 0);
    const isLastEvent = this.#offset + at + eventLength(this.#bytes, at) === size;
    const isTail = this.readTo === size && (isZeros || isLastEvent);
    // A file that is written still has such a tail only while a crashed server is down.
    const isCrash = ended ? await segment.isInUse() : isZeros;
    if (!isTail || !isCrash) throw this.#corrupt(this.#offset + at, what);
  }

  #corrupt(offset: number, what: string) {
    return corrupt(this.#options.segment.path, offset, what);
  }

  #stateId(offset: number): string {
    const { transactions, flavour, segment } = this.#options;
    return transactions.state.text() || (flavour === 'mysql' ? placeId(segment.name, offset) : '');
  }

  #position(offset: number): Position {
    const { segment, header } = this.#options;
    return { origin: header.origin, incarnation: header.incarnation, segment: segment.name, offset, id: this.#id };
  }
}
