import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { countValid } from '../../src/source/mariadb/checksums.ts';
import { mariadbFormat } from '../../src/source/mariadb/format.ts';
import { gtidStateAt } from '../../src/source/mariadb/gtid.ts';
import { Segment } from '../../src/source/mariadb/segment.ts';
import { SliceBuffer, Slices } from '../../src/source/mariadb/slices.ts';
import { Transactions } from '../../src/source/mariadb/transactions.ts';
import type { LogSlice } from '../../src/source/source.ts';
import * as binlog from '../helpers/binlog.ts';

const { GTID_FLAGS: flags } = binlog;

interface Group {
  readonly name: string;
  readonly events: readonly Buffer[];
  /** The transaction's number, counted up in domain 0; 0: events outside of transactions. */
  readonly sequence: number;
}

interface BinlogFile {
  readonly bytes: Buffer;
  /** Offsets at which a transaction ends (or an event outside of one), with the ID there. */
  readonly boundaries: ReadonlyMap<number, string>;
}

const FIRST_EVENTS = [binlog.formatDescription(), binlog.gtidList([])];
const HEADER_BYTES = binlog.MAGIC.length + FIRST_EVENTS.reduce((sum, { length }) => sum + length, 0);

/** A file of the groups, and where its boundaries must be found. */
function fileOf(groups: readonly Group[], firstEvents: readonly Buffer[] = FIRST_EVENTS): BinlogFile {
  const events: Buffer[] = [binlog.MAGIC];
  const boundaries = new Map<number, string>();
  let offset = binlog.MAGIC.length;
  let id = '';
  for (const event of firstEvents) {
    events.push(event);
    offset += event.length;
    boundaries.set(offset, id);
  }
  for (const { events: ofGroup, sequence } of groups) {
    events.push(...ofGroup);
    offset += ofGroup.reduce((sum, { length }) => sum + length, 0);
    if (sequence > 0) id = `0-1-${sequence}`;
    boundaries.set(offset, id);
  }
  return { bytes: Buffer.concat(events), boundaries };
}

/** Every shape of group that MariaDB writes. */
const shapes: readonly [name: string, (sequence: number, bytes: number) => Buffer[]][] = [
  [
    'row transaction',
    (sequence, bytes) => [
      binlog.gtid({ sequence }, flags.transactional),
      binlog.tableMap(),
      binlog.rows(bytes),
      binlog.rows(bytes),
      binlog.xid(),
    ],
  ],
  [
    'statement transaction',
    (sequence, bytes) => [
      binlog.gtid({ sequence }),
      binlog.query(`INSERT ${'x'.repeat(bytes)}`),
      binlog.query('COMMIT'),
    ],
  ],
  [
    'rolled back',
    (sequence) => [binlog.gtid({ sequence }), binlog.query('ROLLBACK TO `a savepoint`'), binlog.query('ROLLBACK')],
  ],
  [
    'DDL',
    (sequence, bytes) => [
      binlog.gtid({ sequence }, flags.standalone),
      binlog.query(`CREATE TABLE ${'x'.repeat(bytes)}`),
    ],
  ],
  [
    'DDL after a variable',
    (sequence) => [
      binlog.gtid({ sequence }, flags.standalone),
      binlog.event(14, Buffer.from('@a')),
      binlog.query('DROP TABLE t'),
    ],
  ],
  [
    'compressed DDL',
    (sequence, bytes) => [binlog.gtid({ sequence }, flags.standalone), binlog.event(165, Buffer.alloc(bytes))],
  ],
  [
    'compressed rows',
    (sequence, bytes) => [
      binlog.gtid({ sequence }, flags.transactional),
      binlog.tableMap(),
      binlog.event(169, Buffer.alloc(bytes)),
      binlog.xid(),
    ],
  ],
  [
    'XA prepare',
    (sequence) => [
      binlog.gtid({ sequence }, flags.preparedXa),
      binlog.rows(20),
      binlog.query("XA END X'61'"),
      binlog.xaPrepare(),
    ],
  ],
  ['XA commit', (sequence) => [binlog.gtid({ sequence }, flags.completedXa), binlog.query("XA COMMIT X'61',X'',1")]],
];
const controls: readonly (() => Buffer)[] = [
  () => binlog.checkpoint('binlog.000001'),
  () => binlog.rotate('binlog.000002'),
];

const groups: fc.Arbitrary<Group[]> = fc
  .array(
    fc.record({
      shape: fc.integer({ min: 0, max: shapes.length - 1 }),
      bytes: fc.oneof(fc.integer({ min: 0, max: 60 }), fc.integer({ min: 0, max: 3000 })),
      control: fc.option(fc.integer({ min: 0, max: controls.length - 1 }), { freq: 6 }),
    }),
    { maxLength: 12 },
  )
  .map((choices) =>
    choices.map(({ shape, bytes, control }, i) => {
      if (control !== null) return { name: 'control', events: [controls[control]!()], sequence: 0 };
      const [name, events] = shapes[shape]!;
      return { name, events: events(i + 1, bytes), sequence: i + 1 };
    }),
  );

describe('cutting a binlog into slices', () => {
  let dir: string;
  let files = 0;
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'shipmate-slices-'));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  async function segmentOf(bytes: Buffer): Promise<Segment> {
    const path = join(dir, `binlog.${String(++files).padStart(6, '0')}`);
    writeFileSync(path, bytes);
    const { dev, ino, size } = statSync(path);
    return new Segment(path, { flavour: 'mariadb', identity: { dev, ino }, size });
  }

  async function slicesOf(segment: Segment, maxSliceBytes: number): Promise<Slices> {
    const header = (await segment.header({ ended: true }))!;
    const transactions = new Transactions('mariadb', gtidStateAt('mariadb', ''));
    const buffer = new SliceBuffer(maxSliceBytes);
    const place = { offset: 0, id: '', insideEventTo: null };
    const log = { debug() {}, info() {}, warn() {}, error() {} };
    return new Slices({ segment, header, flavour: 'mariadb', transactions, ...place, buffer, log });
  }

  /** All slices that the file has when it is read at each of the given sizes. */
  async function read(file: BinlogFile, maxSliceBytes: number, sizes: readonly number[]) {
    const segment = await segmentOf(file.bytes);
    const slices = await slicesOf(segment, maxSliceBytes);
    const found: (Omit<LogSlice, 'bytes'> & { bytes: Buffer })[] = [];
    for (const size of [...sizes, file.bytes.length]) {
      for (;;) {
        const slice = await slices.next({ size, ended: false });
        if (!slice) break;
        found.push({ ...slice, bytes: Buffer.from(slice.bytes) });
      }
    }
    return found;
  }

  test('any events survive being written and read in any pieces; boundaries are exact', async () => {
    const sizes = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 8 });
    const property = fc.asyncProperty(
      groups,
      fc.integer({ min: 64, max: 4096 }),
      sizes,
      async (written, max, parts) => {
        const file = fileOf(written);
        const growing = parts.map((part) => Math.max(HEADER_BYTES, Math.floor(part * file.bytes.length)));
        const slices = await read(
          file,
          max,
          growing.sort((a, b) => a - b),
        );
        expect(Buffer.concat(slices.map(({ bytes }) => bytes)).equals(file.bytes)).toBe(true);
        let start = 0;
        for (const { from, to, bytes, boundary } of slices) {
          expect(from.offset).toBe(start);
          expect(to.offset - from.offset).toBe(bytes.length);
          expect(bytes.length).toBeLessThanOrEqual(max);
          expect(boundary).toBe(file.boundaries.has(to.offset));
          if (boundary) expect(to.id).toBe(file.boundaries.get(to.offset));
          else expect(longestGap(file, to.offset)).toBeGreaterThan(max);
          start = to.offset;
        }
      },
    );
    await fc.assert(property, { numRuns: 150 });
  });

  /** How long the transaction is in which an offset lies. */
  function longestGap({ boundaries }: BinlogFile, offset: number): number {
    const ends = [0, ...boundaries.keys()];
    const after = ends.findIndex((end) => end > offset);
    return ends[after]! - ends[after - 1]!;
  }

  test.each(shapes)('a group ends where it ends: %s', async (name, events) => {
    const file = fileOf([{ name, events: events(1, 50), sequence: 1 }]);
    // It is seen as it grows, byte by byte: only the whole group may come out.
    const sizes = Array.from({ length: file.bytes.length - HEADER_BYTES }, (_, i) => HEADER_BYTES + i);
    const slices = await read(file, 4096, sizes);
    expect(slices.map(({ to }) => [to.offset, to.id])).toEqual([...file.boundaries].slice(-2));
  });

  test('tells the times of its first and last event', async () => {
    const transaction = (sequence: number, seconds: number) => ({
      name: '',
      sequence,
      events: [
        binlog.gtid({ sequence }, 0, { seconds }),
        binlog.rows(10, { seconds: seconds + 5 }),
        binlog.xid({ seconds: seconds + 9 }),
      ],
    });
    const slices = await read(fileOf([transaction(1, 1000), transaction(2, 2000)]), 4096, []);
    expect(slices).toMatchObject([{ firstEventMs: 1_700_000_000_000, lastEventMs: 2_009_000 }]);
  });
});

describe('checksums in runs', () => {
  const event = fc.integer({ min: 0, max: 400 }).map((bytes) => binlog.rows(bytes));

  test('the first wrong one is found, wherever it is', () => {
    const property = fc.property(
      fc.array(event, { minLength: 1, maxLength: 40 }),
      fc.integer({ min: 1, max: 400 }),
      fc.nat(),
      fc.nat(),
      (events, repeat, where, bit) => {
        const all = Array.from({ length: repeat }, () => events).flat();
        const bytes = Buffer.concat([Buffer.from('before'), ...all]);
        const ends = new Uint32Array(all.length);
        let end = 6;
        for (const [i, { length }] of all.entries()) ends[i] = end += length;
        expect(countValid(bytes, 6, ends, all.length)).toBe(all.length);
        const damaged = 6 + (where % (bytes.length - 6));
        bytes[damaged]! ^= 1 << (bit % 8);
        expect(countValid(bytes, 6, ends, all.length)).toBe(ends.findIndex((each) => each > damaged));
      },
    );
    fc.assert(property, { numRuns: 60 });
  });
});

describe('cutting what is restored', () => {
  const format = mariadbFormat();
  const seconds = (n: number) => 1_700_000_000 + n;
  const timed = (count: number): Group[] =>
    Array.from({ length: count }, (_, i) => ({
      name: 'timed',
      sequence: i + 1,
      events: [
        binlog.gtid({ sequence: i + 1 }, flags.transactional, { seconds: seconds(i) }),
        binlog.rows(20 + 37 * i, { seconds: seconds(i) }),
        binlog.xid({ seconds: seconds(i + 3) }),
      ],
    }));

  /** Feeds parts that end where events do, as chunks do. */
  function kept(file: BinlogFile, until: Parameters<typeof format.cutter>[0], partBytes: number) {
    const cutter = format.cutter(until);
    let total = 0;
    const ends = [...file.boundaries.keys()];
    for (let start = 0; start < file.bytes.length; ) {
      const end = ends.find((each) => each >= start + partBytes) ?? file.bytes.length;
      const taken = cutter.feed('binlog.000001', file.bytes.subarray(start, end));
      total += taken;
      if (taken < end - start || cutter.reached) break;
      start = end;
    }
    return { total, cutter };
  }

  test('an ID is inclusive, whatever parts the log comes in', () => {
    const property = fc.property(groups, fc.integer({ min: 1, max: 3000 }), fc.nat(), (written, partBytes, choice) => {
      const file = fileOf(written);
      const ids = [...file.boundaries].filter(([, id]) => id !== '');
      fc.pre(ids.length > 0);
      const [, id] = ids[choice % ids.length]!;
      const [end] = ids.find(([, each]) => each === id)!;
      const { total, cutter } = kept(file, { kind: 'id', id }, partBytes);
      expect(total).toBe(end);
      expect(cutter).toMatchObject({ reached: true, id });
    });
    fc.assert(property, { numRuns: 200 });
  });

  test('a time cuts before the first transaction that began later', () => {
    const file = fileOf(timed(20));
    const ends = [...file.boundaries.keys()].slice(FIRST_EVENTS.length);
    for (const partBytes of [1, 500, 1 << 20]) {
      const at = (n: number) => kept(file, { kind: 'time', ms: seconds(n) * 1000 }, partBytes);
      expect(at(7).total).toBe(ends[7]);
      expect(at(7).cutter).toMatchObject({ reached: true, id: '0-1-8' });
      expect(at(19).total).toBe(file.bytes.length);
      expect(at(19).cutter).toMatchObject({ reached: false, id: '0-1-20' });
    }
  });

  test('large events may come in any parts', () => {
    const file = fileOf([
      { name: '', sequence: 1, events: [binlog.gtid({ sequence: 1 }), binlog.rows(200_000), binlog.query('COMMIT')] },
      { name: '', sequence: 2, events: [binlog.gtid({ sequence: 2 }), binlog.xid()] },
    ]);
    const cutter = format.cutter({ kind: 'id', id: '0-1-1' });
    let total = 0;
    for (let start = 0; !cutter.reached; start += 70_000) {
      total += cutter.feed('binlog.000001', file.bytes.subarray(start, start + 70_000));
    }
    expect(total).toBe([...file.boundaries.keys()][2]);
  });

  test('everything up to the latest is kept, with its ID, over several files', () => {
    const file = fileOf(timed(5));
    const next = fileOf([], [binlog.formatDescription(), binlog.gtidList([{ sequence: 5 }])]);
    const torn = Buffer.concat([file.bytes, Buffer.alloc(40)]);
    const cutter = format.cutter({ kind: 'latest' });
    expect(cutter.feed('binlog.000001', torn)).toBe(torn.length);
    expect(cutter.feed('binlog.000002', next.bytes)).toBe(next.bytes.length);
    expect(cutter).toMatchObject({ reached: false, id: '0-1-5' });
  });

  test('a server that pretends to be of another version is told by what only the one database writes', () => {
    const first = [binlog.formatDescription({ version: '8.0.36' }), binlog.gtidList([])];
    const file = fileOf(timed(5), first);
    const { cutter } = kept(file, { kind: 'id', id: '0-1-3' }, 1);
    expect(cutter).toMatchObject({ reached: true, id: '0-1-3' });
  });

  test('without GTIDs a place cuts at the first boundary there or after', () => {
    const header = [binlog.formatDescription({ flavour: 'mysql' }), binlog.previousGtids([])];
    const transaction = [binlog.anonymousGtid(), binlog.query('BEGIN'), binlog.rows(50), binlog.xid()];
    const file = fileOf(
      [
        { name: '', sequence: 0, events: transaction },
        { name: '', sequence: 0, events: transaction },
      ],
      header,
    );
    const [, , first, second] = [...file.boundaries.keys()];
    const cut = (id: string) => {
      const cutter = format.cutter({ kind: 'id', id });
      return [cutter.feed('binlog.000001', file.bytes), cutter.feed('binlog.000002', file.bytes), cutter.id];
    };
    expect(cut(`binlog.000001:${first}`)).toEqual([first, 0, `binlog.000001:${first}`]);
    expect(cut(`binlog.000001:${first! + 1}`)).toEqual([second, 0, `binlog.000001:${second}`]);
    expect(cut(`binlog.000001:${second! + 1}`)).toEqual([second, 0, `binlog.000002:0`]);
  });

  test('the index lists the files as the server does', () => {
    expect(format.extras(['mysql-bin.000009', 'mysql-bin.000010'])).toEqual([
      { name: 'mysql-bin.index', content: './mysql-bin.000009\n./mysql-bin.000010\n' },
    ]);
    expect(format.extras([])).toEqual([]);
  });
});
