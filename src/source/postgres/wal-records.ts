import { DEFAULT_PAGE_BYTES, headerBytesOf, LONG_HEADER_BYTES, readPageHeader } from './wal-page.ts';

/** A record that carries a time. */
export interface WalEvent {
  readonly kind: 'commit' | 'abort' | 'prepare' | 'restorePoint';
  /** Microseconds since 1970, by the server's clock. Records stand in the order of their ends, not quite in that of times. */
  readonly micros: number;
  /** The LSN of the record's first byte, and the one after its last. */
  readonly start: bigint;
  readonly end: bigint;
  /** A restore point's name. */
  readonly name?: string;
}

const RECORD = { total: 0, totalBytes: 4, previous: 8, info: 16, manager: 17, headerBytes: 24 } as const;
const MAX_RECORD_BYTES = 1 << 30;
const ALIGNMENT = 8;
/** As much of a record's beginning as it takes to read its time and name. */
const START_BYTES = 128;

const XLOG = { manager: 0, infoMask: 0xf0, switch: 0x40, restorePoint: 0x70 } as const;
const TRANSACTION = { manager: 1, infoMask: 0x70 } as const;
/** By the bits of the mask: commit, prepare, abort, and the last two of a prepared transaction. */
const TRANSACTION_KINDS: readonly WalEvent['kind'][] = ['commit', 'prepare', 'abort', 'commit', 'abort'];
const PREPARED_AT = 16;
const NAME = { at: 8, bytes: 64 } as const;

/** What stands between the header and the main data of a record that touches no page: bytes by the part's ID. */
const PART = { short: 255, long: 254 } as const;
const PART_BYTES: Readonly<Record<number, number>> = { 255: 2, 254: 5, 253: 3, 252: 5 };

const EPOCH_MICROS = Date.UTC(2000, 0, 1) * 1000;
const MICROS_BYTES = 8;

/**
 * Finds the records of a stream of WAL, of which it is fed slices of any length in order. Where they do not go on from each
 * other, or hold no WAL, it goes on with the next page that is one. It never throws, and it checks no CRC: a record counts
 * if it fits to the pages' headers and names the one before it.
 */
export class WalScanner {
  readonly #onEvent: (event: WalEvent) => void;
  /** Places are counted from this LSN: numbers are quicker. */
  #base = 0n;
  #baseLow = 0;
  /** The place of the next byte, and where its page begins. */
  #place = 0;
  #pagePlace = 0;
  #pageBytes = DEFAULT_PAGE_BYTES;
  /** The page's header, as far as it was fed. */
  readonly #header = new Uint8Array(LONG_HEADER_BYTES);
  #headerGot = 0;

  /** Where the next record begins, or, while that is not known, the next page. */
  #nextPlace = 0;
  /** The beginning of a record that goes on beyond its page, or what was fed. */
  readonly #start = new Uint8Array(START_BYTES);
  readonly #startView = new DataView(this.#start.buffer);
  #recordPlace = 0;
  #recordGot = 0;
  /** The last whole record; `#isInStep`: the next one is known to follow it. */
  #lastPlace: number | null = null;
  #lastEndPlace = 0;
  #isInStep = false;
  /** The page's header says that the next record begins behind it. */
  #isBehindHeader = false;
  #blankPlace: number | null = null;

  constructor(onEvent: (event: WalEvent) => void = () => {}) {
    this.#onEvent = onEvent;
    this.#beginAt(0n);
  }

  /** The LSN of the last whole record since the bytes went on from each other; null before there was one. */
  get lastStart(): bigint | null {
    return this.#lastPlace === null ? null : this.#lsn(this.#lastPlace);
  }

  /** Where it ends. */
  get lastEnd(): bigint | null {
    return this.#lastPlace === null ? null : this.#lsn(this.#lastEndPlace);
  }

  /** Where zeros stand in the place of a record, since the bytes went on from each other; null: nowhere. */
  get blankAt(): bigint | null {
    return this.#blankPlace === null ? null : this.#lsn(this.#blankPlace);
  }

  /** `lsn`: of the first byte. */
  feed(lsn: bigint, bytes: Uint8Array): void {
    if (lsn !== this.#lsn(this.#place)) this.#beginAt(lsn);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let at = 0; at < bytes.length; ) {
      if (this.#place === this.#pageEnd) this.#pagePlace = this.#place;
      const isHeader = this.#place === this.#pagePlace || this.#headerGot > 0;
      const end = Math.min(bytes.length, at + this.#pageEnd - this.#place);
      const next = isHeader ? this.#feedHeader(bytes, at, end) : this.#feedPage(bytes, view, at, end);
      this.#place += next - at;
      at = next;
    }
  }

  get #pageEnd(): number {
    return this.#pagePlace + this.#pageBytes;
  }

  #lsn(place: number): bigint {
    return this.#base + BigInt(place);
  }

  #beginAt(lsn: bigint): void {
    this.#place = Number(lsn % BigInt(this.#pageBytes));
    this.#base = lsn - BigInt(this.#place);
    this.#baseLow = Number(BigInt.asUintN(32, this.#base));
    this.#pagePlace = 0;
    this.#headerGot = 0;
    this.#lastPlace = null;
    this.#blankPlace = null;
    this.#loseStep();
  }

  #loseStep(): void {
    this.#isInStep = this.#isBehindHeader = false;
    this.#recordGot = 0;
    this.#nextPlace = this.#pageEnd;
  }

  /** Returns where it stopped: behind the header, or at the end of what there is. */
  #feedHeader(bytes: Uint8Array, at: number, end: number): number {
    let next = at;
    while (this.#headerGot < headerBytesOf(this.#header, this.#headerGot)) {
      if (next === end) return next;
      this.#header[this.#headerGot++] = bytes[next++]!;
    }
    this.#headerGot = 0;
    this.#enterPage();
    return next;
  }

  #enterPage(): void {
    const header = readPageHeader(this.#header);
    if (header === null || header.lsn !== this.#lsn(this.#pagePlace)) {
      this.#loseStep();
      return;
    }
    if (header.long) this.#pageBytes = header.long.pageBytes;
    const headerEnd = this.#pagePlace + header.headerBytes;
    this.#nextPlace = headerEnd;
    if (header.remainingBytes === this.#awaitedBytes) {
      this.#isBehindHeader = header.remainingBytes === 0;
      return;
    }
    this.#loseStep();
    this.#nextPlace = Math.min(this.#nextPlace, aligned(headerEnd + header.remainingBytes));
  }

  /** Of a record that began on a page before; its length is known by then. */
  get #awaitedBytes(): number {
    return this.#recordGot === 0 ? 0 : this.#startView.getUint32(RECORD.total, true) - this.#recordGot;
  }

  /** Bytes of one page, behind its header. */
  #feedPage(bytes: Uint8Array, view: DataView, from: number, end: number): number {
    const shift = this.#place - from; // from an index of the bytes to the place
    if (this.#recordGot > 0) this.#goOn(bytes, from, end, shift);
    if (this.#recordGot > 0) return end;
    let at: number;
    for (;;) {
      at = Math.min(end, this.#nextPlace - shift);
      if (end - at < RECORD.headerBytes) break;
      const total = view.getUint32(at + RECORD.total, true);
      if (at + total > end) break;
      this.#complete(view, at, total, at + shift);
    }
    if (at < end) {
      this.#recordPlace = at + shift;
      this.#goOn(bytes, at, end, shift);
    }
    return end;
  }

  /** More of a record that is not whole yet. */
  #goOn(bytes: Uint8Array, from: number, end: number, shift: number): void {
    let at = from;
    const start = this.#start;
    while (this.#recordGot < RECORD.totalBytes && at < end) start[this.#recordGot++] = bytes[at++]!;
    if (this.#recordGot < RECORD.totalBytes) return;
    const total = this.#startView.getUint32(RECORD.total, true);
    if (!isLength(total)) {
      this.#missRecord(total, this.#recordPlace);
      return;
    }
    const taken = Math.min(total - this.#recordGot, end - at);
    const kept = Math.min(taken, START_BYTES - this.#recordGot);
    if (kept > 0) start.set(bytes.subarray(at, at + kept), this.#recordGot);
    this.#recordGot += taken;
    at += taken;
    if (this.#recordGot === total) {
      this.#recordGot = 0;
      this.#complete(this.#startView, 0, total, this.#recordPlace, at + shift);
    } else {
      this.#nextPlace = at + shift;
    }
  }

  /** A whole record, of which at least the beginning lies at `at`. */
  #complete(view: DataView, at: number, total: number, place: number, endPlace = place + total): void {
    if (!isLength(total) || !this.#followsLast(view, at)) {
      this.#missRecord(total, place);
      return;
    }
    this.#lastPlace = place;
    this.#lastEndPlace = endPlace;
    this.#isInStep = true;
    this.#isBehindHeader = false;
    this.#nextPlace = aligned(endPlace);
    const manager = view.getUint8(at + RECORD.manager);
    const info = view.getUint8(at + RECORD.info);
    if (manager === TRANSACTION.manager) {
      const kind = TRANSACTION_KINDS[(info & TRANSACTION.infoMask) >> 4];
      if (kind) this.#tell(kind, view, at, total);
    } else if (manager === XLOG.manager) {
      const type = info & XLOG.infoMask;
      if (type === XLOG.restorePoint) this.#tell('restorePoint', view, at, total);
      if (type === XLOG.switch) this.#loseStep(); // the rest of the segment is empty
    }
  }

  #missRecord(total: number, place: number): void {
    if (total === 0 && (this.#isInStep || this.#isBehindHeader)) this.#blankPlace ??= place;
    this.#loseStep();
  }

  #followsLast(view: DataView, at: number): boolean {
    if (!this.#isInStep) return true;
    return view.getUint32(at + RECORD.previous, true) === (this.#baseLow + this.#lastPlace!) >>> 0;
  }

  #tell(kind: WalEvent['kind'], view: DataView, at: number, total: number): void {
    const end = at + Math.min(total, START_BYTES);
    const data = mainDataAt(view, at + RECORD.headerBytes, end);
    const time = kind === 'prepare' ? data + PREPARED_AT : data;
    if (time + MICROS_BYTES > end) return;
    const micros = Number(view.getBigInt64(time, true)) + EPOCH_MICROS;
    const [start, until] = [this.#lsn(this.#lastPlace!), this.#lsn(this.#lastEndPlace)];
    const name = kind === 'restorePoint' ? { name: nameAt(view, data + NAME.at, end) } : {};
    this.#onEvent({ kind, micros, start, end: until, ...name });
  }
}

const isLength = (total: number) => total >= RECORD.headerBytes && total <= MAX_RECORD_BYTES;

const aligned = (place: number) => Math.ceil(place / ALIGNMENT) * ALIGNMENT;

/** Where a record's main data begin; behind the end where it has none that can be read. */
function mainDataAt(view: DataView, from: number, end: number): number {
  for (let at = from; at < end; ) {
    const id = view.getUint8(at);
    const bytes = PART_BYTES[id];
    if (bytes === undefined) return end;
    at += bytes;
    if (id === PART.short || id === PART.long) return at;
  }
  return end;
}

function nameAt(view: DataView, at: number, end: number): string {
  const bytes = new Uint8Array(view.buffer, view.byteOffset + at, Math.max(0, Math.min(NAME.bytes, end - at)));
  const length = bytes.indexOf(0);
  return Buffer.from(length < 0 ? bytes : bytes.subarray(0, length)).toString('utf8');
}
