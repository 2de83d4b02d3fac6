import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { Chunk, Opening, Result } from '../../src/core/header.ts';
import type { Position } from '../../src/core/position.ts';
import { LivingLog } from '../../src/core/ranges.ts';
import { type StatedRun, startAfter, stateBefore, stated } from '../../src/restore/states.ts';
import { mariadbFormat } from '../../src/source/mariadb/format.ts';
import { remainderOf, unionOf } from '../../src/source/mariadb/gtid-position.ts';

const format = mariadbFormat();

/** A transaction: of one domain, numbered there; `by` tells two of the same number apart. */
interface Transaction {
  readonly domain: number;
  readonly sequence: number;
  readonly by: number;
}

/** One server's binlog as a list of transactions, a byte each, all in one file. */
class Server {
  readonly name: string;
  readonly log: Transaction[];

  constructor(name: string, log: readonly Transaction[]) {
    this.name = name;
    this.log = [...log];
  }

  write(domain: number, by: number): void {
    const sequence = 1 + this.log.filter((each) => each.domain === domain).length;
    this.log.push({ domain, sequence, by });
  }

  at(offset: number): Position {
    return {
      origin: `mariadb-${this.name}`,
      incarnation: this.name,
      segment: 'binlog.000001',
      offset: 1 + offset,
      id: idOf(this.log.slice(0, offset)),
    };
  }
}

const gtid = ({ domain, sequence, by }: Transaction) => `${domain}-${by}-${sequence}`;

function idOf(log: readonly Transaction[]): string {
  const last = new Map<number, Transaction>();
  for (const each of log) last.set(each.domain, each);
  return unionOf([...last.values()].map(gtid).join(','), '');
}

const isSame = (a: Transaction, b: Transaction) => gtid(a) === gtid(b);

/**
 * Servers that follow each other, each in its own order of domains, with an archive of what they wrote. The archive's
 * transactions are kept as they were shipped: what a reader makes of them must be the last server's history.
 */
class Model {
  readonly living = new LivingLog();
  readonly #shipped = new Map<string, Transaction>();
  #primary = new Server('1', []);
  #names = 1;
  #term = 0;
  #slot = 0;
  #next = 0;
  /** What was shipped and still counts, in the order of the chain: some of it twice, from two servers. */
  #chain: { transaction: Transaction; to: Position }[] = [];

  constructor() {
    this.#open('start', { ...this.#primary.at(0), offset: 0 });
    this.#chunk({ ...this.#primary.at(0), offset: 0 }, this.#primary.at(0), 1);
  }

  /** What the archive has; the model of what a restore gives. */
  get archived(): Transaction[] {
    const all = this.#chain.map(({ transaction }) => transaction);
    return all.filter((each, index) => all.findIndex((other) => isSame(each, other)) === index);
  }

  write(domain: number): void {
    this.#primary.write(domain, Number(this.#primary.name));
  }

  ship(count: number): void {
    const to = Math.min(this.#primary.log.length, this.#next + count);
    for (; this.#next < to; this.#next++) {
      const transaction = this.#primary.log[this.#next]!;
      this.#shipped.set(`${this.#term}/${this.#slot}`, transaction);
      this.#chunk(this.#primary.at(this.#next), this.#primary.at(this.#next + 1), 1);
      this.#chain.push({ transaction, to: this.#primary.at(this.#next + 1) });
    }
  }

  /** Another server takes over, which lacks the last `lost` transactions: a move if these were not shipped. */
  failOver({ lost, order, written }: { lost: number; order: number; written: number }): void {
    const kept = this.#primary.log.slice(0, Math.max(0, this.#primary.log.length - lost));
    const next = new Server(String(++this.#names), reordered(kept, order));
    for (let n = 0; n < written; n++) next.write(n % 2, this.#names);
    const isKept = (each: Transaction) => kept.some((other) => isSame(each, other));
    const dead = this.#chain.findIndex(({ transaction }) => !isKept(transaction));
    if (dead < 0) this.#goOn(next, 'move');
    else {
      const common = this.#chain[dead - 1]?.to ?? new Server('1', []).at(0);
      this.#chain.length = dead;
      this.#goOn(next, 'fork', common);
    }
  }

  /** With the first transaction that the archive does not have. */
  #goOn(next: Server, result: Result, common?: Position): void {
    const { archived } = this;
    const first = next.log.findIndex((each) => !archived.some((other) => isSame(each, other)));
    this.#primary = next;
    this.#next = first < 0 ? next.log.length : first;
    this.#open(result, next.at(this.#next), common);
  }

  /** What a reader applies who takes the runs in order and leaves out what it has: per domain, by number. */
  replayed(runs: readonly StatedRun[] = this.stated()): Transaction[] {
    const applied: Transaction[] = [];
    for (const { run, before } of runs) {
      for (const { place } of run.segments.flatMap(({ pieces }) => pieces)) {
        const transaction = this.#shipped.get(`${place.term}/${place.slot}`);
        if (transaction && remainderOf(gtid(transaction), before) !== '') applied.push(transaction);
      }
    }
    return applied;
  }

  stated(): StatedRun[] {
    const runs: StatedRun[] = [];
    for (const run of this.living.runs) {
      const before = stateBefore([run], runs.at(-1)?.end ?? '', format);
      runs.push(stated(run, before, format));
    }
    return runs;
  }

  #open(result: Result, at: Position, common?: Position): void {
    this.#term++;
    this.#slot = 0;
    const opening = { kind: 'opening' as const, at, result, evidence: { of: at.origin }, previous: null };
    this.#add({ ...this.#base(), ...opening, ...(common && { common }) });
  }

  #chunk(from: Position, to: Position, length: number): void {
    const facts = { endsSegment: false, openTransaction: false, firstEventMs: null, lastEventMs: null, witness: '' };
    const stored = { codec: 'zstd' as const, stored: { bytes: 0, sha256: '' } };
    this.#add({ ...this.#base(), kind: 'chunk', from, to, length, ...facts, ...stored });
  }

  #add(header: Opening | Chunk): void {
    this.living.add({ header, digest: `${this.#term}/${this.#slot}`, payloadOffset: 0 });
    this.#slot++;
  }

  #base() {
    const place = { term: this.#term, slot: this.#slot };
    return { v: 1 as const, archive: 'a', stream: 's', ...place, claim: 'c', prev: '', node: 'n', time: '' };
  }
}

/** The same transactions, in each domain in the same order, but the domains come in another one. */
function reordered(log: readonly Transaction[], seed: number): Transaction[] {
  const ofDomain = (domain: number) => log.filter((each) => each.domain === domain);
  const [zero, one] = [ofDomain(0), ofDomain(1)];
  const order: Transaction[] = [];
  for (let n = seed; order.length < log.length; n = (n * 7 + 3) % 1009) {
    const isZerosTurn = one.length === 0 || (zero.length > 0 && n % 2 === 0);
    order.push((isZerosTurn ? zero : one).shift()!);
  }
  return order;
}

const happening = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('write' as const), domain: fc.nat({ max: 1 }) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('ship' as const), count: fc.integer({ min: 1, max: 6 }) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('failOver' as const),
      lost: fc.nat({ max: 4 }),
      order: fc.nat({ max: 1000 }),
      written: fc.nat({ max: 3 }),
    }),
  },
);

const inOrder = (transactions: readonly Transaction[]) => transactions.map(gtid).sort();

function modelOf(happenings: readonly (typeof happening extends fc.Arbitrary<infer T> ? T : never)[]): Model {
  const model = new Model();
  for (const each of happenings) {
    if (each.kind === 'write') model.write(each.domain);
    else if (each.kind === 'ship') model.ship(each.count);
    else model.failOver(each);
  }
  model.ship(Number.POSITIVE_INFINITY);
  return model;
}

describe('the log of servers that follow each other', () => {
  test('replayed run by run, has every transaction of the living history once, and none of a dead tail', () => {
    fc.assert(
      fc.property(fc.array(happening, { maxLength: 40 }), (happenings) => {
        const model = modelOf(happenings);
        const replayed = model.replayed();
        expect(inOrder(replayed)).toEqual(inOrder(model.archived));
        for (const domain of [0, 1]) {
          const sequences = replayed.filter((each) => each.domain === domain).map(({ sequence }) => sequence);
          expect(sequences).toEqual(sequences.map((_, index) => index + 1));
        }
      }),
      { numRuns: 1000 },
    );
  });

  test('from any state that a replay passes, the rest completes it', () => {
    fc.assert(
      fc.property(fc.array(happening, { maxLength: 30 }), fc.nat(), (happenings, point) => {
        const model = modelOf(happenings);
        const all = model.replayed();
        const had = all.slice(0, point % (all.length + 1));
        const id = idOf(had);
        if (id === '') return;
        const needed = startAfter(model.stated(), id, format);
        expect(needed).not.toBeNull();
        expect(inOrder([...had, ...model.replayed(needed!)])).toEqual(inOrder(all));
      }),
      { numRuns: 500 },
    );
  });

  test('a file that begins in its middle carries what its opening says', () => {
    const model = new Model();
    for (const domain of [0, 1, 0]) model.write(domain);
    model.ship(3);
    model.failOver({ lost: 0, order: 1, written: 1 });
    model.ship(1);
    const [first, second] = model.living.runs;
    expect(first!.segments[0]!.evidence).toBeNull();
    expect(second!.segments[0]).toMatchObject({ offset: 4, evidence: { of: 'mariadb-2' } });
  });
});
