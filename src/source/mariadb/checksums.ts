import { crc32 } from '@node-rs/crc32';
import { CHECKSUM_BYTES } from './events.ts';

/**
 * Checks many small events with one native CRC call, which per event would cost more than the CRC itself.
 *
 * Every valid event ends with its own CRC, so the CRC over all of it is the same constant, whatever its bytes. And a CRC
 * is linear: crc(A + B) = shift(crc(A), length of B) ^ crc(B), where shift(c, n) is c carried over n zero bytes. So the
 * CRC of a run of valid events follows from their lengths alone: the XOR of shift(constant, distance to the run's end).
 */
const VALID_EVENT_CRC = 0x2144df1c;

/** Events are checked in runs of at most this length (or one by one, if longer); also the size of the table below. */
const RUN_BYTES = 1 << 16;

const shifted = shiftTable();

/** `shifted[n]`: shift(VALID_EVENT_CRC, n). */
function shiftTable(): Uint32Array {
  const byByte = Uint32Array.from({ length: 256 }, (_, byte) => {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
    return crc;
  });
  const table = new Uint32Array(RUN_BYTES + 1);
  table[0] = VALID_EVENT_CRC;
  for (let n = 0; n < RUN_BYTES; n++) table[n + 1] = (table[n]! >>> 8) ^ byByte[table[n]! & 0xff]!;
  return table;
}

/** Whether the one event in bytes[start, end) has the checksum that it says. */
export function isValidEvent(bytes: Uint8Array, start: number, end: number): boolean {
  return end - start >= CHECKSUM_BYTES && crc32(bytes.subarray(start, end)) === VALID_EVENT_CRC;
}

/**
 * The number of events, out of `count`, before the first whose checksum is wrong: `count` if all are right. They follow
 * each other in `bytes` from `start` on; `ends[i]` is where event i ends.
 */
export function countValid(bytes: Uint8Array, start: number, ends: Uint32Array, count: number): number {
  let first = 0;
  let runStart = start;
  while (first < count) {
    let last = first;
    while (last + 1 < count && ends[last + 1]! - runStart <= RUN_BYTES) last++;
    const runEnd = ends[last]!;
    const isValid =
      last === first ? isValidEvent(bytes, runStart, runEnd) : isValidRun(bytes, runStart, ends, first, last);
    if (!isValid) return first + countOneByOne(bytes, runStart, ends, first, last);
    first = last + 1;
    runStart = runEnd;
  }
  return count;
}

function isValidRun(bytes: Uint8Array, start: number, ends: Uint32Array, first: number, last: number): boolean {
  const end = ends[last]!;
  let expected = 0;
  for (let i = first; i <= last; i++) expected ^= shifted[end - ends[i]!]!;
  return crc32(bytes.subarray(start, end)) === expected >>> 0;
}

function countOneByOne(bytes: Uint8Array, start: number, ends: Uint32Array, first: number, last: number): number {
  let from = start;
  for (let i = first; i <= last; i++) {
    if (!isValidEvent(bytes, from, ends[i]!)) return i - first;
    from = ends[i]!;
  }
  return last - first + 1;
}
