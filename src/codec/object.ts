import { type Encoded, HEADER_ROOM_BYTES } from './encode.ts';

/**
 * An object's bytes: its header frame, then the payload. Openings and seals have none. The header is put right before an
 * encoded payload where that lies, so that each takes only one; other payloads are copied.
 */
export function objectBytes(headerFrame: Uint8Array, payload?: Uint8Array | Encoded): Uint8Array {
  if (payload === undefined) return headerFrame;
  if (payload instanceof Uint8Array) return Buffer.concat([headerFrame, payload]);
  const { buffer, byteOffset, length } = payload.bytes;
  if (headerFrame.length > HEADER_ROOM_BYTES) return Buffer.concat([headerFrame, payload.bytes]);
  const object = new Uint8Array(buffer, byteOffset - headerFrame.length, headerFrame.length + length);
  object.set(headerFrame);
  return object;
}
