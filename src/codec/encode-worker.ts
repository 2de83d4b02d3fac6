/** A thread of the encoder: encodes one payload a message, and sends it and the plain bytes' memory back without copying. */
import { parentPort, workerData } from 'node:worker_threads';
import { type Encoded, type Encryption, encodePayload } from './encode.ts';

export interface Task {
  readonly memory: Uint8Array<ArrayBuffer>;
  /** How many of its bytes are to be encoded. */
  readonly length: number;
  readonly encryption: Encryption | null;
}

export interface Done {
  readonly encoded: Encoded;
  readonly memory: Uint8Array<ArrayBuffer>;
}

const { level }: { level: number } = workerData;

parentPort?.on('message', ({ memory, length, encryption }: Task) => {
  const done: Done = { encoded: encodePayload(memory.subarray(0, length), level, encryption), memory };
  parentPort?.postMessage(done, [done.encoded.bytes.buffer, memory.buffer]);
});
