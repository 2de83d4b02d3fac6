import { types } from 'node:util';
import { Worker } from 'node:worker_threads';
import { ShipmateError } from '../errors.ts';
import { discard, type Encoded, encodePayload } from './encode.ts';

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

/** Turns chunks' plain bytes into payloads: zstd, SHA-256 and witness, off the event loop. */
export interface Encoder {
  /**
   * `plain` is not to be changed until it is done; a view on a pooled block is read where it lies, other memory is copied.
   * First come, first served. Throws ENCODER_FAILED (retry) if a thread dies or the encoder was closed.
   */
  encode(plain: Uint8Array): Promise<EncodedPayload>;
  /** Ends the threads; what is not encoded yet fails. */
  close(): Promise<void>;
}

/** Smaller ones are encoded where they are, in 0.4 ms at most: the way to a thread and back takes longer. */
const INLINE_BYTES = 64 * 1024;

interface Job {
  readonly plain: Uint8Array;
  readonly resolve: (payload: EncodedPayload) => void;
  readonly reject: (error: Error) => void;
}

export function openEncoder({ threads = 2, level = 1 }: EncoderOptions = {}): Encoder {
  const queue: Job[] = [];
  const lanes = Array.from({ length: threads }, () => new Lane(level, queue));
  let closed = false;

  return {
    async encode(plain) {
      if (closed) throw failed('the encoder is closed');
      if (plain.length < INLINE_BYTES) return releasable(encodePayload(plain, level));
      return new Promise((resolve, reject) => {
        queue.push({ plain, resolve, reject });
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
    const { plain } = this.#job;
    if (types.isSharedArrayBuffer(plain.buffer)) {
      this.#worker.postMessage(plain);
    } else {
      const copy = new Uint8Array(plain);
      this.#worker.postMessage(copy, [copy.buffer]);
    }
  }

  async close(): Promise<void> {
    await this.#worker?.terminate();
  }

  #start(): Worker {
    const worker = new Worker(new URL('./encode-worker.ts', import.meta.url), { workerData: { level: this.#level } });
    worker.on('message', (encoded: Encoded) => {
      this.#job?.resolve(releasable(encoded));
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
