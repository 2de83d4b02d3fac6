/** WAL as PostgreSQL writes it: pages, records with their right CRCs, timelines that branch off. */

export interface WalOptions {
  readonly timeline?: number;
  /** Where it begins; a segment's start. */
  readonly start?: bigint;
  readonly segmentBytes?: number;
  readonly pageBytes?: number;
  readonly systemId?: bigint;
  /** PostgreSQL's major version. */
  readonly version?: 13 | 14 | 15 | 16 | 17 | 18;
}

/** Where a record lies: its first byte, and the one after its last. */
export interface Placed {
  readonly start: bigint;
  readonly end: bigint;
}

interface RecordParts {
  readonly manager: number;
  readonly info: number;
  readonly main: Buffer;
  readonly origin?: boolean;
  readonly topXid?: boolean;
}

const MAGIC = { 13: 0xd106, 14: 0xd10d, 15: 0xd110, 16: 0xd113, 17: 0xd116, 18: 0xd118 } as const;
const INFO = { continues: 1, long: 2, overwritten: 8 } as const;
const RECORD_HEADER_BYTES = 24;
const EPOCH_MS = Date.UTC(2000, 0, 1);
const MANAGER = { xlog: 0, transaction: 1, heap: 10 } as const;
const TRANSACTION = { commit: 0x00, prepare: 0x10, abort: 0x20, commitPrepared: 0x30, abortPrepared: 0x40 } as const;
const XLOG = { switch: 0x40, restorePoint: 0x70 } as const;

export class Wal {
  readonly timeline: number;
  readonly start: bigint;
  readonly segmentBytes: number;
  readonly pageBytes: number;
  readonly systemId: bigint;
  readonly version: 13 | 14 | 15 | 16 | 17 | 18;
  #bytes: Buffer;
  #length = 0;
  readonly #starts: bigint[] = [];

  constructor(options: WalOptions = {}) {
    this.timeline = options.timeline ?? 1;
    this.segmentBytes = options.segmentBytes ?? 1 << 20;
    this.start = options.start ?? BigInt(this.segmentBytes);
    this.pageBytes = options.pageBytes ?? 8192;
    this.systemId = options.systemId ?? 7_575_000_000_000_000_001n;
    this.version = options.version ?? 15;
    this.#bytes = Buffer.alloc(this.segmentBytes);
  }

  /** Up to where it was written; the next record begins there, or behind the header of a page that begins there. */
  get end(): bigint {
    return this.start + BigInt(this.#length);
  }

  /** All that was written; with `whole` up to the last segment's end, in zeros. */
  bytes({ whole = false } = {}): Buffer {
    const length = whole ? Math.ceil(this.#length / this.segmentBytes) * this.segmentBytes : this.#length;
    return Buffer.from(this.#bytes.subarray(0, length));
  }

  /** By name, in order; the last one as long as it was written. */
  segments(): Map<string, Buffer> {
    const bytes = this.bytes();
    const files = new Map<string, Buffer>();
    for (let at = 0; at < bytes.length; at += this.segmentBytes) {
      files.set(this.nameAt(this.start + BigInt(at)), bytes.subarray(at, at + this.segmentBytes));
    }
    return files;
  }

  /** The name of the segment in which the LSN lies. */
  nameAt(lsn: bigint): string {
    const number = lsn / BigInt(this.segmentBytes);
    const perLog = 0x1_0000_0000n / BigInt(this.segmentBytes);
    const hex = (part: bigint) => part.toString(16).toUpperCase().padStart(8, '0');
    return hex(BigInt(this.timeline)) + hex(number / perLog) + hex(number % perLog);
  }

  commit(ms: number, { prepared = false, moreBytes = 0, origin = false, topXid = false } = {}): Placed {
    const info = prepared ? TRANSACTION.commitPrepared : TRANSACTION.commit;
    const main = Buffer.concat([time(ms), filling(moreBytes)]);
    return this.record({ manager: MANAGER.transaction, info, main, origin, topXid });
  }

  abort(ms: number, { prepared = false } = {}): Placed {
    const info = prepared ? TRANSACTION.abortPrepared : TRANSACTION.abort;
    return this.record({ manager: MANAGER.transaction, info, main: time(ms) });
  }

  prepare(ms: number): Placed {
    const main = Buffer.concat([Buffer.alloc(16), time(ms), filling(60)]);
    return this.record({ manager: MANAGER.transaction, info: TRANSACTION.prepare, main });
  }

  restorePoint(name: string, ms: number): Placed {
    const text = Buffer.alloc(64);
    text.write(name, 'utf8');
    return this.record({ manager: MANAGER.xlog, info: XLOG.restorePoint, main: Buffer.concat([time(ms), text]) });
  }

  /** A record of no interest whose main data is so long. */
  change(bytes = 60): Placed {
    return this.record({ manager: MANAGER.heap, info: 0, main: filling(bytes) });
  }

  /** Ends the segment: its rest is zeros. */
  switch(): Placed {
    const placed = this.record({ manager: MANAGER.xlog, info: XLOG.switch, main: Buffer.alloc(0) });
    this.#advance((this.segmentBytes - (this.#length % this.segmentBytes)) % this.segmentBytes);
    return placed;
  }

  /** Only the beginning of a record, as a crash leaves it; what is written next overwrites its rest (13.5, 14.1 and later). */
  torn(bytes: number): void {
    const record = Buffer.alloc(RECORD_HEADER_BYTES + bytes);
    const total = record.length + this.pageBytes;
    record.writeUInt32LE(total, 0);
    record.writeBigUInt64LE(this.#previous, 8);
    this.#put(record, total);
    this.#advance(this.#pageRest % this.pageBytes);
    this.#beginPage(0, INFO.overwritten);
  }

  record({ manager, info, main, origin = false, topXid = false }: RecordParts): Placed {
    const parts = [
      Buffer.alloc(RECORD_HEADER_BYTES),
      origin ? Buffer.from([253, 1, 0]) : Buffer.alloc(0),
      topXid ? Buffer.from([252, 1, 0, 0, 0]) : Buffer.alloc(0),
      dataHeader(main.length),
      main,
    ];
    const bytes = Buffer.concat(parts);
    bytes.writeUInt32LE(bytes.length, 0);
    bytes.writeUInt32LE(700, 4);
    bytes.writeBigUInt64LE(this.#previous, 8);
    bytes[16] = info;
    bytes[17] = manager;
    bytes.writeUInt32LE(crc32c(bytes.subarray(0, 20), crc32c(bytes.subarray(RECORD_HEADER_BYTES))), 20);
    this.#beginPage(0);
    const start = this.end;
    this.#put(bytes);
    const end = this.end;
    this.#starts.push(start);
    this.#advance((8 - (this.#length % 8)) % 8);
    return { start, end };
  }

  /** A timeline that leaves this one at `at`, by default its end: the first segment's beginning is a copy of this one's. */
  branch(timeline: number, at: bigint = this.end): Wal {
    const begin = at - (at % BigInt(this.segmentBytes));
    const { segmentBytes, pageBytes, systemId, version } = this;
    const child = new Wal({ timeline, start: begin, segmentBytes, pageBytes, systemId, version });
    const copied = this.#bytes.subarray(Number(begin - this.start), Number(at - this.start));
    copied.copy(child.#bytes);
    child.#length = copied.length;
    child.#starts.push(...this.#starts.filter((start) => start < at));
    return child;
  }

  /** Writes a record over the pages; each later one says how much of it is still to come. */
  #put(record: Buffer, total = record.length): void {
    for (let done = 0; done < record.length; ) {
      this.#beginPage(done === 0 ? 0 : total - done);
      const part = record.subarray(done, done + this.#pageRest);
      part.copy(this.#bytes, this.#length);
      done += part.length;
      this.#advance(part.length);
    }
  }

  /** The last record's first byte, which the next one names. */
  get #previous(): bigint {
    return this.#starts.at(-1) ?? 0n;
  }

  /** Of a page that has begun. */
  get #pageRest(): number {
    return this.pageBytes - (this.#length % this.pageBytes);
  }

  #advance(bytes: number): void {
    this.#length += bytes;
    while (this.#bytes.length <= this.#length) {
      this.#bytes = Buffer.concat([this.#bytes, Buffer.alloc(this.segmentBytes)]);
    }
  }

  /** Where a page begins: its header. */
  #beginPage(remaining: number, info = remaining > 0 ? INFO.continues : 0): void {
    const at = this.#length;
    if (at % this.pageBytes !== 0) return;
    const isLong = at % this.segmentBytes === 0;
    const bytes = this.#bytes;
    bytes.writeUInt16LE(MAGIC[this.version], at);
    bytes.writeUInt16LE(info | (isLong ? INFO.long : 0), at + 2);
    bytes.writeUInt32LE(this.timeline, at + 4);
    bytes.writeBigUInt64LE(this.start + BigInt(at), at + 8);
    bytes.writeUInt32LE(remaining, at + 16);
    if (isLong) {
      bytes.writeBigUInt64LE(this.systemId, at + 24);
      bytes.writeUInt32LE(this.segmentBytes, at + 32);
      bytes.writeUInt32LE(this.pageBytes, at + 36);
    }
    this.#advance(isLong ? 40 : 24);
  }
}

/** The history file of a timeline with these ancestors, each left at an LSN such as `0/16B3748`. */
export const historyText = (ancestors: readonly (readonly [timeline: number, lsn: string])[]) =>
  ancestors.map(([timeline, lsn]) => `${timeline}\t${lsn}\tno recovery target specified\n`).join('\n');

function dataHeader(bytes: number): Buffer {
  if (bytes === 0) return Buffer.alloc(0);
  if (bytes < 256) return Buffer.from([255, bytes]);
  const header = Buffer.alloc(5);
  header[0] = 254;
  header.writeUInt32LE(bytes, 1);
  return header;
}

function time(ms: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64LE(BigInt(Math.round((ms - EPOCH_MS) * 1000)));
  return bytes;
}

const filling = (bytes: number) => Buffer.alloc(bytes, 'shipmate');

const TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let crc = index;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

/** CRC-32C; `before`: of the bytes before these. */
function crc32c(bytes: Uint8Array, before = 0): number {
  let crc = ~before;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  return ~crc >>> 0;
}
