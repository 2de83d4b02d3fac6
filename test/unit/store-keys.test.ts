import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { checkKey, clip, compareKeys, listedAs } from '../../src/store/keys.ts';

describe('keys', () => {
  test('are compared by their UTF-8 bytes, as object stores list them', () => {
    const text = fc.string({
      unit: fc.constantFrom('a', 'b', '-', '.', '/', '0', 'é', '\ud7ff', '\ue000', '\uffee', '🚢', '𝄞'),
    });
    fc.assert(
      fc.property(text, text, (a, b) => {
        expect(Math.sign(compareKeys(a, b))).toBe(Math.sign(Buffer.compare(Buffer.from(a), Buffer.from(b))));
      }),
    );
  });

  test('may have any plain part that a stream or a segment is named', () => {
    for (const key of [
      'orders/stream.json',
      'größe/terms/00000001/0000000000',
      'a b/c',
      '.hidden/..x',
      'x'.repeat(255),
    ]) {
      expect(() => checkKey(key)).not.toThrow();
    }
  });

  test("may not be split in half characters, too long, or in the way of a store's own files", () => {
    for (const key of [
      '\ud83d',
      'é'.repeat(128),
      `${'x'.repeat(200)}/`.repeat(6),
      '.shipmate-tmp/x',
      's/.shipmate-x',
    ]) {
      expect(() => checkKey(key)).toThrow("can't be an object's name");
    }
  });

  test('fold at the first delimiter behind the prefix', () => {
    expect(listedAs('s/terms/1/0', 's/', '/')).toBe('s/terms/');
    expect(listedAs('s/terms/1/0', 's/te', '/')).toBe('s/terms/');
    expect(listedAs('s/terms/1/0', 's/terms/1/', '/')).toBe('s/terms/1/0');
    expect(listedAs('s/terms/1/0', 's/', undefined)).toBe('s/terms/1/0');
  });
});

test('a range that is none is refused, whatever the object', () => {
  for (const range of [{ start: -1 }, { start: 0.5 }, { start: 2, end: 1 }, { start: Number.NaN }]) {
    expect(() => clip(range, 10)).toThrow('not a byte range');
  }
});
