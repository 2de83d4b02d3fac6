import { UsageError } from '../../errors.ts';

export type Compare = (a: string, b: string) => number;

/** Bytewise, as `LC_ALL=C sort` has it. */
export const byName: Compare = (a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b));

/** Numbers in the names count as numbers, whatever their length: `log.9` before `log.10`. */
export const byNumber: Compare = (a, b) => {
  const [left, right] = [partsOf(a), partsOf(b)];
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    const order = comparePart(left[i]!, right[i]!);
    if (order !== 0) return order;
  }
  return left.length - right.length || byName(a, b);
};

const partsOf = (name: string) => name.match(/\d+|\D+/g) ?? [];

function comparePart(a: string, b: string): number {
  if (!/^\d/.test(a) || !/^\d/.test(b)) return byName(a, b);
  const [left, right] = [BigInt(a), BigInt(b)];
  return left < right ? -1 : left > right ? 1 : 0;
}

/** `audit.log.1` is younger than `audit.log.2`; longer numbers are dates: `audit.log-20261122`, and so is `audit.log-2026.11.22`. */
const AGE = /\.(\d{1,4})(?=\.|$)/;
const DATE = /\d{4}\.\d{1,2}\.\d{1,2}(?!\d)/;

/** Where rotation renames: dated files in their order, then numbered ones, whose number is an age, then the one that is written. */
export function byRotation(live: string): Compare {
  const rank = (name: string) => (name === live ? 2 : AGE.test(name) && !DATE.test(name) ? 1 : 0);
  const age = (name: string) => Number(AGE.exec(name)?.[1]);
  return (a, b) => rank(a) - rank(b) || (rank(a) === 1 ? age(b) - age(a) : 0) || byNumber(a, b);
}

const SEQUENCE = /-(\d{6,})$/;

/**
 * A file that rotation renames keeps its bytes but not its name: in the archive it has one of its own, by its place in
 * the sequence: `audit.log-000001`.
 */
export const sequenceName = (live: string, number: number) => `${live}-${String(number).padStart(6, '0')}`;

export const sequenceNumber = (segment: string) => Number(SEQUENCE.exec(segment)?.[1] ?? 0);

/** What tools leave beside a log when they compress a rotated file: other bytes, so no part of it. */
export const isCompressed = (name: string) => /\.(gz|xz|bz2|zst|lz4|Z)$/.test(name);

/** A log ID: `segment:offset`, where the last whole record before a place ends. */
export const idText = (segment: string, offset: number) => `${segment}:${offset}`;

export interface Place {
  readonly segment: string;
  readonly offset: number;
}

export function placeOf(id: string): Place | null {
  const at = id.lastIndexOf(':');
  const digits = id.slice(at + 1);
  return at > 0 && /^\d{1,15}$/.test(digits) ? { segment: id.slice(0, at), offset: Number(digits) } : null;
}

/** Throws UsageError. */
export function parsePlace(text: string): Place {
  const place = placeOf(text.trim());
  if (place) return place;
  throw new UsageError(`"${text}" is not an ID of this log`, 'write it as FILE:OFFSET, such as audit-7.log:1200');
}
