/**
 * The name of a segment: the timeline that it was written on, and its number in two parts; how many segments share a
 * `log` depends on their size, so that a name alone tells no number.
 */
export interface SegmentName {
  readonly kind: 'segment';
  readonly timeline: number;
  readonly log: number;
  /** Of the segments that lie in these 4 GiB; from 0 on. */
  readonly index: number;
}

export interface HistoryName {
  readonly kind: 'history';
  readonly timeline: number;
}

export type WalName = SegmentName | HistoryName;

const SEGMENT = /^([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})$/;
const HISTORY = /^([0-9A-F]{8})\.history$/;
const LOG_BITS = 32n;
const LEAST_SEGMENT_BYTES = 1 << 20;
const MOST_SEGMENT_BYTES = 1 << 30;
const MOST_PER_LOG = 2 ** 32 / LEAST_SEGMENT_BYTES;

/** Null for what is neither a segment nor a history file: `archive_status`, `….partial`, `….backup`. */
export function parseWalName(name: string): WalName | null {
  const history = HISTORY.exec(name);
  const [, timeline = '', log = '', index = ''] = history ?? SEGMENT.exec(name) ?? [];
  if (number(timeline) === 0 || timeline === '') return null;
  if (history) return { kind: 'history', timeline: number(timeline) };
  if (number(index) >= MOST_PER_LOG) return null;
  return { kind: 'segment', timeline: number(timeline), log: number(log), index: number(index) };
}

const number = (hex: string) => Number.parseInt(hex, 16);

/** The name of the segment with that number, of all of the cluster's segments from 0 on. */
export function segmentName(timeline: number, segmentNumber: bigint, segmentBytes: number): string {
  const perLog = 2n ** LOG_BITS / BigInt(segmentBytes);
  return [BigInt(timeline), segmentNumber / perLog, segmentNumber % perLog].map(eightDigits).join('');
}

/** The name of the segment in which the byte at the LSN lies. */
export const segmentNameAt = (timeline: number, lsn: bigint, segmentBytes: number) =>
  segmentName(timeline, segmentNumberAt(lsn, segmentBytes), segmentBytes);

export const segmentNumberAt = (lsn: bigint, segmentBytes: number) => lsn / BigInt(segmentBytes);

/** The LSN of the segment's first byte. */
export const segmentStart = ({ log, index }: Pick<SegmentName, 'log' | 'index'>, segmentBytes: number) =>
  (BigInt(log) << LOG_BITS) + BigInt(index) * BigInt(segmentBytes);

/** The LSN of the first byte of the segment in which the LSN lies. */
export const segmentStartAt = (lsn: bigint, segmentBytes: number) => lsn - (lsn % BigInt(segmentBytes));

export const historyName = (timeline: number) => `${eightDigits(BigInt(timeline))}.history`;

const eightDigits = (part: bigint) => part.toString(16).toUpperCase().padStart(8, '0');

/** A power of two from 1 MiB to 1 GiB. */
export const isSegmentSize = (bytes: number) =>
  bytes >= LEAST_SEGMENT_BYTES && bytes <= MOST_SEGMENT_BYTES && Number.isInteger(Math.log2(bytes));
