import { describe, expect, test } from '@jest/globals';
import type { Twin } from '../../src/coordination/coordination.ts';
import { Clocks } from '../../src/ship/clocks.ts';

const HERE_MS = Date.parse('2026-01-01T00:00:00Z');
const twin = (ms: number, node = 'b'): Twin => ({
  node,
  version: 'test',
  format: 1,
  time: new Date(ms).toISOString(),
  streams: [],
});

/** What is told in looks a second apart: `toldMs` says what b's clock shows, on this clock's time, when it last told. */
function look(clocks: Clocks, seconds: number, toldMs: (nowMs: number) => number, from = 0) {
  return Array.from({ length: seconds }, (_, n) => HERE_MS + (from + n) * 1_000).flatMap((nowMs) =>
    clocks.observe([twin(nowMs - 60_000, 'a'), twin(toldMs(nowMs))], nowMs),
  );
}

describe('a twin’s clock', () => {
  test.each([
    ['ahead', 3_600_000],
    ['behind', -3_000],
  ])('that is %s is told once, and once when it agrees again', (_, offMs) => {
    const clocks = new Clocks('a');
    const toldLateMs = (nowMs: number) => (nowMs % 4_000 === 0 ? 400 : 1_900);
    expect(look(clocks, 60, (nowMs) => nowMs + offMs - toldLateMs(nowMs))).toEqual([
      { node: 'b', behindMs: -offMs + 400, differs: true },
    ]);
    expect(look(clocks, 60, (nowMs) => nowMs - 400, 60)).toEqual([{ node: 'b', behindMs: 400, differs: false }]);
  });

  test('says nothing where its daemon hangs, tells late now and then, or is a moment off', () => {
    expect(look(new Clocks('a'), 60, () => HERE_MS)).toEqual([]);
    expect(look(new Clocks('a'), 60, (nowMs) => nowMs - (nowMs % 4_000 === 0 ? 400 : 9_000))).toEqual([]);
    expect(look(new Clocks('a'), 60, (nowMs) => nowMs + 1_500)).toEqual([]);
  });
});
