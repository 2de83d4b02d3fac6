/** The decoder's thread: decodes and checks one payload a message, and sends the plain bytes back without copying. */
import { parentPort, workerData } from 'node:worker_threads';
import { messageOf, ShipmateError } from '../errors.ts';
import type { Identity } from './age-keys.ts';
import { decodePayload } from './decode.ts';
import type { Answer, Order } from './decoder.ts';
import { discard } from './encode.ts';

const { identities }: { identities: readonly Identity[] } = workerData;

parentPort?.on('message', async ({ id, payload, facts, key }: Order) => {
  try {
    const plain = await decodePayload(payload, facts, key, identities);
    parentPort?.postMessage({ id, plain } satisfies Answer, [plain.buffer]);
  } catch (error) {
    const { code = 'DECODER_FAILED', hint } = error instanceof ShipmateError ? error : {};
    parentPort?.postMessage({ id, failure: { message: messageOf(error), code, hint } } satisfies Answer);
  }
  discard(payload.buffer);
});
