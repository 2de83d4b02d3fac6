/** The outer shape of zstd data (RFC 8878, section 3.1): where each frame begins and ends. Nothing is decoded here. */

const ZSTD_MAGIC = 0xfd2fb528;
const SKIPPABLE_MAGIC = 0x184d2a50;
const SKIPPABLE_MASK = 0xfffffff0;

export interface Frame {
  readonly kind: 'zstd' | 'skippable';
  /** The whole frame, its own header included. */
  readonly bytes: Uint8Array;
}

/** The frames of concatenated zstd data, in order; throws RangeError where it is torn or is something else. */
export function* framesOf(data: Uint8Array): Generator<Frame> {
  const view = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  for (let at = 0; at < view.length; ) {
    const magic = view.readUInt32LE(at);
    const skippable = (magic & SKIPPABLE_MASK) >>> 0 === SKIPPABLE_MAGIC;
    if (!skippable && magic !== ZSTD_MAGIC) throw new RangeError(`no zstd frame at byte ${at}`);
    const end = skippable ? at + 8 + view.readUInt32LE(at + 4) : zstdFrameEnd(view, at);
    if (end > view.length) throw new RangeError(`the zstd frame at byte ${at} is cut short`);
    yield { kind: skippable ? 'skippable' : 'zstd', bytes: data.subarray(at, end) };
    at = end;
  }
}

/** Steps from block to block: each begins with 3 bytes that give its size and whether it is the last. */
function zstdFrameEnd(view: Buffer, start: number): number {
  const descriptor = view.readUInt8(start + 4);
  let at = start + 5 + frameHeaderRest(descriptor);
  for (;;) {
    const block = view.readUIntLE(at, 3);
    const isLast = (block & 1) === 1;
    const isRun = ((block >>> 1) & 3) === 1; // one byte, repeated
    at += 3 + (isRun ? 1 : block >>> 3);
    if (isLast) break;
  }
  const hasChecksum = (descriptor & 4) !== 0;
  return at + (hasChecksum ? 4 : 0);
}

/** Bytes of window descriptor, dictionary id and content size, by the frame header's descriptor. */
function frameHeaderRest(descriptor: number): number {
  const singleSegment = (descriptor & 32) !== 0;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3]!;
  const contentSizeBytes = [singleSegment ? 1 : 0, 2, 4, 8][descriptor >>> 6]!;
  return (singleSegment ? 0 : 1) + dictionaryBytes + contentSizeBytes;
}
