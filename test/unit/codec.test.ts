import { spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { constants, zstdCompressSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { readHeader, readPayload, readPlain } from '../../src/archive/objects.ts';
import { decodePayload, type PayloadFacts } from '../../src/codec/decode.ts';
import { HEADER_ROOM_BYTES } from '../../src/codec/encode.ts';
import { type Encoder, openEncoder } from '../../src/codec/encoder.ts';
import { framesOf } from '../../src/codec/frames.ts';
import { objectBytes } from '../../src/codec/object.ts';
import { type Chunk, encodeHeader, FORMAT_VERSION, type Opening } from '../../src/core/header.ts';
import { witnessDigest } from '../../src/core/witness.ts';
import { MemoryStore } from '../fakes/memory-store.ts';

const never = new AbortController().signal;
const MIB = 1024 * 1024;
const damaged = { name: 'ShipmateError', code: 'CHUNK_CORRUPT' };

const encoders: Encoder[] = [];
const encoder = () => {
  const opened = openEncoder();
  encoders.push(opened);
  return opened;
};
let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'shipmate-codec-'));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
  for (const opened of encoders.splice(0)) await opened.close();
});

describe('encoding', () => {
  test.each([1, 1_000, 64 * 1024 - 1, 64 * 1024, 1_000_000, 8 * MIB])('%i bytes come back', async (lengthBytes) => {
    const plain = logLike(lengthBytes);
    const payload = await encode(encoder(), plain);
    expect(payload.sha256).toBe(sha256(payload.bytes));
    expect(payload.witness).toBe(witnessDigest(plain));
    expectBytes(await decodePayload(payload.bytes, factsOf(plain, payload.bytes), 'key'), plain);
  });

  test('takes what cannot be compressed', async () => {
    const noise = randomBytes(3 * MIB);
    const payload = await encode(encoder(), noise);
    expect(payload.bytes.length).toBeLessThan(noise.length + 1_000);
    expectBytes(await decodePayload(payload.bytes, factsOf(noise, payload.bytes), 'key'), noise);
  });

  test('gives the block its memory back, and takes only as much of it as is told', async () => {
    const block = blockOf(logLike(3 * MIB));
    for (const lengthBytes of [2 * MIB, 1_000]) {
      const { witness } = await encoder().encode(block, lengthBytes);
      expect(witness).toBe(witnessDigest(logLike(3 * MIB).subarray(0, lengthBytes)));
      expectBytes(block.bytes, logLike(3 * MIB));
    }
  });

  test('makes one frame that tells its plain size and needs no dictionary', async () => {
    for (const lengthBytes of [100, 2 * MIB]) {
      const { bytes } = await encode(encoder(), logLike(lengthBytes));
      expect([...framesOf(bytes)].map(({ kind }) => kind)).toEqual(['zstd']);
      const file = join(folder, `${lengthBytes}.zst`);
      await writeFile(file, bytes);
      const { stdout } = spawnSync('zstd', ['-lv', file], { encoding: 'utf8' });
      expect(stdout).toContain(`(${lengthBytes} B)`);
      expect(stdout).toContain('DictID: 0');
    }
  });

  test('leaves the event loop free while large chunks are encoded', async () => {
    const busy = encoder();
    const plain = logLike(8 * MIB);
    await encode(busy, plain); // threads are started
    const blocks = Array.from({ length: 12 }, () => blockOf(plain));
    let longestMs = 0;
    let beforeMs = performance.now();
    const ticking = setInterval(() => {
      const nowMs = performance.now();
      longestMs = Math.max(longestMs, nowMs - beforeMs);
      beforeMs = nowMs;
    }, 1);
    const startedMs = performance.now();
    await Promise.all(blocks.map((block) => busy.encode(block, plain.length)));
    clearInterval(ticking);
    // One such chunk takes some 30 ms of a core, all of them a multiple: nothing of that is seen here.
    expect(longestMs).toBeLessThan((performance.now() - startedMs) / 2);
  });

  test('answers each caller with its own payload, however many there are', async () => {
    const opened = encoder();
    const plains = Array.from({ length: 40 }, (_, i) => logLike(60_000 + i * 1_000, i));
    const payloads = await Promise.all(plains.map((plain) => encode(opened, plain)));
    for (const [i, { witness }] of payloads.entries()) expect(witness).toBe(witnessDigest(plains[i]!));
  });

  test('fails what waits for a thread when it is closed, and all that comes later', async () => {
    const opened = encoder();
    const encodes = Array.from({ length: 5 }, () => encode(opened, logLike(4 * MIB)));
    const ends = Promise.allSettled(encodes);
    await opened.close();
    for (const end of (await ends).slice(2)) {
      expect(end).toMatchObject({ status: 'rejected', reason: { code: 'ENCODER_FAILED', verdict: 'retry' } });
    }
    await expect(encode(opened, Buffer.from('x'))).rejects.toMatchObject({ code: 'ENCODER_FAILED' });
  });

  test('says so when a thread dies, and goes on with another', async () => {
    const broken = openEncoder({ level: JSON.parse('"no number"') }); // zlib throws, in the thread
    encoders.push(broken);
    for (let i = 0; i < 4; i++) {
      await expect(encode(broken, logLike(MIB))).rejects.toMatchObject({
        code: 'ENCODER_FAILED',
        verdict: 'retry',
      });
    }
  });

  test('gives its memory back when it is told to', async () => {
    const payload = await encode(encoder(), logLike(MIB));
    payload.release();
    expect(payload.bytes.length).toBe(0);
  });
});

describe('decoding', () => {
  test('goes on behind the first frame, and steps over skippable ones', async () => {
    const parts = [logLike(100_000, 1), Buffer.alloc(0), logLike(50_000, 2), Buffer.alloc(300_000, 'x')];
    const skippable = Buffer.from('5a2a4d18040000006e6f7465', 'hex');
    const frames = parts.flatMap((part, i) => [
      skippable,
      zstdCompressSync(part, { params: { [constants.ZSTD_c_checksumFlag]: i % 2 } }),
    ]);
    const payload = Buffer.concat([...frames, skippable]);
    const plain = Buffer.concat(parts);
    expectBytes(await decodePayload(payload, factsOf(plain, payload), 'key'), plain);
  });

  test('names the object that is damaged, and where it can be had again', async () => {
    const plain = logLike(500_000);
    const payload = zstdCompressSync(plain);
    const facts = factsOf(plain, payload);
    const flipped = Buffer.from(payload);
    flipped[1_000]! ^= 1;
    const cases: [string, Uint8Array, PayloadFacts][] = [
      ['a bit flipped in the store', flipped, facts],
      ['cut short', payload.subarray(0, -1), facts],
      ['longer than it was', Buffer.concat([payload, Buffer.from('x')]), facts],
      ['not zstd', plain, factsOf(plain, plain)],
      ['torn before it was hashed', payload.subarray(0, 9_000), factsOf(plain, payload.subarray(0, 9_000))],
      ['no frame at all', Buffer.alloc(0), factsOf(plain, Buffer.alloc(0))],
      ['another length', payload, { ...facts, length: facts.length + 1 }],
      ['a bomb', payload, { ...facts, length: 1_000 }],
      ['other plain bytes', payload, { ...facts, witness: witnessDigest(Buffer.from('other')) }],
    ];
    for (const [what, bytes, told] of cases) {
      const error = await decodePayload(bytes, told, 'orders/terms/00000001/0000000007').then(
        () => `${what} was taken for whole`,
        (caught: unknown) => caught,
      );
      expect(error).toMatchObject({
        ...damaged,
        message: expect.stringContaining('orders/terms/00000001/0000000007'),
        hint: expect.stringContaining('copy of the archive'),
      });
    }
  });

  test('finds torn data wherever it is torn', () => {
    const payload = Buffer.concat([zstdCompressSync(logLike(1_000)), zstdCompressSync(Buffer.alloc(500_000))]);
    const ends = new Set([0]);
    let end = 0;
    for (const { bytes } of framesOf(payload)) {
      end += bytes.length;
      ends.add(end);
    }
    expect(end).toBe(payload.length);
    for (let length = 0; length < payload.length; length++) {
      if (ends.has(length)) continue;
      expect(() => [...framesOf(payload.subarray(0, length))]).toThrow();
    }
  });
});

describe('an object', () => {
  test('gives the log back by `zstd -dc` alone, and so do many in a row', async () => {
    const opened = encoder();
    const plains = [logLike(3 * MIB, 1), logLike(900, 2), logLike(200_000, 3)];
    const objects: Uint8Array[] = [objectBytes(encodeHeader(opening).frame)];
    for (const plain of plains) {
      const payload = await encode(opened, plain);
      objects.push(objectBytes(encodeHeader(chunkOf(plain, payload)).frame, payload));
    }
    for (const [i, plain] of plains.entries()) expectBytes(unzstd(objects[i + 1]!), plain);
    expectBytes(unzstd(Buffer.concat(objects)), Buffer.concat(plains));
  });

  test('is the same wherever its header was put', async () => {
    const plain = logLike(200_000);
    const payload = await encode(encoder(), plain);
    const copy = Buffer.from(payload.bytes);
    for (const frameBytes of [100, HEADER_ROOM_BYTES, HEADER_ROOM_BYTES + 1]) {
      const frame = randomBytes(frameBytes);
      expectBytes(objectBytes(frame, payload), Buffer.concat([frame, copy]));
      expectBytes(objectBytes(frame, payload.bytes), Buffer.concat([frame, copy]));
    }
  });

  test('is read by its header first, whatever its length, then by its payload', async () => {
    const store = new MemoryStore();
    const plain = logLike(200_000);
    const payload = await encode(encoder(), plain);
    for (const node of ['db-1', 'n'.repeat(5_000)]) {
      const header = { ...chunkOf(plain, payload), node };
      const key = `header of ${node.length}`;
      const { frame, digest } = encodeHeader(header);
      await store.create(key, objectBytes(frame, payload), never);
      const read = await readHeader(store, key);
      expect(read).toEqual({ header, digest, payloadOffset: frame.length });
      expectBytes(await readPayload(store, key, { ...read, header }), payload.bytes);
      expectBytes(await readPlain(store, key, { ...read, header }), plain);
    }
  });

  test('that goes on behind its payload is damaged', async () => {
    const store = new MemoryStore();
    const plain = logLike(70_000);
    const payload = await encode(encoder(), plain);
    const header = chunkOf(plain, payload);
    await store.create(
      'key',
      Buffer.concat([objectBytes(encodeHeader(header).frame, payload), Buffer.from('more')]),
      never,
    );
    const read = await readHeader(store, 'key');
    await expect(readPlain(store, 'key', { ...read, header })).rejects.toMatchObject(damaged);
  });

  test('that is something else is told from one that is absent', async () => {
    const store = new MemoryStore();
    await expect(readHeader(store, 'absent')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    const { frame } = encodeHeader(opening);
    const others = [Buffer.alloc(0), Buffer.from('ELF'), frame.subarray(0, 50), Buffer.from('502a4d18ffffffff', 'hex')];
    for (const [i, bytes] of others.entries()) {
      await store.create(`${i}`, bytes, never);
      await expect(readHeader(store, `${i}`)).rejects.toMatchObject({ code: 'BAD_OBJECT' });
    }
  });
});

const base = {
  v: FORMAT_VERSION,
  archive: 'archive',
  stream: 'orders',
  term: 1,
  slot: 0,
  claim: 'claim',
  prev: '0'.repeat(64),
  node: 'db-1',
  time: '2026-11-20T10:00:00Z',
} as const;
const at = { origin: 'mariadb-1', incarnation: 'f', segment: 'binlog.000001', offset: 4, id: '0-1-1' };
const opening: Opening = { ...base, kind: 'opening', at, result: 'start', evidence: {}, previous: null };

function chunkOf(plain: Uint8Array, payload: { bytes: Uint8Array; sha256: string; witness: string }): Chunk {
  return {
    ...base,
    kind: 'chunk',
    slot: 1,
    from: at,
    to: { ...at, offset: at.offset + plain.length, id: '0-1-2' },
    length: plain.length,
    endsSegment: false,
    openTransaction: false,
    firstEventMs: null,
    lastEventMs: null,
    witness: payload.witness,
    codec: 'zstd',
    stored: { bytes: payload.bytes.length, sha256: payload.sha256 },
  };
}

function factsOf(plain: Uint8Array, payload: Uint8Array): PayloadFacts {
  return {
    length: plain.length,
    witness: witnessDigest(plain),
    stored: { bytes: payload.length, sha256: sha256(payload) },
  };
}

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/** Text that compresses about as well as a log of row changes. */
function logLike(lengthBytes: number, seed = 0): Buffer {
  const rows: string[] = [];
  for (let i = seed, length = 0; length < lengthBytes; i++) {
    const row = `update orders set amount=${(i * 7919) % 99_991}, note='${((i * 104_729) % 999_983).toString(36)}' where id=${i};`;
    rows.push(row);
    length += row.length;
  }
  return Buffer.from(rows.join('').slice(0, lengthBytes));
}

const blockOf = (bytes: Uint8Array) => ({ bytes: new Uint8Array(bytes) });
const encode = (opened: Encoder, plain: Uint8Array) => opened.encode(blockOf(plain), plain.length);

function expectBytes(actual: Uint8Array, expected: Uint8Array): void {
  expect(actual.length).toBe(expected.length);
  expect(Buffer.compare(actual, expected)).toBe(0);
}

const unzstd = (bytes: Uint8Array) => spawnSync('zstd', ['-dc'], { input: bytes, maxBuffer: 64 * MIB }).stdout;
