/**
 * The layout of binlog events, version 4, shared by MariaDB and MySQL since 5.0: a header of 19 bytes (time, type, server
 * id, length, next position, flags; little-endian), a body, and with checksums a CRC-32 of all that.
 */

export const MAGIC = Buffer.from([0xfe, 0x62, 0x69, 0x6e]);
export const HEADER_BYTES = 19;
export const CHECKSUM_BYTES = 4;

const TYPE_AT = 4;
const SERVER_ID_AT = 5;
const LENGTH_AT = 9;
export const FLAGS_AT = 17;

/** Types that matter here; all others are carried unread. */
export const TYPE = {
  query: 2,
  stop: 3,
  rotate: 4,
  intvar: 5,
  rand: 13,
  userVar: 14,
  formatDescription: 15,
  xid: 16,
  tableMap: 19,
  incident: 26,
  rowsQuery: 29,
  mysqlGtid: 33,
  mysqlAnonymousGtid: 34,
  mysqlPreviousGtids: 35,
  mysqlTransactionContext: 36,
  xaPrepare: 38,
  mysqlTransactionPayload: 40,
  mysqlTaggedGtid: 42,
  annotateRows: 160,
  binlogCheckpoint: 161,
  gtid: 162,
  gtidList: 163,
  startEncryption: 164,
} as const;

const NAMES = new Map<number, string>(Object.entries(TYPE).map(([name, type]) => [type, name]));

/** For messages: `gtid (162)`. */
export const typeName = (type: number) => `${NAMES.get(type) ?? 'event'} (${type})`;

export const u16 = (bytes: Uint8Array, at: number) => bytes[at]! | (bytes[at + 1]! << 8);

export const u32 = (bytes: Uint8Array, at: number) =>
  (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;

export const u64 = (bytes: Uint8Array, at: number) => (BigInt(u32(bytes, at + 4)) << 32n) | BigInt(u32(bytes, at));

/** Readers of the event header that starts at `at`. */
export const eventMs = (bytes: Uint8Array, at: number) => u32(bytes, at) * 1000;
export const eventType = (bytes: Uint8Array, at: number) => bytes[at + TYPE_AT]!;
export const eventServerId = (bytes: Uint8Array, at: number) => u32(bytes, at + SERVER_ID_AT);
export const eventLength = (bytes: Uint8Array, at: number) => u32(bytes, at + LENGTH_AT);
