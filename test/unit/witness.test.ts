import { describe, expect, test } from '@jest/globals';
import { xxh3 } from '@node-rs/xxhash';
import { WitnessDigest, witnessDigest } from '../../src/core/witness.ts';

const bytes = Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7) % 256));

describe('the witness of a range', () => {
  test('never changes: archives are full of it', () => {
    expect(witnessDigest(new Uint8Array(0))).toBe('2d06800538d394c24dc5b0cc826f6703');
    expect(witnessDigest(bytes)).toBe('6abe8be5abcb27604c98bd77d13d07b7');
  });

  test('is XXH3-64 with seeds 0 and 1, so that it can be checked without Shipmate', () => {
    for (const length of [0, 1, 16, 17, 128, 129, 240, 241, 1024, 4999]) {
      const part = bytes.subarray(0, length);
      const halves = [xxh3.xxh64(part, 0n), xxh3.xxh64(part, 1n)].map((half) => half.toString(16).padStart(16, '0'));
      expect(witnessDigest(part)).toBe(halves.join(''));
    }
  });

  test('keeps its leading zeros: always 32 digits', () => {
    const digests = Array.from({ length: 400 }, (_, i) => witnessDigest(Buffer.from(`${i}`)));
    expect(digests.some((digest) => digest.startsWith('0'))).toBe(true);
    expect(digests.every((digest) => /^[0-9a-f]{32}$/.test(digest))).toBe(true);
  });

  test('does not depend on how the bytes were cut', () => {
    const whole = witnessDigest(bytes);
    expect(witnessDigest([bytes])).toBe(whole);
    expect(witnessDigest([bytes.subarray(0, 1), bytes.subarray(1, 240), bytes.subarray(240)])).toBe(whole);

    const digest = new WitnessDigest();
    const reused = Buffer.alloc(33);
    for (let at = 0; at < bytes.length; at += reused.length) {
      digest.update(reused.subarray(0, bytes.copy(reused, 0, at)));
    }
    expect(digest.digest()).toBe(whole);
  });

  test('tells ranges apart that differ in one bit, or in nothing but their length', () => {
    const flipped = Buffer.from(bytes);
    flipped[2500]! ^= 1;
    const digests = [bytes, flipped, bytes.subarray(1), bytes.subarray(0, -1), Buffer.alloc(64), Buffer.alloc(65)];
    expect(new Set(digests.map((range) => witnessDigest(range))).size).toBe(digests.length);
  });

  test('is the same for shared memory', () => {
    const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
    shared.set(bytes);
    expect(witnessDigest(shared)).toBe(witnessDigest(bytes));
  });
});
