import type { Readable } from 'node:stream';

/** The stream's bytes in pieces of one size, but for the last; none if it is empty. Destroys it when it is left. */
export async function* piecesOf(body: Readable, pieceBytes: number): AsyncGenerator<Buffer, undefined> {
  let parts: Buffer[] = [];
  let length = 0;
  for await (const given of body) {
    let rest = Buffer.from(given.buffer, given.byteOffset, given.length);
    while (length + rest.length > pieceBytes) {
      const cut = pieceBytes - length;
      yield Buffer.concat([...parts, rest.subarray(0, cut)]);
      rest = rest.subarray(cut);
      parts = [];
      length = 0;
    }
    parts.push(rest);
    length += rest.length;
  }
  if (length > 0) yield Buffer.concat(parts);
  return undefined;
}
