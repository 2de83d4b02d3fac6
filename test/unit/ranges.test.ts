import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { Chunk, Opening, Read, Result } from '../../src/core/header.ts';
import type { Position } from '../../src/core/position.ts';
import { cutRun, LivingLog, type Run, runBytes, runEnd, runStart, stretchesOf } from '../../src/core/ranges.ts';

type Files = { name: string; bytes: string }[];

/** Writes a chain's headers as a term does, and keeps the chunks' bytes for whoever puts the pieces together. */
class Chain {
  readonly living = new LivingLog();
  readonly #bytes = new Map<string, Buffer>();
  #term = 0;
  #slot = 0;

  open(result: Result, at: Position | null): void {
    this.#term++;
    this.#slot = 0;
    this.#add({ ...this.#base(), kind: 'opening', at, result, evidence: {}, previous: null });
  }

  ship(from: Position, bytes: Buffer, facts: { id?: string; openTransaction?: boolean; ms?: number } = {}): Position {
    const { id = from.id, openTransaction = false, ms = null } = facts;
    const to = { ...from, offset: from.offset + bytes.length, id };
    this.#bytes.set(`${this.#term}/${this.#slot}`, bytes);
    this.#add({
      ...this.#base(),
      kind: 'chunk',
      from,
      to,
      length: bytes.length,
      endsSegment: false,
      openTransaction,
      firstEventMs: ms,
      lastEventMs: ms,
      witness: '',
      codec: 'zstd',
      stored: { bytes: 0, sha256: '' },
    });
    return to;
  }

  /** Each run's files as a restore would write them. */
  files(runs: readonly Run[] = this.living.runs): Files[] {
    return runs.map(({ segments }) =>
      segments.map(({ name, offset, length, pieces }) => {
        const parts = pieces.map((piece) => {
          expect(piece.length).toBeGreaterThan(0);
          return this.#bytes.get(`${piece.place.term}/${piece.place.slot}`)!.subarray(0, piece.length);
        });
        expect(pieces[0]!.offset).toBe(offset);
        const bytes = Buffer.concat(parts);
        expect(bytes).toHaveLength(length);
        return { name, bytes: bytes.toString('latin1') };
      }),
    );
  }

  #add(header: Opening | Chunk): void {
    const read: Read = { header, digest: `${this.#term}/${this.#slot}`, payloadOffset: 0 };
    this.living.add(read);
    this.#slot++;
  }

  #base() {
    const place = { term: this.#term, slot: this.#slot };
    return { v: 1 as const, archive: 'a', stream: 's', ...place, claim: 'c', prev: '', node: 'n', time: '' };
  }
}

function at(segment: string, offset = 0, { origin = 'server-1', incarnation = 'life-1', id = '' } = {}): Position {
  return { origin, incarnation, segment, offset, id };
}

const bytes = (text: string) => Buffer.from(text, 'latin1');

interface ModelSegment {
  readonly number: number;
  readonly name: string;
  readonly incarnation: string;
  bytes: Buffer;
}
interface ModelRun {
  afterGap: boolean;
  segments: ModelSegment[];
}
/** A place in the model's log. */
interface Spot {
  run: number;
  segment: number;
  offset: number;
}

/** A server's log, byte by byte, with a shipper that follows it; whatever happens to it ends the term. */
class Model {
  readonly chain = new Chain();
  runs: ModelRun[] = [];
  #next: Spot = { run: 0, segment: 0, offset: 0 };
  #lives = 0;
  #written = 0;

  constructor() {
    this.#begin({ afterGap: false });
    this.chain.open('start', this.#positionOf(this.#next));
  }

  append(count: number): void {
    const segment = this.runs.at(-1)!.segments.at(-1)!;
    const more = Buffer.from(Array.from({ length: count }, () => this.#written++ % 251));
    segment.bytes = Buffer.concat([segment.bytes, more]);
  }

  rotate(): void {
    const { segments } = this.runs.at(-1)!;
    segments.push(this.#segment((segments.at(-1)?.number ?? 0) + 1));
  }

  /** Ships at most one chunk; false when there is nothing left. */
  ship(maxBytes: number): boolean {
    for (;;) {
      const { run, segment, offset } = this.#next;
      const there = this.runs[run]!.segments[segment]!;
      if (offset < there.bytes.length) {
        const chunk = there.bytes.subarray(offset, offset + maxBytes);
        this.chain.ship(this.#positionOf(this.#next), chunk);
        this.#next.offset += chunk.length;
        return true;
      }
      if (segment === this.runs[run]!.segments.length - 1) return false;
      this.#next = { run, segment: segment + 1, offset: 0 };
    }
  }

  shipAll(): void {
    while (this.ship(7));
  }

  restart(): void {
    this.chain.open('resume', this.#positionOf(this.#next));
  }

  /** The log loses its last bytes, however far back, and goes on: there, in another file, or in a new life of the file. */
  truncate({ back, goesOn }: { back: number; goesOn: 'there' | 'rotated' | 'in a new life' }): void {
    const newLife = goesOn === 'in a new life';
    const spot = this.#spotFromEnd(back, newLife);
    const shipped = this.#next;
    this.runs.length = spot.run + 1;
    const { segments } = this.runs[spot.run]!;
    segments.length = spot.segment + 1;
    const last = segments[spot.segment]!;
    last.bytes = last.bytes.subarray(0, spot.offset);
    if (newLife) segments[spot.segment] = this.#segment(last.number);
    const lost = compare(shipped, spot) > 0 || (compare(shipped, spot) === 0 && newLife);
    if (lost) this.#next = spot;
    this.chain.open(lost ? 'truncate' : 'resume', this.#positionOf(this.#next));
    if (goesOn === 'rotated') this.rotate();
  }

  reset(): void {
    this.shipAll();
    this.#begin({ afterGap: false });
    this.#next = { run: this.runs.length - 1, segment: 0, offset: 0 };
    this.chain.open('reset', this.#positionOf(this.#next));
  }

  /** The database purges what was not shipped yet, and goes on in a new file. */
  gap(): void {
    const { run, segment, offset } = this.#next;
    const { segments } = this.runs[run]!;
    const number = segments.at(-1)!.number + 1;
    segments[segment]!.bytes = segments[segment]!.bytes.subarray(0, offset);
    segments.length = offset > 0 ? segment + 1 : segment;
    this.#begin({ afterGap: true, number });
    this.#next = { run: run + 1, segment: 0, offset: 0 };
    this.chain.open('gap', this.#positionOf(this.#next));
  }

  files(): Files[] {
    return this.runs
      .map(({ segments }) =>
        segments.map((segment) => ({ name: segment.name, bytes: segment.bytes.toString('latin1') })),
      )
      .filter((files) => files.length > 0);
  }

  /** For each run with bytes, whether some are missing between the run before and it. */
  gaps(): boolean[] {
    let missing = false;
    const gaps: boolean[] = [];
    for (const { afterGap, segments } of this.runs) {
      missing ||= afterGap;
      if (segments.every((segment) => segment.bytes.length === 0)) continue;
      gaps.push(missing);
      missing = false;
    }
    return gaps;
  }

  #begin({ afterGap, number = 1 }: { afterGap: boolean; number?: number }): void {
    this.runs.push({ afterGap, segments: [this.#segment(number)] });
  }

  #segment(number: number): ModelSegment {
    return { number, name: `log.${number}`, incarnation: `life-${++this.#lives}`, bytes: bytes('#') };
  }

  #positionOf({ run, segment, offset }: Spot): Position {
    const { name, incarnation } = this.runs[run]!.segments[segment]!;
    return at(name, offset, { incarnation });
  }

  /** Files begin with a header; one that lost it gets another, and with it a new life (a name alone tells no older run). */
  #spotFromEnd(back: number, newLife: boolean): Spot {
    const spots = this.runs.flatMap(({ segments }, run) =>
      segments.flatMap((there, segment): Spot[] => {
        if (newLife) return run === this.runs.length - 1 ? [{ run, segment, offset: 0 }] : [];
        return Array.from(there.bytes, (_, index) => ({ run, segment, offset: index + 1 }));
      }),
    );
    return spots[spots.length - 1 - (back % spots.length)]!;
  }
}

const compare = (a: Spot, b: Spot) => a.run - b.run || a.segment - b.segment || a.offset - b.offset;

const happening = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('append' as const), count: fc.integer({ min: 1, max: 12 }) }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('ship' as const), maxBytes: fc.integer({ min: 1, max: 9 }) }) },
  fc.record({ kind: fc.constantFrom('rotate' as const, 'restart' as const, 'reset' as const, 'gap' as const) }),
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('truncate' as const),
      back: fc.oneof(fc.nat({ max: 8 }), fc.nat({ max: 200 })),
      goesOn: fc.constantFrom('there' as const, 'rotated' as const, 'in a new life' as const),
    }),
  },
);

describe('the living log', () => {
  test('is the server’s log, byte for byte, whatever happened to it', () => {
    fc.assert(
      fc.property(fc.array(happening, { maxLength: 40 }), (happenings) => {
        const model = new Model();
        for (const each of happenings) {
          if (each.kind === 'append') model.append(each.count);
          else if (each.kind === 'ship') model.ship(each.maxBytes);
          else if (each.kind === 'truncate') model.truncate(each);
          else model[each.kind]();
        }
        model.shipAll();
        const { living } = model.chain;
        expect(model.chain.files()).toEqual(model.files());
        expect(living.runs.slice(1).map(({ afterGap }) => afterGap)).toEqual(model.gaps().slice(1));
        for (const { segments } of living.runs) {
          expect(new Set(segments.map(({ name }) => name)).size).toBe(segments.length);
        }
      }),
      { numRuns: 1000 },
    );
  });

  test('any cut of a run leaves exactly the bytes before it', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 6 }), fc.nat(), (sizes, at) => {
        const model = new Model();
        sizes.forEach((size, index) => {
          if (index > 0) model.rotate();
          model.append(size - 1);
        });
        model.shipAll();
        const [run] = model.chain.living.runs;
        const keptBytes = at % (runBytes(run!) + 1);
        let segment = 0;
        let offset = keptBytes;
        while (offset > sizes[segment]!) offset -= sizes[segment++]!;
        const cut = cutRun(run!, { segment, offset, id: null });
        const whole = model.chain
          .files()[0]!
          .map((file) => file.bytes)
          .join('');
        expect(
          model.chain
            .files([cut])[0]!
            .map((file) => file.bytes)
            .join(''),
        ).toBe(whole.slice(0, keptBytes));
        expect(runBytes(cut)).toBe(keptBytes);
        expect(runBytes(run!)).toBe(whole.length);
      }),
    );
  });

  test('a truncation in the middle of a chunk keeps the chunk’s first part', () => {
    const chain = new Chain();
    chain.open('start', at('log.1'));
    chain.ship(at('log.1'), bytes('abcdefgh'), { id: '8', ms: 8000 });
    chain.ship(at('log.2', 0, { id: '8' }), bytes('never'), { id: '13' });
    chain.open('truncate', at('log.1', 3, { id: '3' }));
    chain.ship(at('log.1', 3, { id: '3' }), bytes('XYZ'), { id: '6', ms: 9000 });
    expect(chain.files()).toEqual([[{ name: 'log.1', bytes: 'abcXYZ' }]]);
    expect(chain.living.runs[0]!.segments[0]!.pieces.map(({ toId }) => toId)).toEqual(['3', '6']);
    expect(chain.living.breaks).toMatchObject([
      { result: 'truncate', place: { term: 2, slot: 0 }, before: { segment: 'log.2', offset: 5 }, deadBytes: 10 },
    ]);
  });

  test('a truncation that takes a reset back leaves the run before it', () => {
    const chain = new Chain();
    chain.open('start', at('log.1'));
    chain.ship(at('log.1'), bytes('before'));
    chain.open('reset', at('log.1', 0, { incarnation: 'life-2' }));
    chain.ship(at('log.1', 0, { incarnation: 'life-2' }), bytes('phantom'));
    chain.open('truncate', at('log.1', 6));
    chain.ship(at('log.1', 6), bytes(' and after'));
    expect(chain.files()).toEqual([[{ name: 'log.1', bytes: 'before and after' }]]);
  });

  test('a fork on the same server keeps the log up to the common point', () => {
    const chain = new Chain();
    chain.open('start', at('log.1'));
    chain.ship(at('log.1'), bytes('common, dead'));
    chain.open('fork', at('log.1', 6));
    chain.ship(at('log.1', 6), bytes(' and living'));
    expect(chain.files()).toEqual([[{ name: 'log.1', bytes: 'common and living' }]]);
    expect(chain.living.breaks).toMatchObject([{ result: 'fork', deadBytes: 6 }]);
  });

  test('a fork to another server ends the old run at the common ID', () => {
    const chain = new Chain();
    chain.open('start', at('log.1'));
    chain.ship(at('log.1'), bytes('common, dead'), { id: '0-1-9' });
    chain.open('fork', at('log.7', 0, { origin: 'server-2', id: '0-1-5' }));
    chain.ship(at('log.7', 0, { origin: 'server-2' }), bytes('living'));
    expect(chain.living.runs).toMatchObject([
      { origin: 'server-1', until: '0-1-5' },
      { origin: 'server-2', until: null, afterGap: false },
    ]);
  });

  test('a move begins a run, and cuts the old one only where a transaction is open at its end', () => {
    for (const openTransaction of [true, false]) {
      const chain = new Chain();
      chain.open('start', at('log.1'));
      chain.ship(at('log.1'), bytes('one'), { id: '0-1-1', openTransaction });
      chain.open('move', at('log.1', 0, { origin: 'server-2' }));
      chain.ship(at('log.1', 0, { origin: 'server-2' }), bytes('two'), { id: '0-1-2' });
      expect(chain.living.runs.map(({ until }) => until)).toEqual([openTransaction ? '0-1-1' : null, null]);
      expect(chain.files().map(([file]) => file!.bytes)).toEqual(['one', 'two']);
    }
  });

  test('a timeline switch begins another run, and takes nothing of the old timeline back', () => {
    const chain = new Chain();
    chain.open('start', at('1-A'));
    chain.ship(at('1-A'), bytes('old'));
    chain.open('switch', at('2.history', 0, { origin: 'server-1/2' }));
    chain.ship(at('2.history', 0, { origin: 'server-1/2' }), bytes('why'));
    chain.ship(at('2-A', 0, { origin: 'server-1/2' }), bytes('new'));
    expect(chain.files().map((files) => files.map(({ name }) => name))).toEqual([['1-A'], ['2.history', '2-A']]);
    expect(chain.living.breaks.map(({ result }) => result)).toEqual(['switch']);
  });

  test('what nothing in the archive explains is a gap, never crossed in silence', () => {
    for (const [result, position] of [
      ['resume', at('log.1', 9)],
      ['truncate', at('log.1', 99)],
      ['truncate', at('log.9', 4)],
      ['fork', at('log.9', 4)],
    ] as const) {
      const chain = new Chain();
      chain.open('start', at('log.1'));
      chain.ship(at('log.1'), bytes('abc'));
      chain.open(result, position);
      chain.ship(position, bytes('def'));
      expect(chain.living.runs.map(({ afterGap }) => afterGap)).toEqual([false, true]);
      expect(chain.living.breaks.map((each) => each.result)).toEqual(['gap']);
    }
  });

  test('a gap that no byte follows counts for the run that comes after it', () => {
    const chain = new Chain();
    chain.open('start', at('log.1'));
    chain.ship(at('log.1'), bytes('abc'));
    chain.open('gap', at('log.5'));
    chain.open('reset', at('log.1', 0, { incarnation: 'life-2' }));
    chain.ship(at('log.1', 0, { incarnation: 'life-2' }), bytes('def'));
    expect(stretchesOf(chain.living.runs).map((runs) => runs.length)).toEqual([1, 1]);
  });

  test('after retention it begins in the middle of a file, and says so', () => {
    const living = new LivingLog(at('log.3', 40));
    expect(living.end).toMatchObject({ segment: 'log.3', offset: 40 });
    expect(living.runs).toEqual([]);
  });

  test('tells the first and last ID and time of a run', () => {
    const chain = new Chain();
    chain.open('start', at('log.1', 0, { id: '0-1-4' }));
    chain.ship(at('log.1', 0, { id: '0-1-4' }), bytes('header'), { id: '0-1-4' });
    chain.ship(at('log.1', 6, { id: '0-1-4' }), bytes('rows'), { id: '0-1-5', ms: 1000 });
    chain.ship(at('log.1', 10, { id: '0-1-5' }), bytes('more'), { id: '0-1-9', ms: 3000 });
    chain.ship(at('log.1', 14, { id: '0-1-9' }), bytes('rotate'), { id: '0-1-9' });
    const [run] = chain.living.runs;
    expect(runStart(run!)).toEqual({ id: '0-1-4', timeMs: 1000 });
    expect(runEnd(run!)).toEqual({ id: '0-1-9', timeMs: 3000 });
  });
});
