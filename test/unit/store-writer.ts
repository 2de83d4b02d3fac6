/**
 * A process that creates objects in a file store, for tests that kill it or take its room away:
 * `node store-writer.ts ROOT PREFIX OBJECT-BYTES [HALF]`. Prints the name of each object once it is created, and ends with
 * the first failure of each of its two lanes, printed as JSON. An object is the SHA-256 of the bytes that follow it. HALF
 * names another one, begun before them, of which only the first half ever comes.
 */
import { createHash, randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { ShipmateError } from '../../src/errors.ts';
import { openFileStore } from '../../src/store/file.ts';

const [root = '', prefix = '', objectBytes = '', halfName = ''] = process.argv.slice(2);
const store = openFileStore({ name: 'nas', path: root });
const never = new AbortController().signal;

async function write(lane: string): Promise<void> {
  for (let i = 0; ; i++) {
    const bytes = randomBytes(Number(objectBytes));
    const pieces = [createHash('sha256').update(bytes).digest(), bytes];
    const key = `${prefix}/${lane}/${i}`;
    await store.create(key, i % 2 ? () => Readable.from(pieces) : Buffer.concat(pieces), never);
    process.stdout.write(`${key}\n`);
  }
}

/** Returns once the store has the half, and asks for more. */
function writeHalf(): Promise<void> {
  return new Promise((resolve) => {
    async function* half() {
      yield randomBytes(Number(objectBytes) / 2);
      resolve();
      await new Promise(() => setInterval(() => {}, 1000));
    }
    void store.create(`${prefix}/${halfName}`, () => Readable.from(half()), never);
  });
}

if (halfName) await writeHalf();
for (const { reason } of await Promise.allSettled(['a', 'b'].map(write)).then((ends) => ends.filter(isRejected))) {
  if (!(reason instanceof ShipmateError)) throw reason;
  const { code, verdict, hint } = reason;
  process.stdout.write(`${JSON.stringify({ code, verdict, hint })}\n`);
}

function isRejected(end: PromiseSettledResult<void>): end is PromiseRejectedResult {
  return end.status === 'rejected';
}
