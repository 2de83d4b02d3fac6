import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from '@jest/globals';
import { paced } from '../../src/store/limited.ts';

const STALL_MS = 50;
const pace = {
  stallMs: STALL_MS,
  tooSlow: () => new Error('too slow'),
  failed: () => new Error('failed'),
};
const PIECE = Buffer.alloc(100_000, 'x');

describe('the body of an object', () => {
  test('waits for a reader that takes its time', async () => {
    const reader = paced(Readable.from([PIECE, PIECE, PIECE], { objectMode: false }), pace);
    let bytes = 0;
    for await (const piece of reader) {
      bytes += piece.length;
      await delay(2 * STALL_MS);
    }
    expect(bytes).toBe(3 * PIECE.length);
  });

  test('is given up where the other side stalls', async () => {
    const body = new Readable({ read() {} });
    body.push(PIECE);
    await expect(paced(body, pace).toArray()).rejects.toThrow('too slow');
    expect(body.destroyed).toBe(true);
  });

  test('is let go of where it is left, also before it was read', async () => {
    const body = new Readable({ read() {} });
    const closed = new Promise((resolve) => body.once('close', resolve));
    paced(body, pace).destroy();
    await closed;
  });
});
