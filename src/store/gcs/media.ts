import type { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import { ShipmateError } from '../../errors.ts';
import { crc32cIn, RunningCrc32c } from './checksum.ts';
import { damaged, tooSlow, unreachable } from './errors.ts';

export interface MediaOptions {
  /** The store's, for messages. */
  readonly store: string;
  readonly key: string;
  /** No byte for so long, while the reader wants some: the connection is given up. */
  readonly stallMs: number;
}

/** An object's bytes as they come; when they are the whole object, its checksum is compared before the end is told. */
export function mediaOf(response: IncomingMessage, options: MediaOptions): Readable {
  response.socket.setTimeout(0); // a reader may take its time; that of the other side is measured below
  const body = Readable.from(piecesOf(response, options), { objectMode: false });
  // Also of a reader that leaves before it has read anything.
  body.once('close', () => response.destroy());
  response.on('error', () => {}); // the pieces tell
  return body;
}

async function* piecesOf(response: IncomingMessage, { store, key, stallMs }: MediaOptions): AsyncGenerator<Buffer> {
  const expected = isWhole(response) ? crc32cIn(response.headers['x-goog-hash']) : null;
  const sum = new RunningCrc32c();
  const pieces = response[Symbol.asyncIterator]();
  try {
    for (;;) {
      const stalled = setTimeout(() => {
        response.destroy(tooSlow(store, `read ${key}`, `no byte came for ${stallMs / 1_000} s`));
      }, stallMs);
      const { value, done } = await pieces.next().finally(() => clearTimeout(stalled));
      if (done) break;
      if (expected !== null) sum.add(value);
      yield value;
    }
  } catch (error) {
    throw error instanceof ShipmateError ? error : unreachable(store, `read ${key}`, error);
  }
  if (expected !== null && sum.encoded !== expected) throw damaged(store, key);
}

/** Whether nothing of the object is left out. */
function isWhole({ statusCode, headers }: IncomingMessage): boolean {
  if (statusCode === 200) return true;
  const [, first, last, size] = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(headers['content-range'] ?? '') ?? [];
  return first === '0' && Number(last) + 1 === Number(size);
}
