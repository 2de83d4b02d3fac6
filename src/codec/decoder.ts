import { Worker } from 'node:worker_threads';
import { ShipmateError } from '../errors.ts';
import type { Identity } from './age-keys.ts';
import { decodePayload, type PayloadFacts } from './decode.ts';
import { discard } from './encode.ts';

/** A chunk's plain bytes, every digest checked. */
export interface Decoded {
  readonly bytes: Uint8Array;
  /** Frees their memory at once, instead of when it is next collected. Only when nothing reads `bytes` any more. */
  release(): void;
}

/** Turns payloads back into plain bytes: SHA-256, decryption, zstd and witness, off the event loop. */
export interface Decoder {
  /**
   * As `decodePayload`. Takes over the payload's memory, an ArrayBuffer of its own. Throws DECODER_FAILED (retry) if its
   * thread dies.
   */
  decode(payload: Uint8Array<ArrayBuffer>, facts: PayloadFacts, key: string): Promise<Decoded>;
  /** Starts the thread, which takes a tenth of a second, before there is something to decode. */
  start(): void;
  /** Ends the thread; what is not decoded yet fails. */
  close(): Promise<void>;
}

export interface DecoderOptions {
  /** What opens encrypted chunks. */
  readonly identities?: readonly Identity[];
  /** Smaller payloads are decoded where they are: the way to a thread and back takes longer. 64 KiB by default. */
  readonly inlineBytes?: number;
}

/** What the thread is given, and what it answers. */
export interface Order {
  readonly id: number;
  readonly payload: Uint8Array<ArrayBuffer>;
  readonly facts: PayloadFacts;
  readonly key: string;
}
export type Answer = { readonly id: number } & (
  | { readonly plain: Uint8Array<ArrayBuffer> }
  | { readonly failure: { readonly message: string; readonly code: string; readonly hint: string | undefined } }
);

const INLINE_BYTES = 64 * 1024;

/**
 * One thread is enough: it computes digests, while Node's own pool decompresses. It is started when the first large payload
 * comes.
 */
export function openDecoder({ identities = [], inlineBytes = INLINE_BYTES }: DecoderOptions = {}): Decoder {
  const thread = new DecodeThread(identities);
  return {
    async decode(payload, facts, key) {
      if (facts.length < inlineBytes) {
        return { bytes: await decodePayload(payload, facts, key, identities), release() {} };
      }
      const plain = await thread.decode({ payload, facts, key });
      return { bytes: plain, release: () => discard(plain.buffer) };
    },
    start() {
      thread.start();
    },
    close: () => thread.close(),
  };
}

type Outcome = Pick<PromiseWithResolvers<Uint8Array<ArrayBuffer>>, 'resolve' | 'reject'>;

class DecodeThread {
  /** What it is still to answer. */
  readonly #orders = new Map<number, Outcome>();
  #worker: Worker | null = null;
  #lastId = 0;
  readonly #identities: readonly Identity[];

  constructor(identities: readonly Identity[]) {
    this.#identities = identities;
  }

  decode(order: Omit<Order, 'id'>): Promise<Uint8Array<ArrayBuffer>> {
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array<ArrayBuffer>>();
    const id = ++this.#lastId;
    const worker = this.start();
    worker.ref();
    this.#orders.set(id, { resolve, reject });
    worker.postMessage({ id, ...order } satisfies Order, [order.payload.buffer]);
    return promise;
  }

  async close(): Promise<void> {
    await this.#worker?.terminate();
  }

  start(): Worker {
    if (this.#worker !== null) return this.#worker;
    const worker = new Worker(new URL('./decode-worker.ts', import.meta.url), {
      workerData: { identities: this.#identities },
    });
    worker.on('message', (answer: Answer) => {
      const order = this.#orders.get(answer.id);
      this.#orders.delete(answer.id);
      if (this.#orders.size === 0) worker.unref(); // an idle decoder keeps no process alive
      if ('plain' in answer) order?.resolve(answer.plain);
      else order?.reject(new ShipmateError(answer.failure.message, answer.failure));
    });
    let cause: unknown;
    worker.on('error', (error) => {
      cause = error;
    });
    worker.on('exit', () => {
      this.#worker = null;
      for (const { reject } of this.#orders.values()) reject(died(cause));
      this.#orders.clear();
    });
    worker.unref();
    this.#worker = worker;
    return worker;
  }
}

function died(cause: unknown): ShipmateError {
  return new ShipmateError("a chunk could not be decoded: the decoder's thread ended", {
    code: 'DECODER_FAILED',
    verdict: 'retry',
    hint: 'if this is not during a shutdown, the process is probably short of memory',
    cause,
  });
}
