import { Worker } from 'node:worker_threads';
import { ShipmateError } from '../errors.ts';
import type { Block } from './blocks.ts';
import { discard, type Encoded, type Encryption, encodePayload } from './encode.ts';
import type { Done, Task } from './encode-worker.ts';

/** A chunk's payload, ready to be stored. */
export interface EncodedPayload extends Encoded {
  /** Frees its memory at once, instead of when it is next collected. Only when nothing reads `bytes` any more. */
  release(): void;
}

export interface EncoderOptions {
  /** Payloads that are encoded at once; default 2. */
  readonly threads?: number;
  /** zstd's; default 1. */
  readonly level?: number;
}

/** Turns chunks' plain bytes into payloads: zstd, encryption, SHA-256 and witness, off the event loop. */
export interface Encoder {
  /**
   * Encodes the block's first `length` bytes. Its memory is not to be touched until that is done, since it moves to a
   * thread and back; it is lost if the thread dies. First come, first served. Throws ENCODER_FAILED (retry) if a thread
   * dies or the encoder was closed. Each call says for itself how it is encrypted; null: not at all.
   */
  encode(block: Pick<Block, 'bytes'>, length: number, encryption?: Encryption | null): Promise<EncodedPayload>;
  /** Ends the threads; what is not encoded yet fails. */
  close(): Promise<void>;
}

export interface EncryptingOptions {
  /** Of age. */
  readonly recipients: readonly string[];
  /** What keys the witnesses, in hex. */
  readonly secret: () => Promise<string>;
}

/** The same encoder, for a stream that is encrypted. */
export function encrypting(encoder: Encoder, { recipients, secret }: EncryptingOptions): Encoder {
  return {
    ...encoder,
    encode: async (block, length) => encoder.encode(block, length, { recipients, secret: await secret() }),
  };
}

/** Smaller ones are encoded where they are, in 0.4 ms at most, unless encrypted: the way to a thread and back takes longer. */
const INLINE_BYTES = 64 * 1024;

interface Job {
  readonly block: Pick<Block, 'bytes'>;
  readonly length: number;
  readonly encryption: Encryption | null;
  readonly resolve: (payload: EncodedPayload) => void;
  readonly reject: (error: Error) => void;
}

export function openEncoder({ threads = 2, level = 1 }: EncoderOptions = {}): Encoder {
  const queue: Job[] = [];
  const lanes = Array.from({ length: threads }, () => new Lane(level, queue));
  let closed = false;

  return {
    async encode(block, length, encryption = null) {
      if (closed) throw failed('the encoder is closed');
      if (length < INLINE_BYTES && encryption === null)
        return releasable(encodePayload(block.bytes.subarray(0, length), level));
      return new Promise((resolve, reject) => {
        queue.push({ block, length, encryption, resolve, reject });
        lanes.find((lane) => lane.idle)?.next();
      });
    },
    async close() {
      closed = true;
      for (const { reject } of queue.splice(0)) reject(failed('the encoder is closed'));
      await Promise.all(lanes.map((lane) => lane.close()));
    },
  };
}

/** One thread and the job that it is at. It is started early, since that takes time, and again after it died. */
class Lane {
  readonly #level: number;
  readonly #queue: Job[];
  #worker: Worker | null;
  #job: Job | null = null;

  constructor(level: number, queue: Job[]) {
    this.#level = level;
    this.#queue = queue;
    this.#worker = this.#start();
    this.#worker.unref();
  }

  get idle(): boolean {
    return this.#job === null;
  }

  /** Begins the oldest waiting job, if there is one. */
  next(): void {
    this.#job = this.#queue.shift() ?? null;
    if (this.#job === null) {
      this.#worker?.unref(); // an idle encoder keeps no process alive
      return;
    }
    this.#worker ??= this.#start();
    this.#worker.ref();
    const { block, length, encryption } = this.#job;
    const task: Task = { memory: block.bytes, length, encryption };
    this.#worker.postMessage(task, [block.bytes.buffer]);
  }

  async close(): Promise<void> {
    await this.#worker?.terminate();
  }

  #start(): Worker {
    const worker = new Worker(new URL('./encode-worker.ts', import.meta.url), { workerData: { level: this.#level } });
    worker.on('message', ({ encoded, memory }: Done) => {
      if (this.#job) {
        this.#job.block.bytes = memory;
        this.#job.resolve(releasable(encoded));
      }
      this.next();
    });
    let cause: unknown;
    worker.on('error', (error) => {
      cause = error;
    });
    worker.on('exit', () => {
      this.#worker = null;
      this.#job?.reject(failed('a thread of the encoder ended', cause));
      this.next();
    });
    return worker;
  }
}

function releasable(encoded: Encoded): EncodedPayload {
  return { ...encoded, release: () => discard(encoded.bytes.buffer) };
}

function failed(why: string, cause?: unknown): ShipmateError {
  return new ShipmateError(`a chunk could not be encoded: ${why}`, {
    code: 'ENCODER_FAILED',
    verdict: 'retry',
    hint: 'if this is not during a shutdown, the process is probably short of memory',
    cause,
  });
}
