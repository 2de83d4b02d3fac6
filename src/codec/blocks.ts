import { abortReason } from '../errors.ts';

/** Memory for one chunk's plain bytes, which move to the encoder's threads and back, so that they are never copied there. */
export interface Block {
  /**
   * All of the block; what was in it before is still there. Empty while an encoder has it, and put here anew when it is
   * back. Not to be touched after `release`.
   */
  bytes: Uint8Array<ArrayBuffer>;
  /** Gives the block to whoever waits longest. Once is enough; again does nothing. */
  release(): void;
}

/** Bounds the plain bytes in memory, all streams together. */
export interface BlockPool {
  /** A block, as soon as there is one; first come, first served. Aborting leaves the queue (throws the signal's reason). */
  acquire(signal: AbortSignal): Promise<Block>;
  /** From now on there are so many blocks of such a size; those that are out may be others until they come back. */
  resize(to: BlockPoolOptions): void;
  /** Blocks that are out now, and callers that wait for one. */
  readonly usage: { readonly blocks: number; readonly waiting: number };
}

export interface BlockPoolOptions {
  readonly blockBytes: number;
  /** Of all blocks together; room for at least one. */
  readonly maxBytes: number;
}

export function openBlockPool(options: BlockPoolOptions): BlockPool {
  let { blockBytes } = options;
  let maxBlocks = blocksIn(options);
  const free: ArrayBuffer[] = [];
  const waiting = new Set<(memory: ArrayBuffer) => void>();
  let out = 0;

  const lend = (lentMemory: ArrayBuffer): Block => {
    let lent = true;
    const release = () => {
      if (!lent) return;
      lent = false;
      const { buffer } = block.bytes;
      // It was lost with an encoder's thread, or is of a size that is no longer lent.
      const isOfUse = !buffer.detached && buffer.byteLength === blockBytes;
      const isTooMany = out > maxBlocks; // there were more
      const [next] = waiting;
      if (next && !isTooMany) {
        waiting.delete(next);
        next(isOfUse ? buffer : new ArrayBuffer(blockBytes));
      } else {
        out--;
        if (isOfUse && !isTooMany) free.push(buffer);
      }
    };
    const block: Block = { bytes: new Uint8Array(lentMemory), release };
    return block;
  };

  const wait = (signal: AbortSignal): Promise<ArrayBuffer> =>
    new Promise((resolve, reject) => {
      const serve = (memory: ArrayBuffer) => {
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
      if (out >= maxBlocks) return lend(await wait(signal));
      out++;
      return lend(free.pop() ?? new ArrayBuffer(blockBytes));
    },
    resize(to) {
      maxBlocks = blocksIn(to);
      blockBytes = to.blockBytes;
      free.length = 0;
      for (const serve of waiting) {
        if (out >= maxBlocks) break;
        waiting.delete(serve);
        out++;
        serve(new ArrayBuffer(blockBytes));
      }
    },
    get usage() {
      return { blocks: out, waiting: waiting.size };
    },
  };
}

function blocksIn({ blockBytes, maxBytes }: BlockPoolOptions): number {
  const blocks = Math.floor(maxBytes / blockBytes);
  if (!(blocks >= 1)) throw new RangeError(`no block of ${blockBytes} bytes fits into ${maxBytes}`);
  return blocks;
}
