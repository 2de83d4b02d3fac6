import { isSegmentSize } from './wal-name.ts';

/** The header of a WAL page; all numbers little-endian, as on every machine that Shipmate runs on. */
export interface PageHeader {
  /** Of PostgreSQL's major version. */
  readonly version: number;
  /** The timeline on which the page was written. */
  readonly timeline: number;
  /** The LSN of its first byte. */
  readonly lsn: bigint;
  /** Bytes of a record that began on a page before, from the header's end on, padding on later pages included; 0: none. */
  readonly remainingBytes: number;
  readonly headerBytes: number;
  /** On the first page of a segment. */
  readonly long: LongHeader | null;
}

export interface LongHeader {
  /** The cluster's system identifier, decimal. */
  readonly systemId: string;
  readonly segmentBytes: number;
  readonly pageBytes: number;
}

export const DEFAULT_PAGE_BYTES = 8192;

const MAGIC_OF_VERSION: Readonly<Record<number, number>> = {
  13: 0xd106,
  14: 0xd10d,
  15: 0xd110,
  16: 0xd113,
  17: 0xd116,
  18: 0xd118,
};
/** The latest major version whose pages are known. */
export const NEWEST_MAJOR = Math.max(...Object.keys(MAGIC_OF_VERSION).map(Number));
const VERSION_OF_MAGIC = new Map(Object.entries(MAGIC_OF_VERSION).map(([version, magic]) => [magic, Number(version)]));

const AT = { magic: 0, info: 2, timeline: 4, lsn: 8, remaining: 16, systemId: 24, segmentBytes: 32, pageBytes: 36 };
export const SHORT_HEADER_BYTES = 24;
export const LONG_HEADER_BYTES = 40;
const INFO = { continuesRecord: 0x1, isLong: 0x2 };

/** How long the header is whose first `got` bytes are these; a long one shows only after some of them. */
export const headerBytesOf = (header: Uint8Array, got = header.length) =>
  got > AT.info && (header[AT.info]! & INFO.isLong) !== 0 ? LONG_HEADER_BYTES : SHORT_HEADER_BYTES;

/** The header at `at`; null where none lies there, or not all of it. */
export function readPageHeader(bytes: Uint8Array, at = 0): PageHeader | null {
  if (bytes.length - at < SHORT_HEADER_BYTES) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, bytes.length - at);
  const version = VERSION_OF_MAGIC.get(view.getUint16(AT.magic, true));
  const info = view.getUint16(AT.info, true);
  const isLong = (info & INFO.isLong) !== 0;
  if (version === undefined || (isLong && view.byteLength < LONG_HEADER_BYTES)) return null;
  const long = isLong ? readLong(view) : null;
  if (long && !(isSegmentSize(long.segmentBytes) && isPageSize(long.pageBytes))) return null;
  return {
    version,
    timeline: view.getUint32(AT.timeline, true),
    lsn: view.getBigUint64(AT.lsn, true),
    remainingBytes: (info & INFO.continuesRecord) === 0 ? 0 : view.getUint32(AT.remaining, true),
    headerBytes: isLong ? LONG_HEADER_BYTES : SHORT_HEADER_BYTES,
    long,
  };
}

/** As PostgreSQL can be built: powers of two from 1 to 64 KiB. */
const isPageSize = (bytes: number) => bytes >= 1 << 10 && bytes <= 1 << 16 && Number.isInteger(Math.log2(bytes));

const readLong = (view: DataView): LongHeader => ({
  systemId: view.getBigUint64(AT.systemId, true).toString(),
  segmentBytes: view.getUint32(AT.segmentBytes, true),
  pageBytes: view.getUint32(AT.pageBytes, true),
});

/**
 * What lies in the place of a page: `right`: a page of that timeline and address; `blank`: a header of zeros, as after a
 * log switch; `other`: anything else, as WAL of another time in a file that was recycled.
 */
export function judgePage(
  bytes: Uint8Array,
  at: number,
  expected: { readonly timeline: number; readonly lsn: bigint },
): 'right' | 'blank' | 'other' {
  const header = readPageHeader(bytes, at);
  if (header === null) return isBlank(bytes, at) ? 'blank' : 'other';
  return header.timeline === expected.timeline && header.lsn === expected.lsn ? 'right' : 'other';
}

function isBlank(bytes: Uint8Array, at: number): boolean {
  const header = bytes.subarray(at, at + SHORT_HEADER_BYTES);
  return header.length === SHORT_HEADER_BYTES && header.every((byte) => byte === 0);
}
