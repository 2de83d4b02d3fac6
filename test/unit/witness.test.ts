import { describe, expect, test } from '@jest/globals';
import { WitnessDigest, witnessDigest } from '../../src/core/witness.ts';

const bytes = Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7) % 256));

describe('the witness of a range', () => {
  test('is XXH3-128 as published, so that it can be checked without Shipmate', () => {
    expect(witnessDigest(new Uint8Array(0))).toBe('99aa06d3014798d86001c324468d497f');
    expect(witnessDigest(bytes)).toBe('a4ba2a60fb07e0166abe8be5abcb2760');
  });

  test('keeps its leading zeros: always 32 digits', () => {
    const lengths = Array.from({ length: 400 }, (_, i) => witnessDigest(Buffer.from(`${i}`)));
    expect(lengths.some((digest) => digest.startsWith('0'))).toBe(true);
    expect(lengths.every((digest) => /^[0-9a-f]{32}$/.test(digest))).toBe(true);
  });

  test('does not depend on how the bytes were cut', () => {
    const whole = witnessDigest(bytes);
    expect(witnessDigest([bytes])).toBe(whole);
    expect(witnessDigest([bytes.subarray(0, 1), bytes.subarray(1, 240), bytes.subarray(240)])).toBe(whole);

    const digest = new WitnessDigest(bytes.length);
    const reused = Buffer.alloc(33);
    for (let at = 0; at < bytes.length; at += reused.length) {
      digest.update(reused.subarray(0, bytes.copy(reused, 0, at)));
    }
    expect(digest.digest()).toBe(whole);
    expect(digest.lengthBytes).toBe(bytes.length);
  });

  test('is the same for shared memory', () => {
    const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
    shared.set(bytes);
    expect(witnessDigest(shared)).toBe(witnessDigest(bytes));
  });

  test('refuses bytes beyond the announced length instead of leaving them out', () => {
    expect(() => new WitnessDigest(4).update(bytes)).toThrow('out of bounds');
  });
});
