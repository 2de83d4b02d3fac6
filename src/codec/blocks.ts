import { abortReason } from '../errors.ts';

/** Memory for one chunk's plain bytes, shared with the encoder's threads, so that they are never copied there. */
export interface Block {
  /** All of the block; what was in it before is still there. Not to be touched after `release`. */
  readonly bytes: Uint8Array<SharedArrayBuffer>;
  /** Gives the block to whoever waits longest. Once is enough; again does nothing. */
  release(): void;
}

/** Bounds the plain bytes in memory, all streams together. */
export interface BlockPool {
  /** A block, as soon as there is one; first come, first served. Aborting leaves the queue (throws the signal's reason). */
  acquire(signal: AbortSignal): Promise<Block>;
  /** Blocks that are out now, and callers that wait for one. */
  readonly usage: { readonly blocks: number; readonly waiting: number };
}

export interface BlockPoolOptions {
  readonly blockBytes: number;
  /** Of all blocks together; room for at least one. */
  readonly maxBytes: number;
}

export function openBlockPool({ blockBytes, maxBytes }: BlockPoolOptions): BlockPool {
  const maxBlocks = Math.floor(maxBytes / blockBytes);
  if (!(maxBlocks >= 1)) throw new RangeError(`no block of ${blockBytes} bytes fits into ${maxBytes}`);
  const free: SharedArrayBuffer[] = [];
  const waiting = new Set<(memory: SharedArrayBuffer) => void>();
  let out = 0;

  const lend = (memory: SharedArrayBuffer): Block => {
    let lent = true;
    const release = () => {
      if (!lent) return;
      lent = false;
      const [next] = waiting;
      if (next) {
        waiting.delete(next);
        next(memory);
      } else {
        out--;
        free.push(memory);
      }
    };
    return { bytes: new Uint8Array(memory), release };
  };

  const wait = (signal: AbortSignal): Promise<SharedArrayBuffer> =>
    new Promise((resolve, reject) => {
      const serve = (memory: SharedArrayBuffer) => {
        signal.removeEventListener('abort', leave);
        resolve(memory);
      };
      const leave = () => {
        waiting.delete(serve);
        reject(abortReason(signal));
      };
      waiting.add(serve);
      signal.addEventListener('abort', leave, { once: true });
    });

  return {
    async acquire(signal) {
      if (signal.aborted) throw abortReason(signal);
      if (out === maxBlocks) return lend(await wait(signal));
      out++;
      return lend(free.pop() ?? new SharedArrayBuffer(blockBytes));
    },
    get usage() {
      return { blocks: out, waiting: waiting.size };
    },
  };
}
