/** An object's bytes: its header frame, then the payload. Openings and seals have none. */
export function objectBytes(headerFrame: Uint8Array, payload?: Uint8Array): Uint8Array {
  return payload === undefined ? headerFrame : Buffer.concat([headerFrame, payload]);
}
