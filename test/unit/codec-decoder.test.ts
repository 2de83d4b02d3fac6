import { randomBytes } from 'node:crypto';
import { afterEach, describe, expect, test } from '@jest/globals';
import type { PayloadFacts } from '../../src/codec/decode.ts';
import { type Decoder, openDecoder } from '../../src/codec/decoder.ts';
import { encodePayload } from '../../src/codec/encode.ts';

let decoder: Decoder;
afterEach(() => decoder.close());

function encoded(plain: Uint8Array): { payload: Uint8Array<ArrayBuffer>; facts: PayloadFacts } {
  const { bytes, sha256, witness } = encodePayload(plain, 1);
  return {
    payload: new Uint8Array(bytes),
    facts: { length: plain.length, witness, stored: { bytes: bytes.length, sha256 } },
  };
}

describe.each([
  ['small', 1000],
  ['large', 3 << 20],
])('a %s payload', (_, length) => {
  test('comes back as it was, several at once', async () => {
    decoder = openDecoder();
    const plains = Array.from({ length: 5 }, () => Buffer.concat([randomBytes(length / 2), Buffer.alloc(length / 2)]));
    const all = await Promise.all(
      plains.map((plain, index) => {
        const { payload, facts } = encoded(plain);
        return decoder.decode(payload, facts, String(index));
      }),
    );
    all.forEach(({ bytes, release }, index) => {
      expect(plains[index]!.equals(bytes)).toBe(true);
      release();
    });
  });

  test('that is damaged is named, with what to do', async () => {
    decoder = openDecoder();
    const { payload, facts } = encoded(randomBytes(length));
    payload[payload.length >> 1]! ^= 1;
    await expect(decoder.decode(payload, facts, 'orders/terms/1/2')).rejects.toMatchObject({
      name: 'ShipmateError',
      code: 'CHUNK_CORRUPT',
      message: expect.stringMatching(/^object orders\/terms\/1\/2 is damaged: the SHA-256/),
      hint: expect.stringContaining('verify --deep'),
    });
    const whole = encoded(randomBytes(length));
    await expect(decoder.decode(whole.payload, whole.facts, 'next')).resolves.toBeDefined();
  });
});

test('what is not decoded when it is closed fails, and may be tried again', async () => {
  decoder = openDecoder();
  const { payload, facts } = encoded(randomBytes(1 << 20));
  const decoding = decoder.decode(new Uint8Array(payload), facts, 'key');
  const failure = expect(decoding).rejects.toMatchObject({ code: 'DECODER_FAILED', verdict: 'retry' });
  await decoder.close();
  await failure;
  expect(Buffer.from((await decoder.decode(payload, facts, 'key')).bytes)).toHaveLength(1 << 20);
});
