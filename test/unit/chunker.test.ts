import { expect, test } from '@jest/globals';
import { openBlockPool } from '../../src/codec/blocks.ts';
import { Chunker } from '../../src/ship/chunker.ts';
import type { LogSlice } from '../../src/source/source.ts';

const { signal } = new AbortController();

function newChunker({ maxBytes = 100 } = {}) {
  const pool = openBlockPool({ blockBytes: maxBytes, maxBytes: maxBytes * 2 });
  return new Chunker({ maxBytes, pool, nowMs: () => 0 });
}

function slice(
  from: number,
  length: number,
  { segment = 's.1', ...given }: Partial<LogSlice & { segment: string }> = {},
) {
  const at = (offset: number) => ({ origin: 'o', incarnation: 'i', segment, offset, id: '' });
  const bytes = Uint8Array.from({ length }, (_, n) => (from + n) % 256);
  return {
    from: at(from),
    to: at(from + length),
    bytes,
    boundary: true,
    endsSegment: false,
    firstEventMs: null,
    lastEventMs: null,
    ...given,
  };
}

test('only what goes on from the last slice joins it: a chunk holds every byte of its range', async () => {
  const chunker = newChunker();
  await chunker.add(slice(0, 10), signal);
  expect(chunker.fits(slice(10, 10))).toBe(true);
  expect(chunker.fits(slice(11, 10))).toBe(false);
  expect(chunker.fits(slice(0, 10))).toBe(false);
  expect(chunker.fits(slice(0, 10, { segment: 's.2' }))).toBe(false);
  expect(chunker.fits(slice(10, 91))).toBe(false);
});

test('a chunk ends on a transaction boundary, and what lies behind it is carried over', async () => {
  const chunker = newChunker();
  await chunker.add(slice(0, 40), signal);
  await chunker.add(slice(40, 30, { boundary: false }), signal);
  const first = (await chunker.take(signal))!;
  expect(first).toMatchObject({ from: { offset: 0 }, to: { offset: 40 }, length: 40, openTransaction: false });
  await chunker.add(slice(70, 20), signal);
  const second = (await chunker.take(signal))!;
  expect(second).toMatchObject({ from: { offset: 40 }, to: { offset: 90 }, length: 50, openTransaction: false });
  expect([...second.block.bytes.subarray(0, 50)]).toEqual(Array.from({ length: 50 }, (_, n) => 40 + n));
  expect(chunker.empty).toBe(true);
});

test('a transaction that is larger than a chunk is cut inside, and says so', async () => {
  const chunker = newChunker();
  await chunker.add(slice(0, 100, { boundary: false }), signal);
  expect(chunker.ready).toBe(false);
  expect(await chunker.take(signal)).toMatchObject({ length: 100, openTransaction: true });
});
