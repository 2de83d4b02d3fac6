import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { basename } from 'node:path';
import { digestRange, type FileIdentity, HeldFile } from '../held-file.ts';
import { isValidEvent } from './checksums.ts';
import { corrupt, encrypted, isRelayLog, ofOtherType, unreadable } from './errors.ts';
import { eventLength, eventMs, eventServerId, eventType, FLAGS_AT, HEADER_BYTES, MAGIC, TYPE } from './events.ts';
import { flavourOfType, readFormatDescription } from './format-description.ts';
import { type Flavour, type GtidState, gtidStateAt, placeId } from './gtid.ts';
import { binlogNumber } from './index-file.ts';

/** What the first events of a binlog say. */
export interface SegmentHeader {
  readonly origin: string;
  readonly serverId: number;
  /**
   * One life of this file's name: the time of its first event in 8 hex digits, then 16 of a digest of its first events
   * (files hold no UUID, and server_id is 1 by default).
   */
  readonly incarnation: string;
  readonly checksums: boolean;
  /** The ID at offset 0. */
  readonly startId: string;
  /** What the server's log had seen before this file; for reading only. */
  readonly start: GtidState;
  readonly createdMs: number;
  /** The format description event, without its in-use flag. */
  readonly formatDescription: Buffer;
  /** Magic number, format description and list of GTIDs: what makes a file of the bytes from any transaction on. */
  readonly fileStart: Buffer;
}

/** The format description event's in-use flag: set while the server writes the file, cleared in place when it closes it. */
const IN_USE_AT = MAGIC.length + FLAGS_AT;
const IN_USE_FLAG = 0x01;
const RELAY_LOG_FLAG = 0x40;
/** MySQL's encrypted binlogs begin with fd 62 69 6e. */
const ENCRYPTED_MAGIC_BYTE = 0xfd;
const FINGERPRINT_DIGITS = 16;
const MAX_HEADER_EVENT_BYTES = 64 << 20;
/** Events carry seconds, and a server's time may be set (SET timestamp): what lies further ahead is no event's time. */
const CLOCK_STEP_MS = 3_600_000;

/** One binlog file, by its descriptor once opened: what is read is the same file, whatever happens to its name. */
export class Segment {
  readonly path: string;
  readonly name: string;
  readonly number: number;
  readonly identity: FileIdentity;
  /** Whether the index lists it; otherwise it was purged and only our descriptor keeps it. */
  listed = true;
  /** As last seen, bytes. */
  size: number;
  /** When the file was last changed, once the server is done with it; null before. Milliseconds since 1970. */
  finalMs: number | null = null;
  readonly #flavour: Flavour;
  readonly #file: HeldFile;
  #header: SegmentHeader | null = null;
  #syncedBytes = 0;

  constructor(path: string, { flavour, identity, size }: { flavour: Flavour; identity: FileIdentity; size: number }) {
    this.path = path;
    this.name = basename(path);
    this.number = binlogNumber(this.name);
    this.#flavour = flavour;
    this.identity = identity;
    this.size = size;
    this.#file = new HeldFile({ identity, path: () => path, unreadable });
  }

  /** Whether our descriptor keeps the file, even if it is purged. */
  get isOpen(): boolean {
    return this.#file.isOpen;
  }

  /** Keeps the file open until a `release` for each `retain`. False when it is gone (then nothing is retained). */
  retain(): Promise<boolean> {
    return this.#file.retain();
  }

  release(): Promise<void> {
    return this.#file.release();
  }

  /** Looks at the file's size. */
  async measure(): Promise<number> {
    this.size = await this.#use(async (handle) => (await handle.stat()).size);
    return this.size;
  }

  /** Makes everything before `size` durable, whoever wrote it. */
  async sync(size: number): Promise<void> {
    if (size <= this.#syncedBytes) return;
    await this.#use((handle) => handle.datasync());
    this.#syncedBytes = size;
  }

  /** Reads into buffer[at, at + length) from `offset`, with the in-use flag as it is shipped: 0. Returns bytes read. */
  async read(buffer: Buffer, at: number, length: number, offset: number): Promise<number> {
    const { bytesRead } = await this.#use((handle) => handle.read(buffer, at, length, offset));
    if (offset <= IN_USE_AT && IN_USE_AT < offset + bytesRead) buffer[at + IN_USE_AT - offset]! &= ~IN_USE_FLAG;
    return bytesRead;
  }

  /** Whether the server has not closed the file: it writes it still, or crashed. */
  async isInUse(): Promise<boolean> {
    const flags = Buffer.alloc(1);
    await this.#use((handle) => handle.read(flags, 0, 1, IN_USE_AT));
    return (flags[0]! & IN_USE_FLAG) !== 0;
  }

  /** When the bytes at `offset` were written: their event's time, or the file's where no event starts there. */
  async writtenMs(offset: number): Promise<number> {
    const header = Buffer.alloc(HEADER_BYTES);
    const read = await this.read(header, 0, HEADER_BYTES, Math.max(offset, MAGIC.length));
    const ms = eventMs(header, 0);
    const isEvent =
      read === HEADER_BYTES && eventLength(header, 0) >= HEADER_BYTES && ms >= (this.#header?.createdMs ?? 0);
    const { mtimeMs } = await this.#use((handle) => handle.stat());
    return isEvent && ms <= mtimeMs + CLOCK_STEP_MS ? ms : mtimeMs;
  }

  /** The witness of a range; null when the file does not reach that far. */
  digest(offset: number, length: number): Promise<string | null> {
    return digestRange((buffer, count, from) => this.read(buffer, 0, count, from), offset, length);
  }

  /** Null while the server is still writing the first events. `ended`: no more will come. */
  async header({ ended }: { ended: boolean }): Promise<SegmentHeader | null> {
    this.#header ??= await this.#readHeader(ended);
    return this.#header;
  }

  /** Whether the file still begins with the events that it began with. */
  async beginsAsBefore(): Promise<boolean> {
    const before = this.#header;
    return before === null || (await this.#readHeader(true))?.incarnation === before.incarnation;
  }

  async #readHeader(ended: boolean): Promise<SegmentHeader | null> {
    const magic = Buffer.alloc(MAGIC.length);
    if ((await this.read(magic, 0, magic.length, 0)) < magic.length) return null;
    if (magic[0] === ENCRYPTED_MAGIC_BYTE && magic.subarray(1).equals(MAGIC.subarray(1))) throw encrypted(this.path);
    if (!magic.equals(MAGIC)) throw corrupt(this.path, 0, 'it does not begin as a binlog does (fe 62 69 6e)');

    const description = await this.#readEvent(MAGIC.length);
    if (!description) return null;
    const flags = description[FLAGS_AT]!;
    if (flags & RELAY_LOG_FLAG) throw isRelayLog(this.path);
    const { flavour, checksums } = readFormatDescription(description);
    const second = await this.#readEvent(MAGIC.length + description.length);
    // The list of GTIDs is written along with the description, before the name enters the index.
    if (!second && !ended) return null;
    if (eventType(description, 0) !== TYPE.formatDescription || checksums === 'unknown') {
      throw corrupt(this.path, MAGIC.length, 'its first event is no format description that this version knows');
    }
    if (checksums !== 'before checksums' && !isValidEvent(description, 0, description.length)) {
      throw corrupt(this.path, MAGIC.length, 'the checksum of its format description is wrong');
    }
    const writer = (second && flavourOfType(eventType(second, 0))) ?? flavour;
    if (writer !== this.#flavour) throw ofOtherType(this.path, writer, this.#flavour);
    if (second && eventType(second, 0) === TYPE.startEncryption) throw encrypted(this.path);
    return this.#describe(description, listOf(second), checksums === 'crc32');
  }

  #describe(description: Buffer, list: Buffer | null, checksums: boolean): SegmentHeader {
    const fingerprint = createHash('sha256').update(description);
    const state = gtidStateAt(this.#flavour, '');
    if (list) {
      fingerprint.update(list);
      state.load(list, 0, list.length);
    }
    const createdMs = eventMs(description, 0);
    const created = (createdMs / 1000).toString(16).padStart(8, '0');
    const serverId = eventServerId(description, 0);
    return {
      origin: `${this.#flavour}-${serverId}`,
      serverId,
      incarnation: created + fingerprint.digest('hex').slice(0, FINGERPRINT_DIGITS),
      checksums,
      startId: state.text() || (this.#flavour === 'mysql' ? placeId(this.name, 0) : ''),
      createdMs,
      start: state,
      formatDescription: description,
      fileStart: Buffer.concat(list ? [MAGIC, description, list] : [MAGIC, description]),
    };
  }

  /** The event at `offset`, or null where it is not all there. */
  async #readEvent(offset: number): Promise<Buffer | null> {
    const header = Buffer.alloc(HEADER_BYTES);
    if ((await this.read(header, 0, HEADER_BYTES, offset)) < HEADER_BYTES) return null;
    const length = eventLength(header, 0);
    if (length < HEADER_BYTES || length > MAX_HEADER_EVENT_BYTES) return null;
    const event = Buffer.alloc(length);
    return (await this.read(event, 0, length, offset)) === length ? event : null;
  }

  async #use<T>(work: (handle: FileHandle) => Promise<T>): Promise<T> {
    const done = await this.#file.use(async (handle) => ({ result: await work(handle) }));
    if (done === null) throw unreadable(this.path, new Error('the file is gone'));
    return done.result;
  }
}

const isList = (type: number) => type === TYPE.gtidList || type === TYPE.mysqlPreviousGtids;
const listOf = (second: Buffer | null) => (second && isList(eventType(second, 0)) ? second : null);

/** When the file of this incarnation was begun: texts that sort as the times do. */
export const createdOf = (incarnation: string) => incarnation.slice(0, 8);
