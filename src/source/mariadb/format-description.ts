import { HEADER_BYTES, TYPE } from './events.ts';
import type { Flavour } from './gtid.ts';

const VERSION = { at: HEADER_BYTES + 2, bytes: 50 } as const;
/** Servers that know checksums end the event with the algorithm and a checksum of the event itself. */
const ALGORITHM_FROM_END = 5;
const ALGORITHM = { none: 0, crc32: 1 } as const;
const FIRST_WITH_CHECKSUMS = { mariadb: 5_003_000, mysql: 5_006_001 } as const;

export interface FormatDescription {
  /** By the server's version. */
  readonly flavour: Flavour;
  /** How the events after it are checksummed; `unknown` is a format that this version can't read. */
  readonly checksums: 'none' | 'crc32' | 'before checksums' | 'unknown';
}

/**
 * Which of the two writes events of this type, where only one does: each binlog's second event is such. A server's version
 * may be set at will, for programs that ask for it, and the first event then says so too.
 */
export function flavourOfType(type: number): Flavour | null {
  if (type === TYPE.gtidList || type === TYPE.startEncryption) return 'mariadb';
  return type === TYPE.mysqlPreviousGtids ? 'mysql' : null;
}

/** What a binlog's first event says of the others. */
export function readFormatDescription(event: Uint8Array): FormatDescription {
  const version = Buffer.from(event.subarray(VERSION.at, VERSION.at + VERSION.bytes)).toString('latin1');
  const flavour = version.includes('MariaDB') ? 'mariadb' : 'mysql';
  const [, major, minor, patch] = /^(\d+)\.(\d+)\.(\d+)/.exec(version) ?? [];
  if (major === undefined) return { flavour, checksums: 'unknown' };
  const number = Number(major) * 1_000_000 + Number(minor) * 1000 + Number(patch);
  if (number < FIRST_WITH_CHECKSUMS[flavour]) return { flavour, checksums: 'before checksums' };
  const algorithm = event.at(-ALGORITHM_FROM_END);
  if (algorithm === ALGORITHM.crc32) return { flavour, checksums: 'crc32' };
  return { flavour, checksums: algorithm === ALGORITHM.none ? 'none' : 'unknown' };
}
