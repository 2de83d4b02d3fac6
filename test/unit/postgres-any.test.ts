import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { Position } from '../../src/core/position.ts';
import type { Located, LogSource } from '../../src/source/source.ts';
import { Shipping } from '../contract/source-shipping.ts';
import { type Line, WalServer } from '../helpers/wal-servers.ts';
import { reign } from '../helpers/wal-shipping.ts';

/** What may happen to the servers of a cluster, and which of its twins is elected. Servers are named by a number. */
type Step =
  | { readonly do: 'write' | 'idle' | 'switch log' | 'checkpoint' | 'ship'; readonly at: number }
  | { readonly do: 'receive' | 'rewind'; readonly at: number; readonly from: number; readonly share: number }
  | { readonly do: 'promote'; readonly at: number; readonly knowing: boolean };

const MOST_SERVERS = 4;
const server = fc.nat(MOST_SERVERS - 1);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constantFrom('write', 'ship'), at: server }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('idle', 'switch log', 'checkpoint'), at: server }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom('receive', 'receive', 'rewind'),
      at: server,
      from: server,
      share: fc.constantFrom(0.5, 1, 1),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('promote'), at: server, knowing: fc.boolean() }) },
);

/** A cluster of servers, a twin beside each, and the archive that they ship to. */
class World {
  readonly servers: WalServer[];
  readonly shipping = new Shipping();
  readonly #twins: LogSource[];
  /** Where the archive has left a timeline: nothing from there on may come into it again. */
  readonly #dead = new Map<Line, bigint>();
  /** The timeline that the archive is on. */
  #line: Line;
  /** When the archive came to a timeline, and when one was begun; by a count of steps. */
  readonly #archivedAt = new Map<Line, number>();
  readonly #promotedAt = new Map<Line, number>();
  #now = 0;

  constructor() {
    const primary = WalServer.primary();
    const standbys = Array.from({ length: MOST_SERVERS - 1 }, () => primary.standby());
    this.servers = [primary, ...standbys];
    this.#twins = this.servers.map((each) => each.open());
    this.#line = primary.line;
  }

  async take(step: Step): Promise<void> {
    this.#now++;
    const at = this.servers[step.at]!;
    switch (step.do) {
      case 'ship':
        return this.#ship(step.at);
      case 'receive':
      case 'rewind': {
        const from = this.servers[step.from]!;
        // A standby follows a primary as far as its own WAL is a part of that one's.
        const mayFollow = at.isInRecovery && holdsAllOf(from, at);
        if (at === from || from.isInRecovery || (step.do === 'receive' && !mayFollow)) return;
        if (step.do === 'rewind') at.rewind(from);
        else at.receive(from, shareOf(at, from, step.share));
        return;
      }
      case 'promote': {
        if (!at.isInRecovery) return;
        at.promote(step.knowing ? Math.max(this.#line.wal.timeline, at.line.wal.timeline) + 1 : undefined);
        this.#promotedAt.set(at.line, this.#now);
        return;
      }
      case 'checkpoint':
        return at.purge();
      default:
        if (at.isInRecovery) return;
        if (step.do === 'write') at.transaction({ bytes: 150_000 });
        else if (step.do === 'idle') at.idle();
        else at.switchLog();
    }
  }

  async #ship(index: number): Promise<void> {
    const at = this.servers[index]!;
    const before = this.shipping.position;
    const path = at.lines();
    const answers = await reign(this.#twins[index]!, this.shipping);
    const [first] = answers;
    if (!first!.allowed) {
      this.#demandReason(at, first!);
      return;
    }
    if (before !== null) this.#demandAlive(at, first!);
    this.#leave(at);
    this.#line = at.line;
    if (!this.#archivedAt.has(at.line)) this.#archivedAt.set(at.line, this.#now);
    expect(answers.at(-1)!.allowed).toBe(true);
    this.#demandWhole(at, path);
  }

  /** Nothing of the server's history is of a branch that the archive has left; a fork is to a later promotion. */
  #demandAlive(at: WalServer, { result }: Located): void {
    for (const { line, end } of at.lines()) {
      const dead = this.#dead.get(line);
      if (dead !== undefined) expect([line.wal.timeline, end <= dead]).toEqual([line.wal.timeline, true]);
    }
    if (result !== 'fork') return;
    const parted = at.lines().find(({ line }) => !pathOf(this.#line).includes(line))!.line;
    expect(this.#promotedAt.get(parted)!).toBeGreaterThan(this.#archivedAt.get(this.#line)!);
  }

  /** What the archive was on, and is not of this server's history, is dead from where the two part. */
  #leave(at: WalServer): void {
    const path = at.lines();
    for (const line of pathOf(this.#line)) {
      const own = path.find((each) => each.line === line);
      const from = own === undefined ? 0n : own.line === at.line ? null : own.end;
      if (from !== null) this.#dead.set(line, from);
    }
  }

  /** What was shipped is what the server has, byte for byte. */
  #demandWhole(at: WalServer, path: ReturnType<WalServer['lines']>): void {
    const shipped = this.shipping.contents();
    const began = this.shipping.chunks.find(({ from }) => !from.segment.endsWith('.history'));
    for (const [index, { line, end }] of path.entries()) {
      const { wal } = line;
      const step = BigInt(wal.segmentBytes);
      // The child's first segment has the rest of a parent's last one.
      const upTo = index === path.length - 1 ? end : end - (end % step);
      const all = wal.bytes();
      for (let start = wal.start; start < upTo; start += step) {
        const name = wal.nameAt(start);
        // What was removed before the archive began is in no archive.
        if (began && start < lsnOf(began.from)) continue;
        const length = Number(upTo - start < step ? upTo - start : step);
        const from = Number(start - wal.start);
        expect([
          name,
          shipped
            .get(name)
            ?.subarray(0, length)
            .equals(all.subarray(from, from + length)),
        ]).toEqual([name, true]);
      }
      const isWhole = began === undefined || line.wal.start >= lsnOf(began.from);
      if (line.history !== null && isWhole) expect(shipped.get(historyName(line))?.toString()).toBe(line.history);
    }
    expect(this.shipping.position).toMatchObject({ id: idOf(at) });
  }

  /** A server that has all of the archive, and what comes then, is never refused. */
  #demandReason(at: WalServer, { result, reason }: Located): void {
    const isOnPath = at.lines().some(({ line }) => line === this.#line);
    const hasAll = isOnPath && (at.line !== this.#line || at.flushed >= lsnOf(this.shipping.position!));
    if (hasAll && !(result === 'gap' && at.hasRemoved)) throw new Error(`refused: ${result}: ${reason}`);
  }

  async close(): Promise<void> {
    for (const each of this.servers) each.remove();
  }
}

const pathOf = (line: Line): Line[] => (line.parent ? [...pathOf(line.parent), line] : [line]);
const historyName = ({ wal }: Line) => `${wal.timeline.toString(16).toUpperCase().padStart(8, '0')}.history`;
const hex = (lsn: bigint) => lsn.toString(16).toUpperCase();
const idOf = ({ line, flushed }: WalServer) =>
  `${line.wal.timeline}/${hex(flushed >> 32n)}/${hex(flushed & 0xffff_ffffn)}`;
const lsnOf = ({ id }: Position) => BigInt(`0x${id.split('/')[2]}`);

/** Whether all WAL of a server is part of another's. */
function holdsAllOf(one: WalServer, other: WalServer): boolean {
  const own = one.lines().find(({ line }) => line === other.line);
  return own !== undefined && own.end >= other.flushed;
}

/** As much of a primary's WAL as a standby receives at once: some of what it lacks of that timeline. */
function shareOf(at: WalServer, from: WalServer, share: number): bigint {
  const have = at.line === from.line ? at.flushed : from.line.begin;
  return have + (BigInt(Math.floor(Number(from.flushed - have) * share)) / 8n) * 8n;
}

test('over any tree of timelines no twin takes the archive where it must not, nor ships what its server has not', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
      const world = new World();
      try {
        for (const each of steps) await world.take(each);
      } finally {
        await world.close();
      }
    }),
    { numRuns: 40 },
  );
}, 120_000);
