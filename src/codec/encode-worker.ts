/** A thread of the encoder: encodes one payload a message and sends it back without copying. */
import { parentPort, workerData } from 'node:worker_threads';
import { encodePayload } from './encode.ts';

const { level }: { level: number } = workerData;

parentPort?.on('message', (plain: Uint8Array) => {
  const encoded = encodePayload(plain, level);
  parentPort?.postMessage(encoded, [encoded.bytes.buffer]);
});
