import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { UsageError } from '../../src/errors.ts';
import { incarnationOf, parseHistory } from '../../src/source/postgres/history.ts';
import { compareIds, idText, lsnText, parseId, parseLsn } from '../../src/source/postgres/lsn.ts';
import {
  historyName,
  isSegmentSize,
  parseWalName,
  type SegmentName,
  segmentName,
  segmentNameAt,
  segmentNumberAt,
  segmentStart,
} from '../../src/source/postgres/wal-name.ts';
import { judgePage, readPageHeader } from '../../src/source/postgres/wal-page.ts';
import { type WalEvent, WalScanner } from '../../src/source/postgres/wal-records.ts';
import { historyText, type Placed, Wal } from '../helpers/wal.ts';

const MIB = 1 << 20;
const lsns = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const segmentSizes = fc.integer({ min: 0, max: 10 }).map((power) => MIB << power);
const timelines = fc.integer({ min: 1, max: 0xffff_ffff });

describe('LSNs and IDs', () => {
  test('are read as the server prints them', () => {
    expect(parseLsn('0/16B3748')).toBe(0x16b3748n);
    expect(parseLsn('ffffffff/00000000')).toBe(0xffff_ffff_0000_0000n);
    expect(lsnText(0x1_0000_0000n)).toBe('1/0');
    expect(parseId('2/0/16B3748')).toEqual({ timeline: 2, lsn: 0x16b3748n });
    fc.assert(
      fc.property(timelines, lsns, (timeline, lsn) => {
        expect(parseId(idText({ timeline, lsn }))).toEqual({ timeline, lsn });
      }),
    );
  });

  test.each(['', '0', '0/', '/1', '0/123456789', '0/G', '1/2/3/4', ' 0/1'])('%j is no LSN', (text) => {
    expect(() => parseLsn(text)).toThrow(UsageError);
  });

  test.each(['0/16B3748', '0/0/1', '4294967296/0/1', '02/0/1', 'x/0/1', '1/0/1 '])('%j is no ID', (text) => {
    expect(() => parseId(text)).toThrow(UsageError);
  });

  test('what a child timeline has comes after all of its parent', () => {
    const ids = ['1/0/5', '1/1/0', '2/0/4', '10/0/1'].map(parseId);
    expect(ids.toReversed().toSorted(compareIds)).toEqual(ids);
  });
});

describe('names of WAL files', () => {
  test('count segments of 16 MiB and others over 4 GiB', () => {
    expect(segmentNameAt(1, parseLsn('0/16B3748'), 16 * MIB)).toBe('000000010000000000000001');
    expect(segmentNameAt(1, parseLsn('0/FFFFFFFF'), 16 * MIB)).toBe('0000000100000000000000FF');
    expect(segmentNameAt(1, parseLsn('1/0'), 16 * MIB)).toBe('000000010000000100000000');
    expect(segmentNameAt(10, parseLsn('0/FFFFFFFF'), MIB)).toBe('0000000A0000000000000FFF');
    expect(segmentNameAt(1, parseLsn('1/0'), 1024 * MIB)).toBe('000000010000000100000000');
    expect(segmentName(1, 4n, 1024 * MIB)).toBe('000000010000000100000000');
    expect(historyName(0x1a)).toBe('0000001A.history');
  });

  test('give back the segment that they were made for, in the order of LSNs', () => {
    fc.assert(
      fc.property(timelines, lsns, lsns, segmentSizes, (timeline, a, b, size) => {
        const name = segmentNameAt(timeline, a, size);
        const parsed = parseWalName(name) as SegmentName;
        expect(parsed).toMatchObject({ kind: 'segment', timeline });
        expect(segmentStart(parsed, size)).toBe(segmentNumberAt(a, size) * BigInt(size));
        if (a / BigInt(size) < b / BigInt(size)) expect(name < segmentNameAt(timeline, b, size)).toBe(true);
      }),
    );
  });

  test.each([
    'archive_status',
    '000000010000000000000001.partial',
    '000000010000000000000001.00000028.backup',
    '00000001000000000000000g',
    '00000001000000000000000a',
    '000000000000000000000001',
    '000000010000000000001000',
    '00000000.history',
    '0000002.history',
    'xlogtemp.123',
  ])('%s is none', (name) => expect(parseWalName(name)).toBeNull());

  test('history files have a timeline', () => {
    expect(parseWalName('0000000A.history')).toEqual({ kind: 'history', timeline: 10 });
  });

  test('sizes are powers of two', () => {
    expect([MIB, 16 * MIB, 1024 * MIB].map(isSegmentSize)).toEqual([true, true, true]);
    expect([MIB / 2, 3 * MIB, 2048 * MIB, 0].map(isSegmentSize)).toEqual([false, false, false, false]);
  });
});

describe('history files', () => {
  const text = historyText([
    [1, '0/3000158'],
    [2, '1/A0'],
  ]);

  test('name the ancestors and where each was left', () => {
    expect(parseHistory(Buffer.from(`# a comment\n${text}`))).toEqual([
      { timeline: 1, switchLsn: 0x3000158n, reason: 'no recovery target specified' },
      { timeline: 2, switchLsn: 0x1_0000_00a0n, reason: 'no recovery target specified' },
    ]);
  });

  test.each(['1 x', '1\t0/1\n1\t0/2\n', '2\t0/1\n1\t0/2', 'garbage'])('%j is none', (bad) => {
    expect(() => parseHistory(Buffer.from(bad))).toThrow(/no line of a timeline history/);
  });

  test('two isolated promotions to the same number are two lives of it', () => {
    const other = historyText([[1, '0/3000200']]);
    const lives = [incarnationOf(2, Buffer.from(text)), incarnationOf(2, Buffer.from(other))];
    expect(lives[0]).toMatch(/^[0-9a-f]{16}$/);
    expect(lives[0]).not.toBe(lives[1]);
    expect(incarnationOf(1, null)).toBe('1');
    expect(() => incarnationOf(2, null)).toThrow(/no history file/);
  });
});

describe('page headers', () => {
  const wal = new Wal({ timeline: 3, start: 0x5_0000_0000n, segmentBytes: 2 * MIB, systemId: 2n ** 63n + 5n });
  wal.change(20_000);
  const bytes = wal.bytes();

  test('tell the cluster and the sizes at a segment’s start, and how much of a record is to come', () => {
    expect(readPageHeader(bytes)).toEqual({
      version: 15,
      timeline: 3,
      lsn: 0x5_0000_0000n,
      remainingBytes: 0,
      headerBytes: 40,
      long: { systemId: '9223372036854775813', segmentBytes: 2 * MIB, pageBytes: 8192 },
    });
    const second = readPageHeader(bytes, 8192);
    expect(second).toMatchObject({ lsn: 0x5_0000_2000n, headerBytes: 24, long: null });
    expect(second?.remainingBytes).toBe(24 + 5 + 20_000 - (8192 - 40));
    expect(readPageHeader(bytes.subarray(0, 39))).toBeNull();
  });

  test('tell a recycled page from the right one', () => {
    const expected = { timeline: 3, lsn: 0x5_0000_2000n };
    expect(judgePage(bytes, 8192, expected)).toBe('right');
    expect(judgePage(bytes, 8192, { ...expected, timeline: 2 })).toBe('other');
    expect(judgePage(bytes, 8192, { ...expected, lsn: 0x4_0000_2000n })).toBe('other');
    expect(judgePage(Buffer.alloc(8192), 0, expected)).toBe('blank');
    expect(judgePage(Buffer.alloc(8192, 7), 0, expected)).toBe('other');
    expect(judgePage(Buffer.alloc(10), 0, expected)).toBe('other');
  });
});

/** Feeds bytes that begin at the LSN in slices of the given lengths, again and again. */
function scan(bytes: Uint8Array, lsn: bigint, lengths: readonly number[] = [MIB]) {
  const events: WalEvent[] = [];
  const scanner = new WalScanner((event) => events.push(event));
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const slice = bytes.subarray(at, at + lengths[turn % lengths.length]!);
    scanner.feed(lsn + BigInt(at), slice);
    at += slice.length;
  }
  return { events, scanner };
}

const NOW = Date.UTC(2026, 10, 22, 13, 5) + 0.25;

type Write = (wal: Wal, ms: number) => { kind: WalEvent['kind']; placed: Placed } | null;
const write: Record<string, (bytes: number) => Write> = {
  commit: (moreBytes) => (wal, ms) => ({ kind: 'commit', placed: wal.commit(ms, { moreBytes }) }),
  marked: () => (wal, ms) => ({
    kind: 'commit',
    placed: wal.commit(ms, { prepared: true, origin: true, topXid: true }),
  }),
  abort: () => (wal, ms) => ({ kind: 'abort', placed: wal.abort(ms) }),
  prepare: () => (wal, ms) => ({ kind: 'prepare', placed: wal.prepare(ms) }),
  restorePoint: () => (wal, ms) => ({ kind: 'restorePoint', placed: wal.restorePoint('vor dem Löschen', ms) }),
  change: (bytes) => (wal) => {
    wal.change(bytes);
    return null;
  },
  switch: () => (wal) => {
    wal.switch();
    return null;
  },
  torn: (bytes) => (wal) => {
    wal.torn(bytes);
    return null;
  },
};
const writes = fc.array(
  fc
    .tuple(
      fc.constantFrom(...Object.keys(write)),
      fc.oneof(fc.integer({ min: 0, max: 300 }), fc.integer({ max: 30_000, min: 0 })),
    )
    .map(([kind, bytes]) => write[kind]!(bytes)),
  { maxLength: 60 },
);
const slices = fc.array(fc.integer({ min: 1, max: 20_000 }), { minLength: 1, maxLength: 5 });

describe('the scanner of WAL', () => {
  test('finds each time with its record, however the bytes are sliced, in pages of any size', () => {
    const options = fc.record({
      pageBytes: fc.constantFrom(1024, 8192, 32_768),
      start: fc.constantFrom(BigInt(MIB), 0xffff_ffff_0000_0000n, 0x1_0000_0000n - BigInt(MIB)),
      version: fc.constantFrom(13, 14, 15, 16, 17, 18),
    });
    fc.assert(
      fc.property(options, writes, slices, (walOptions, steps, lengths) => {
        const wal = new Wal(walOptions);
        const written = steps.flatMap((step, index) => step(wal, NOW + index) ?? []);
        const last = wal.change();
        const { events, scanner } = scan(wal.bytes({ whole: true }), wal.start, lengths);
        expect(events.map(({ kind, start, end }) => ({ kind, placed: { start, end } }))).toEqual(written);
        expect(scanner.lastStart ?? last.start).toBe(last.start);
      }),
      { numRuns: 60 },
    );
  });

  test('reads times to the microsecond, and the names of restore points', () => {
    const wal = new Wal();
    wal.commit(NOW);
    wal.restorePoint('vor dem Löschen', NOW + 1);
    const [commit, point] = scan(wal.bytes(), wal.start).events;
    expect(commit).toEqual({ kind: 'commit', micros: NOW * 1000, start: wal.start + 40n, end: wal.start + 74n });
    expect(point).toMatchObject({ kind: 'restorePoint', micros: NOW * 1000 + 1000, name: 'vor dem Löschen' });
  });

  test('begins with any page, in the middle of a record too', () => {
    const wal = new Wal();
    wal.change(20_000);
    const { start } = wal.commit(NOW);
    const bytes = wal.bytes();
    for (const from of [8192, 8193, 16_384]) {
      const { events } = scan(bytes.subarray(from), wal.start + BigInt(from), [777]);
      expect(events.map((event) => event.start)).toEqual([start]);
    }
  });

  test('counts no record that is not whole', () => {
    const wal = new Wal();
    wal.change(8_000);
    const { start, end } = wal.commit(NOW, { moreBytes: 500 });
    const bytes = wal.bytes();
    expect(scan(bytes.subarray(0, Number(end - wal.start) - 1), wal.start).events).toEqual([]);
    expect(scan(bytes, wal.start).events).toMatchObject([{ start }]);
  });

  test('goes on behind damage, and throws at nothing', () => {
    const wal = new Wal();
    for (let index = 0; index < 600; index++) wal.commit(NOW + index, { moreBytes: (index * 7) % 1000 });
    const damaged = fc.tuple(fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 40_000 }), slices);
    const whole = wal.bytes({ whole: true });
    const all = scan(whole, wal.start).events;
    expect(all).toHaveLength(600);
    fc.assert(
      fc.property(damaged, ([at, garbage, lengths]) => {
        const bytes = Buffer.from(whole);
        const from = at % bytes.length;
        bytes.set(garbage.subarray(0, bytes.length - from), from);
        const found = new Set(scan(bytes, wal.start, lengths).events.map(({ start }) => start));
        // From the page on that follows the damage and a record over its edge.
        const sound = wal.start + BigInt(from + garbage.length + 2 * 8192);
        const sane = all.filter(({ start, end }) => end <= wal.start + BigInt(from) || start >= sound);
        expect(sane.filter(({ start }) => !found.has(start))).toEqual([]);
      }),
      { numRuns: 50 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40_000 }), lsns, slices, (bytes, lsn, lengths) => {
        expect(scan(bytes, lsn, lengths).events).toEqual([]);
      }),
    );
  });

  test('takes WAL of another time in a recycled file for none', () => {
    const old = new Wal();
    for (let index = 0; index < 1000; index++) old.commit(NOW);
    const wal = new Wal({ start: BigInt(16 * MIB) });
    wal.commit(NOW);
    const bytes = Buffer.concat([wal.bytes(), old.bytes().subarray(wal.bytes().length)]);
    expect(scan(bytes, wal.start).events).toHaveLength(1);
  });

  test('begins again where a child timeline’s first segment goes back', () => {
    const parent = new Wal();
    parent.commit(NOW);
    const at = parent.end;
    parent.commit(NOW + 1);
    const child = parent.branch(2, at);
    child.commit(NOW + 2);
    const events: number[] = [];
    const scanner = new WalScanner(({ micros }) => events.push(micros / 1000 - NOW));
    scanner.feed(parent.start, parent.bytes());
    scanner.feed(child.start, child.bytes());
    expect(events).toEqual([0, 1, 0, 2]);
  });
});
