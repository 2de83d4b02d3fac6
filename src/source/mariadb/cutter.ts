import { ShipmateError } from '../../errors.ts';
import type { Cutter, Until } from '../source.ts';
import {
  CHECKSUM_BYTES,
  eventLength,
  eventMs,
  eventServerId,
  eventType,
  HEADER_BYTES,
  MAGIC,
  TYPE,
  u32,
  u64,
} from './events.ts';
import { flavourOfType, readFormatDescription } from './format-description.ts';
import { type Flavour, type GtidState, gtidStateAt, gtidStateOf, type Place, parsePlace, placeId } from './gtid.ts';
import { contradiction, remainderOf, unionOf } from './gtid-position.ts';
import { binlogNumber } from './index-file.ts';
import { isOfTransaction, Transactions } from './transactions.ts';

/** Of an event that comes in parts, so much at its start tells all that matters. */
const MAX_HEAD_BYTES = 1 << 16;

/**
 * Finds where restored binlogs are cut. A time cuts before the first transaction that began after it; an ID after the
 * transaction by which the log has all that the ID names.
 *
 * It is fed whole chunks, or parts of them that end inside large events at most: where a cut falls before an event, that
 * event's header must be in one part.
 */
export class BinlogCutter implements Cutter {
  readonly #until: Until;
  readonly #targetPlace: Place | null;
  /** What of the target the log did not have before the run. */
  readonly #targetGtids: GtidState | null;
  readonly #before: string;
  reached = false;
  #segment = '';
  #transactions = new Transactions('mariadb', gtidStateAt('mariadb', ''));
  #flavour: Flavour = 'mariadb';
  #isFlavourProven = false;
  #checksumBytes = 0;
  /** Offset in the segment of the next byte that is fed. */
  #offset = 0;
  /** Offset in the segment of the last transaction boundary. */
  #boundary = 0;
  /** The start of an event whose rest is yet to be fed. */
  #begun: Buffer = Buffer.alloc(0);
  /** Bytes of the present event that are yet to be fed and need not be looked at. */
  #passing = 0;

  /** `before`: what the log had before the run, whether or not the run's own files list it. */
  constructor(until: Until, before = '') {
    this.#until = until;
    this.#before = parsePlace(before) ? '' : before;
    this.#targetPlace = until.kind === 'id' ? parsePlace(until.id) : null;
    this.#targetGtids =
      until.kind === 'id' && !this.#targetPlace ? gtidStateOf(remainderOf(until.id, this.#before)) : null;
  }

  get id(): string {
    const gtids = unionOf(this.#before, this.#transactions.state.text());
    return gtids || this.#flavour === 'mariadb' ? gtids : placeId(this.#segment, this.#boundary);
  }

  feed(segment: string, bytes: Uint8Array): number {
    if (this.reached) return 0;
    if (segment !== this.#segment) this.#startSegment(segment);
    if (this.reached) return 0;
    const passed = Math.min(this.#passing, bytes.length);
    this.#passing -= passed;
    const endsEvent = passed > 0 && this.#passing === 0;
    if (endsEvent && this.#passes(this.#offset + passed)) return passed;
    const kept = this.#scan(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length), passed);
    this.#offset += bytes.length;
    return kept;
  }

  #startSegment(segment: string): void {
    this.#segment = segment;
    this.#offset = 0;
    this.#begun = Buffer.alloc(0);
    this.#passing = MAGIC.length;
    this.#transactions.startFile();
    this.#boundary = 0;
    if (this.#targetPlace && binlogNumber(segment) > this.#targetPlace.number) this.reached = true;
  }

  /** Goes through the events from bytes[start]; returns how many of the bytes belong to the range. */
  #scan(bytes: Buffer, start: number): number {
    const begun = this.#begun.length;
    const view = begun > 0 ? Buffer.concat([this.#begun, bytes]) : bytes;
    let at = begun > 0 ? 0 : start;
    while (view.length - at >= HEADER_BYTES) {
      const length = eventLength(view, at);
      if (length < HEADER_BYTES) {
        // What a crash left at a file's end belongs to the file.
        this.#passing = Number.POSITIVE_INFINITY;
        this.#begun = Buffer.alloc(0);
        return bytes.length;
      }
      const present = Math.min(length, view.length - at);
      if (present < length && present < MAX_HEAD_BYTES) break;
      if (this.#cutsBefore(view, at)) return this.#cutAt(at - begun);
      this.#take(view, at, at + length);
      at += present;
      this.#passing = length - present;
      if (this.#passing === 0 && this.#passes(this.#offset + at - begun)) return this.#cutAt(at - begun);
    }
    this.#begun = Buffer.from(view.subarray(at));
    return bytes.length;
  }

  #take(view: Buffer, at: number, end: number): void {
    const type = eventType(view, at);
    if (type === TYPE.formatDescription) {
      const { flavour, checksums } = readFormatDescription(view.subarray(at, end));
      this.#checksumBytes = checksums === 'crc32' ? CHECKSUM_BYTES : 0;
      if (!this.#isFlavourProven) this.#turnTo(flavour);
    }
    const proven = flavourOfType(type);
    if (proven) this.#turnTo(proven);
    this.#isFlavourProven ||= proven !== null;
    this.#transactions.event(view, at, end - this.#checksumBytes);
    if (this.#targetGtids === null || this.#flavour !== 'mariadb') return;
    if (type === TYPE.gtid) this.#demandTarget(gtidAt(view, at));
    else if (type === TYPE.gtidList) this.#demandTarget(this.#transactions.state.text());
  }

  #turnTo(flavour: Flavour): void {
    if (flavour !== this.#flavour) this.#transactions = new Transactions(flavour, gtidStateAt(flavour, ''));
    this.#flavour = flavour;
  }

  /** Another server may have given the target's numbers to another transaction: in a tail that a fork has left. */
  #demandTarget(seen: string): void {
    const other = this.#until.kind === 'id' ? contradiction(this.#until.id, seen) : null;
    if (other === null) return;
    throw new ShipmateError(`${other.named} is not in the log: the transaction with this number is ${other.found}`, {
      code: 'NOT_IN_ARCHIVE',
      hint: 'another server took its place: "shipmate ls" shows the fork, docs/restore.md how to read what it left',
    });
  }

  #cutsBefore(view: Buffer, at: number): boolean {
    return (
      this.#until.kind === 'time' &&
      this.#transactions.atBoundary &&
      isOfTransaction(eventType(view, at)) &&
      eventMs(view, at) > this.#until.ms
    );
  }

  /** An event ends at `offset`: whether it is the last of the range. */
  #passes(offset: number): boolean {
    if (!this.#transactions.atBoundary) return false;
    this.#boundary = offset;
    const place = this.#targetPlace;
    if (place) this.reached = place.segment === this.#segment && offset >= place.offset;
    else if (this.#targetGtids) this.reached = this.#transactions.state.covers(this.#targetGtids);
    return this.reached;
  }

  #cutAt(kept: number): number {
    if (kept < 0) throw new RangeError('the cut lies in a part that was fed before');
    this.reached = true;
    return kept;
  }
}

const GTID_DOMAIN_AT = 8;

function gtidAt(view: Buffer, at: number): string {
  const body = at + HEADER_BYTES;
  return `${u32(view, body + GTID_DOMAIN_AT)}-${eventServerId(view, at)}-${u64(view, body)}`;
}
