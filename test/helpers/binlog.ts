import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';

export type Flavour = 'mariadb' | 'mysql';

export const MAGIC = Buffer.from([0xfe, 0x62, 0x69, 0x6e]);
export const UUID = '3e11fa47-71ca-11e1-9e33-c80aa9429562';
const HEADER_BYTES = 19;
const IN_USE_AT = 21;
const VERSIONS = { mariadb: '10.11.6-MariaDB-log', mysql: '8.0.36' };

interface EventFields {
  readonly serverId?: number;
  /** Time in seconds since 1970. */
  readonly seconds?: number;
  readonly checksums?: boolean;
  readonly flags?: number;
}

/** Events as a server writes them. The next event's position is left 0: nothing may rely on it. */
export function event(type: number, body: Buffer, fields: EventFields = {}): Buffer {
  const { serverId = 1, seconds = 1_700_000_000, checksums = true, flags = 0 } = fields;
  const bytes = Buffer.alloc(HEADER_BYTES + body.length + (checksums ? 4 : 0));
  bytes.writeUInt32LE(seconds, 0);
  bytes[4] = type;
  bytes.writeUInt32LE(serverId, 5);
  bytes.writeUInt32LE(bytes.length, 9);
  bytes.writeUInt16LE(flags, 17);
  body.copy(bytes, HEADER_BYTES);
  return checksums ? withChecksum(bytes) : bytes;
}

/** Writes the right checksum into an event's last four bytes. */
export function withChecksum(bytes: Buffer): Buffer {
  bytes.writeUInt32LE(crc32(bytes.subarray(0, -4)), bytes.length - 4);
  return bytes;
}

export function formatDescription(
  fields: EventFields & { flavour?: Flavour; version?: string; algorithm?: number } = {},
): Buffer {
  const { flavour = 'mariadb', version = VERSIONS[flavour], checksums = true, algorithm = checksums ? 1 : 0 } = fields;
  const body = Buffer.alloc(2 + 50 + 4 + 1 + 40 + 1);
  body.writeUInt16LE(4, 0);
  body.write(version, 2, 'latin1');
  body[56] = HEADER_BYTES;
  body[body.length - 1] = algorithm;
  // Its own checksum is there even when the others have none.
  return event(15, body, { ...fields, checksums: true });
}

const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
const u64 = (value: bigint | number) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};

export interface Gtid {
  readonly domain?: number;
  readonly server?: number;
  readonly sequence: bigint | number;
}

export const gtidList = (gtids: readonly Gtid[], fields: EventFields = {}) =>
  event(
    163,
    Buffer.concat([
      u32(gtids.length),
      ...gtids.map(({ domain = 0, server = 1, sequence }) => Buffer.concat([u32(domain), u32(server), u64(sequence)])),
    ]),
    fields,
  );

export const GTID_FLAGS = { none: 0, standalone: 1, transactional: 4, preparedXa: 64, completedXa: 128 } as const;

/** A MariaDB GTID event; `flags` say how its group ends. */
export function gtid({ domain = 0, server = 1, sequence }: Gtid, flags = 0, fields: EventFields = {}): Buffer {
  const body = Buffer.concat([u64(sequence), u32(domain), Buffer.from([flags]), Buffer.alloc(6)]);
  return event(162, body, { ...fields, serverId: server });
}

export function query(sql: string, fields: EventFields & { database?: string } = {}): Buffer {
  const database = Buffer.from(`${fields.database ?? 'test'}\0`);
  const head = Buffer.alloc(13);
  head[8] = database.length - 1;
  const status = Buffer.from([0, 0, 0, 0, 0]);
  head.writeUInt16LE(status.length, 11);
  return event(2, Buffer.concat([head, status, database, Buffer.from(sql)]), fields);
}

export const xid = (fields: EventFields = {}) => event(16, u64(7), fields);
export const xaPrepare = (fields: EventFields = {}) => event(38, Buffer.alloc(14), fields);
export const rows = (bytes: number, fields: EventFields = {}) =>
  event(23, Buffer.alloc(Math.max(0, bytes), 'row'), fields);
export const tableMap = (fields: EventFields = {}) => event(19, Buffer.from('a table'), fields);
export const rotate = (name: string, fields: EventFields = {}) =>
  event(4, Buffer.concat([u64(4), Buffer.from(name)]), fields);
export const stop = (fields: EventFields = {}) => event(3, Buffer.alloc(0), fields);
export const checkpoint = (name: string, fields: EventFields = {}) =>
  event(161, Buffer.concat([u32(name.length), Buffer.from(name)]), fields);
export const startEncryption = (fields: EventFields = {}) => event(164, Buffer.alloc(17), fields);

const uuidBytes = (uuid: string) => Buffer.from(uuid.replaceAll('-', ''), 'hex');

export interface MysqlGtid {
  readonly uuid?: string;
  readonly sequence: bigint | number;
}

export const mysqlGtid = ({ uuid = UUID, sequence }: MysqlGtid, fields: EventFields = {}) =>
  event(33, Buffer.concat([Buffer.from([1]), uuidBytes(uuid), u64(sequence), Buffer.alloc(17)]), fields);
export const anonymousGtid = (fields: EventFields = {}) => event(34, Buffer.alloc(42), fields);

export interface MysqlGtids {
  readonly uuid?: string;
  readonly tag?: string;
  /** First and last sequence number of each interval. */
  readonly intervals: readonly (readonly [first: number, last: number])[];
}

export function previousGtids(sources: readonly MysqlGtids[], fields: EventFields = {}): Buffer {
  const isTagged = sources.some(({ tag }) => tag);
  const count = BigInt(sources.length);
  const body = sources.flatMap(({ uuid = UUID, tag = '', intervals }) => [
    uuidBytes(uuid),
    ...(isTagged ? [variable(tag.length), Buffer.from(tag)] : []),
    u64(intervals.length),
    ...intervals.flatMap(([first, last]) => [u64(first), u64(last + 1)]),
  ]);
  return event(35, Buffer.concat([u64(isTagged ? (1n << 56n) | (count << 8n) | 1n : count), ...body]), fields);
}

export function taggedGtid(
  { uuid = UUID, tag, sequence }: MysqlGtid & { tag: string },
  fields: EventFields = {},
): Buffer {
  const parts = [
    ...[variable(0), variable(1)],
    ...[variable(1), ...[...uuidBytes(uuid)].map((byte) => variable(byte))],
    ...[variable(2), variable(BigInt(sequence) << 1n)],
    ...[variable(3), variable(tag.length), Buffer.from(tag)],
    ...[variable(4), variable(20), variable(5), variable(21)],
  ];
  const message = Buffer.concat(parts);
  return event(42, Buffer.concat([variable(1), variable(message.length), variable(5), message]), fields);
}

/** An integer as MySQL's serialization library writes it: trailing ones tell how many bytes follow. */
export function variable(value: bigint | number): Buffer {
  for (let bytes = 1; bytes <= 8; bytes++) {
    if (BigInt(value) >> BigInt(7 * bytes) !== 0n) continue;
    const packed = u64((BigInt(value) << BigInt(bytes)) | ((1n << BigInt(bytes - 1)) - 1n));
    return packed.subarray(0, bytes);
  }
  return Buffer.concat([Buffer.from([0xff]), u64(value)]);
}

/** Bytes as they are shipped: without the in-use flag. */
export function asShipped(bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  if (copy.length > IN_USE_AT) copy[IN_USE_AT]! &= ~1;
  return copy;
}

/** A directory of binlogs that a test writes like a server: in-use flag, rotation, index, purge, RESET MASTER, crash. */
export class BinlogDir {
  readonly dir = mkdtempSync(join(tmpdir(), 'shipmate-binlogs-'));
  readonly flavour: Flavour;
  readonly #fields: EventFields;
  #number = 0;
  #sequence = 0;
  /** Makes every file's first event different, as the clock does. */
  #seconds = 1_700_000_000;

  constructor({ flavour = 'mariadb', ...fields }: EventFields & { flavour?: Flavour } = {}) {
    this.flavour = flavour;
    this.#fields = fields;
  }

  get fields(): EventFields {
    return { ...this.#fields, seconds: this.#seconds };
  }

  get newest(): string {
    return join(this.dir, this.#name);
  }

  get #name(): string {
    return `binlog.${String(this.#number).padStart(6, '0')}`;
  }

  get index(): string {
    return join(this.dir, 'binlog.index');
  }

  /** Starts the first file; its index is there before it, as the server does it. */
  start(): void {
    appendFileSync(this.index, '');
    this.#open();
  }

  /** Appends bytes to the newest file. */
  write(...events: readonly Buffer[]): void {
    appendFileSync(this.newest, Buffer.concat(events));
  }

  /** One transaction; its rows take `bytes` bytes, in events of at most `eventBytes`. */
  transaction({ bytes = 100, eventBytes = 8192 }: { bytes?: number; eventBytes?: number } = {}): void {
    this.#sequence++;
    this.#seconds++;
    const sequence = this.#sequence;
    const events = this.flavour === 'mariadb' ? [gtid({ sequence }, GTID_FLAGS.transactional, this.fields)] : [];
    if (this.flavour === 'mysql') events.push(mysqlGtid({ sequence }, this.fields), query('BEGIN', this.fields));
    events.push(tableMap(this.fields));
    for (let left = bytes; left > 0; left -= eventBytes) events.push(rows(Math.min(left, eventBytes), this.fields));
    events.push(xid(this.fields));
    this.write(...events);
  }

  async rotate(): Promise<void> {
    const next = `binlog.${String(this.#number + 1).padStart(6, '0')}`;
    this.write(rotate(next, this.fields));
    await this.#setInUse(false);
    this.#open();
  }

  /** Drops all but the newest `keep` files. */
  purge(keep = 1): void {
    const names = this.names;
    this.#writeIndex(names.slice(-keep));
    for (const name of names.slice(0, -keep)) rmSync(join(this.dir, name));
  }

  reset(): void {
    const names = this.names;
    for (const name of names) rmSync(join(this.dir, name));
    this.#writeIndex([]);
    this.#number = 0;
    this.#sequence = 0;
    this.#open();
  }

  /** The files and where the writer is, to be put back. */
  remember(): () => void {
    const files = this.names.map((name) => ({ name, bytes: readFileSync(join(this.dir, name)) }));
    const [number, sequence] = [this.#number, this.#sequence];
    return () => {
      for (const name of this.names) rmSync(join(this.dir, name));
      for (const { name, bytes } of files) writeFileSync(join(this.dir, name), bytes);
      [this.#number, this.#sequence] = [number, sequence];
      this.#writeIndex(files.map(({ name }) => name));
      this.crash();
    };
  }

  /** The server died: the newest file may lose its last bytes, stays marked in use, and the next one is opened. */
  crash({ loseBytes = 0, tail = Buffer.alloc(0) }: { loseBytes?: number; tail?: Buffer } = {}): void {
    if (loseBytes > 0) truncateSync(this.newest, readFileSync(this.newest).length - loseBytes);
    this.write(tail);
    this.#open();
  }

  get names(): string[] {
    return readFileSync(this.index, 'utf8')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => line.replace('./', ''));
  }

  /** Every listed file as it is to be shipped. */
  contents(): Map<string, Buffer> {
    return new Map(this.names.map((name) => [name, asShipped(readFileSync(join(this.dir, name)))]));
  }

  /** A new file with its first events; `startId` is what its list of GTIDs says. */
  #open(): void {
    this.#number++;
    this.#seconds++;
    const list =
      this.flavour === 'mariadb'
        ? gtidList(this.#sequence > 0 ? [{ sequence: this.#sequence }] : [], this.fields)
        : previousGtids(this.#sequence > 0 ? [{ intervals: [[1, this.#sequence]] }] : [], this.fields);
    const bytes = Buffer.concat([MAGIC, formatDescription({ flavour: this.flavour, ...this.fields }), list]);
    bytes[IN_USE_AT]! |= 1;
    writeFileSync(this.newest, bytes);
    appendFileSync(this.index, `./${this.#name}\n`);
  }

  async #setInUse(inUse: boolean): Promise<void> {
    const file = await open(this.newest, 'r+');
    await file.write(Buffer.from([inUse ? 1 : 0]), 0, 1, IN_USE_AT);
    await file.close();
  }

  /** In place, as servers do. */
  #writeIndex(names: readonly string[]): void {
    writeFileSync(this.index, names.map((name) => `./${name}\n`).join(''));
  }

  remove(): void {
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** What else lies in the directory. */
  get files(): string[] {
    return readdirSync(this.dir);
  }
}
