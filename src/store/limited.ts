import { Readable } from 'node:stream';
import { abortReason } from '../errors.ts';

/** The slowest link that large bodies get through: 64 KiB/s each. */
const SLOWEST_BYTES_PER_MS = 64;

export interface Limits {
  readonly signal?: AbortSignal | undefined;
  readonly deadlineMs: number;
  /** What is sent: a large body gets more time. */
  readonly bodyBytes?: number;
  /** What is thrown when the deadline passes. */
  readonly tooSlow: (waitedMs: number) => Error;
}

/**
 * Carries out one call of an SDK, which gets a signal to leave by; ends with the caller's reason when its signal aborts, and at
 * the deadline, even where the SDK goes on waiting (for credentials, say).
 */
export async function limited<T>(limits: Limits, work: (limit: AbortSignal) => Promise<T>): Promise<T> {
  const { signal, bodyBytes = 0, tooSlow } = limits;
  if (signal?.aborted) throw abortReason(signal);
  const ended = new AbortController();
  const { promise: left, reject } = Promise.withResolvers<never>();
  const end = (reason: Error) => {
    ended.abort(reason);
    reject(reason);
  };
  const deadlineMs = limits.deadlineMs + bodyBytes / SLOWEST_BYTES_PER_MS;
  const timer = setTimeout(() => end(tooSlow(deadlineMs)), deadlineMs);
  const leave = () => signal && end(abortReason(signal));
  signal?.addEventListener('abort', leave, { once: true });
  try {
    return await Promise.race([work(ended.signal), left]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', leave);
  }
}

export interface Pace {
  /** No byte for so long, while the reader wants some: the body is given up. */
  readonly stallMs: number;
  readonly tooSlow: (waitedMs: number) => Error;
  readonly failed: (cause: unknown) => Error;
}

/** A body as it comes, at the reader's pace; leaving it ends the request behind it. */
export function paced(body: Readable, pace: Pace): Readable {
  const reader = Readable.from(piecesInTime(body, pace), { objectMode: false });
  // Also of a reader that leaves before it has read anything.
  reader.once('close', () => body.destroy());
  body.on('error', () => {}); // the pieces tell
  return reader;
}

async function* piecesInTime(body: Readable, { stallMs, tooSlow, failed }: Pace): AsyncGenerator<Buffer> {
  const pieces = body[Symbol.asyncIterator]();
  let stalled: Error | null = null;
  for (;;) {
    const timer = setTimeout(() => {
      stalled = tooSlow(stallMs);
      body.destroy(stalled);
    }, stallMs);
    let piece: IteratorResult<Buffer>;
    try {
      piece = await pieces.next();
    } catch (error) {
      throw stalled ?? failed(error);
    } finally {
      clearTimeout(timer); // how long the reader takes with the piece is its own affair
    }
    if (piece.done) return;
    yield piece.value;
  }
}
