import { expect, test } from '@jest/globals';
import { openBlockPool } from '../../src/codec/blocks.ts';
import { Chunker } from '../../src/ship/chunker.ts';
import type { LogSlice } from '../../src/source/source.ts';

const { signal } = new AbortController();

function newChunker({ maxBytes = 100, nowMs = (): number => 0 } = {}) {
  const pool = openBlockPool({ blockBytes: maxBytes, maxBytes: maxBytes * 2 });
  return new Chunker({ maxBytes, pool, nowMs });
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

test('a chunk is as old as its own first bytes, also where each begins with what was carried over', async () => {
  let nowMs = 0;
  const chunker = newChunker({ nowMs: () => nowMs });
  const shipped: unknown[] = [];
  await chunker.add(slice(0, 10, { firstEventMs: 1_000 }), signal);
  for (let at = 10; at < 100; at += 30) {
    nowMs += 100;
    await chunker.add(slice(at, 10, { boundary: false, firstEventMs: 1_000 + nowMs }), signal);
    const cut = (await chunker.take(signal))!;
    shipped.push([cut.from.offset, cut.readAtMs, cut.firstEventMs]);
    cut.block.release();
    await chunker.add(slice(at + 10, 20, { firstEventMs: 5_000 }), signal);
  }
  expect(shipped).toEqual([
    [0, 0, 1_000],
    [10, 100, 1_100],
    [40, 200, 1_200],
  ]);
});

test('what lies behind a chunk says nothing of its time', async () => {
  const chunker = newChunker();
  await chunker.add(slice(0, 10), signal);
  await chunker.add(slice(10, 10, { boundary: false, firstEventMs: 2_000, lastEventMs: 2_000 }), signal);
  expect(await chunker.take(signal)).toMatchObject({ length: 10, firstEventMs: null, lastEventMs: null });
});
