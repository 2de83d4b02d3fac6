import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { type Block, openBlockPool } from '../../src/codec/blocks.ts';

const never = new AbortController().signal;

describe('the block pool', () => {
  test('never lends more than its cap, and serves those who wait in their order', async () => {
    const pool = openBlockPool({ blockBytes: 1_000, maxBytes: 2_999 });
    const [first, second] = [await pool.acquire(never), await pool.acquire(never)];
    expect(first.bytes.length).toBe(1_000);
    const served: number[] = [];
    const waits = [0, 1, 2].map(async (caller) => {
      const block = await pool.acquire(never);
      served.push(caller);
      return block;
    });
    await settle();
    expect(served).toEqual([]);
    expect(pool.usage).toEqual({ blocks: 2, waiting: 3 });
    second.release();
    first.release();
    await settle();
    expect(served).toEqual([0, 1]);
    (await waits[0]!).release();
    (await waits[2]!).release();
    (await waits[1]!).release();
    expect(pool.usage).toEqual({ blocks: 0, waiting: 0 });
  });

  test('gives memory that is out to nobody else, even if it is released twice', async () => {
    const pool = openBlockPool({ blockBytes: 8, maxBytes: 16 });
    const first = await pool.acquire(never);
    first.release();
    first.release();
    const [second, third] = [await pool.acquire(never), await pool.acquire(never)];
    expect(second.bytes.buffer).not.toBe(third.bytes.buffer);
    first.release();
    expect(pool.usage).toEqual({ blocks: 2, waiting: 0 });
  });

  test('forgets those who give up waiting', async () => {
    const pool = openBlockPool({ blockBytes: 8, maxBytes: 8 });
    const only = await pool.acquire(never);
    const term = new AbortController();
    const reason = new Error('the term is over');
    const givenUp = pool.acquire(term.signal);
    const patient = pool.acquire(never);
    term.abort(reason);
    await expect(givenUp).rejects.toBe(reason);
    await expect(pool.acquire(term.signal)).rejects.toBe(reason);
    only.release();
    (await patient).release();
    expect(pool.usage).toEqual({ blocks: 0, waiting: 0 });
  });

  test('grows: who waits is served, and what comes back is as large as the others', async () => {
    const pool = openBlockPool({ blockBytes: 8, maxBytes: 8 });
    const small = await pool.acquire(never);
    const waiting = pool.acquire(never);
    pool.resize({ blockBytes: 16, maxBytes: 48 });
    const served = await waiting;
    expect(served.bytes.length).toBe(16);
    small.release();
    const blocks = [await pool.acquire(never), await pool.acquire(never)];
    expect(blocks.map(({ bytes }) => bytes.length)).toEqual([16, 16]);
    expect(pool.usage).toEqual({ blocks: 3, waiting: 0 });
  });

  test('shrinks: what comes back is let go of, and only as many are lent as are asked for', async () => {
    const pool = openBlockPool({ blockBytes: 64, maxBytes: 256 });
    const large = await Promise.all([1, 2, 3].map(() => pool.acquire(never)));
    large.pop()!.release();
    pool.resize({ blockBytes: 8, maxBytes: 16 });
    const waiting = pool.acquire(never);
    large.pop()!.release();
    expect((await waiting).bytes.length).toBe(8);
    large.pop()!.release();
    expect((await pool.acquire(never)).bytes.length).toBe(8);
    expect(pool.usage).toEqual({ blocks: 2, waiting: 0 });
  });

  test('lends fewer once they are larger: those that are too many are not lent again', async () => {
    const pool = openBlockPool({ blockBytes: 8, maxBytes: 32 });
    const small = await Promise.all([1, 2, 3, 4].map(() => pool.acquire(never)));
    pool.resize({ blockBytes: 64, maxBytes: 128 });
    const waiting = pool.acquire(never);
    small[0]!.release();
    small[1]!.release();
    expect(pool.usage).toEqual({ blocks: 2, waiting: 1 });
    small[2]!.release();
    expect((await waiting).bytes.length).toBe(64);
    small[3]!.release();
    expect((await pool.acquire(never)).bytes.length).toBe(64);
    expect(pool.usage).toEqual({ blocks: 2, waiting: 0 });
  });

  test('replaces memory that was lost with a thread', async () => {
    const pool = openBlockPool({ blockBytes: 8, maxBytes: 8 });
    const only = await pool.acquire(never);
    const waiting = pool.acquire(never);
    only.bytes.buffer.transfer();
    only.release();
    expect((await waiting).bytes.length).toBe(8);
  });

  test('refuses a cap that no block fits into', () => {
    expect(() => openBlockPool({ blockBytes: 9, maxBytes: 8 })).toThrow('fits');
  });

  test('lends every block to one holder at a time, whatever the order of calls', async () => {
    const step = fc.constantFrom('acquire', 'release', 'abort');
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        const pool = openBlockPool({ blockBytes: 8, maxBytes: 24 });
        const held: Block[] = [];
        const waiting: AbortController[] = [];
        for (const what of steps) {
          if (what === 'release') held.shift()?.release();
          if (what === 'abort') waiting.shift()?.abort(new Error('given up'));
          if (what === 'acquire') {
            const waits = new AbortController();
            waiting.push(waits);
            pool.acquire(waits.signal).then(
              (block) => {
                held.push(block);
                waiting.splice(waiting.indexOf(waits), 1);
              },
              () => {},
            );
          }
          await settle();
          expect(new Set(held.map(({ bytes }) => bytes.buffer)).size).toBe(held.length);
          expect(pool.usage).toEqual({ blocks: held.length, waiting: waiting.length });
          if (waiting.length > 0) expect(held.length).toBe(3);
        }
      }),
    );
  });
});

/** Lets everything go on that can. */
const settle = () => new Promise((resolve) => setImmediate(resolve));
