import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Decrypter, Encrypter, generateX25519Identity, identityToRecipient } from 'age-encryption';
import fc from 'fast-check';
import { decryptAge, encryptAge } from '../../src/codec/age.ts';
import { fingerprintOf, type Identity, parseIdentities, parseRecipient } from '../../src/codec/age-keys.ts';

/** Sizes at which a piece ends, begins or is alone; age's pieces have 64 KiB. */
const EDGES = [0, 1, 65_535, 65_536, 65_537, 131_072, 200_000];
const ROOM_BYTES = 100;
const KEYS = 4;

let folder: string;
let texts: string[];
let names: string[];
let identities: Identity[];
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'shipmate-age-'));
  texts = await Promise.all(Array.from({ length: KEYS }, generateX25519Identity));
  names = await Promise.all(texts.map(identityToRecipient));
  identities = texts.flatMap((text) => parseIdentities(text, 'test'));
  for (const [i, text] of texts.entries()) await writeFile(join(folder, `${i}.key`), `${text}\n`, { mode: 0o600 });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const encrypt = (plain: Uint8Array, recipients: readonly string[]) =>
  encryptAge(plain, recipients.map(parseRecipient), ROOM_BYTES);

describe('an age file', () => {
  test.each(EDGES)(
    'of %i bytes is read by the age program and by the library, with any of its identities',
    async (sizeBytes) => {
      const plain = randomBytes(sizeBytes);
      const file = encrypt(plain, names.slice(0, 2));
      for (const key of [0, 1]) {
        expectBytes(decryptAge(file, [identities[key]!])!, plain);
        const library = new Decrypter();
        library.addIdentity(texts[key]!);
        expectBytes(await library.decrypt(file), plain);
        const program = spawnSync('age', ['-d', '-i', join(folder, `${key}.key`)], { input: file, maxBuffer: 1 << 24 });
        expect(program.stderr.toString()).toBe('');
        expectBytes(program.stdout, plain);
      }
      expect(decryptAge(file, [identities[2]!])).toBeNull();
    },
  );

  test.each(EDGES)('of %i bytes, written by the age program or the library, is read', async (sizeBytes) => {
    const plain = randomBytes(sizeBytes);
    const library = new Encrypter();
    for (const name of names.slice(1, 3)) library.addRecipient(name);
    const recipients = names.slice(1, 3).flatMap((name) => ['-r', name]);
    const program = spawnSync('age', recipients, { input: plain, maxBuffer: 1 << 24 });
    for (const file of [await library.encrypt(plain), program.stdout]) {
      for (const key of [1, 2]) expectBytes(decryptAge(file, [identities[3]!, identities[key]!])!, plain);
      expect(decryptAge(file, [identities[0]!])).toBeNull();
    }
  });

  test('is of other bytes each time, and leaves the room before it free', () => {
    const plain = Buffer.from('the same');
    const [one, other] = [encrypt(plain, names), encrypt(plain, names)];
    expect(Buffer.compare(one, other)).not.toBe(0);
    expect(one.byteOffset).toBe(ROOM_BYTES);
    expect(one.buffer.byteLength).toBe(ROOM_BYTES + one.length);
  });

  test('gives its bytes to those it was made for and to nobody else, and is never half read where it was changed', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 200 }),
        fc.integer({ min: 0, max: 2 }),
        fc.subarray([...Array(KEYS).keys()], { minLength: 1 }),
        fc.subarray([...Array(KEYS).keys()]),
        fc.nat(),
        (end, pieces, made, held, where) => {
          const plain = Buffer.concat([Buffer.alloc(pieces * 65_536, 'x'), end]);
          const file = encrypt(
            plain,
            made.map((key) => names[key]!),
          );
          const opened = decryptAge(
            file,
            held.map((key) => identities[key]!),
          );
          if (held.some((key) => made.includes(key))) expectBytes(opened!, plain);
          else expect(opened).toBeNull();
          const all = identities;
          const changed = Uint8Array.from(file);
          changed[where % file.length]! ^= 1 << (where % 8);
          expect(outcome(() => decryptAge(changed, all))).not.toBe('read');
          expect(outcome(() => decryptAge(file.subarray(0, where % file.length), all))).not.toBe('read');
        },
      ),
      { numRuns: 60 },
    );
  });

  test('whose pieces were put in another order, or left out at its end, is refused', () => {
    const file = encrypt(randomBytes(3 * 65_536), names.slice(0, 1));
    const sealed = 65_536 + 16;
    const start = file.length - 3 * sealed;
    const piece = (n: number) => file.subarray(start + n * sealed, start + (n + 1) * sealed);
    const head = file.subarray(0, start);
    for (const order of [
      [1, 0, 2],
      [0, 1],
      [0, 1, 1],
      [0, 1, 2, 2],
      [0, 2],
    ]) {
      const other = Buffer.concat([head, ...order.map(piece)]);
      expect(() => decryptAge(other, identities)).toThrow(RangeError);
    }
  });
});

describe('keys', () => {
  test('of an identity file are all of its lines but comments and empty ones', () => {
    const text = `# created: 2026-11-22\n# public key: ${names[0]}\n${texts[0]}\r\n\n  ${texts[1]}  \n# the end`;
    expect(parseIdentities(text, 'keys').map(({ fingerprint }) => fingerprint)).toEqual(
      names.slice(0, 2).map(fingerprintOf),
    );
  });

  test('that are none are refused with the place, and never with the text', () => {
    const wrong = `${texts[0]!.slice(0, -1)}${texts[0]!.endsWith('Q') ? 'P' : 'Q'}`;
    const cases: [string, RegExp][] = [
      [wrong, /line 1 of identity file keys is no age identity/],
      [`# one\n${texts[0]!.toLowerCase()}`, /line 2/],
      [names[0]!, /line 1/],
      ['AGE-PLUGIN-YUBIKEY-1QQPQQ', /line 1/],
      ['', /holds no key/],
      ['age-encryption.org/v1\n-> scrypt', /itself encrypted/],
    ];
    for (const [text, why] of cases) {
      const error = thrown(() => parseIdentities(text, 'keys'));
      expect(error).toMatchObject({ code: 'USAGE', message: expect.stringMatching(why), hint: expect.any(String) });
      expect(JSON.stringify(error) + String(error)).not.toContain(texts[0]!.slice(20, 40));
    }
  });

  test('of a config are refused where a letter was mistyped', () => {
    const name = names[0]!;
    expect(parseRecipient(name).publicBytes).toHaveLength(32);
    const mistyped = name.slice(0, 30) + (name[30] === 'q' ? 'p' : 'q') + name.slice(31);
    for (const text of [mistyped, name.slice(0, -1), 'age1', texts[0]!]) {
      expect(thrown(() => parseRecipient(text))).toMatchObject({ code: 'USAGE' });
      expect(String(thrown(() => parseRecipient(text)))).not.toContain('SECRET');
    }
  });
});

function outcome(read: () => Uint8Array | null): 'read' | 'refused' | 'not for us' {
  try {
    return read() === null ? 'not for us' : 'read';
  } catch {
    return 'refused';
  }
}

function thrown(work: () => unknown): unknown {
  try {
    work();
  } catch (error) {
    return error;
  }
  return null;
}

function expectBytes(actual: Uint8Array, expected: Uint8Array): void {
  expect(actual.length).toBe(expected.length);
  expect(Buffer.compare(actual, expected)).toBe(0);
}
