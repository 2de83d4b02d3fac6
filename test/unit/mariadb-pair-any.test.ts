import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { Position } from '../../src/core/position.ts';
import { Binlogs } from '../../src/source/mariadb/binlogs.ts';
import { Branches } from '../../src/source/mariadb/fork.ts';
import { locate } from '../../src/source/mariadb/locate.ts';
import { LogIndex } from '../../src/source/mariadb/log-index.ts';
import type { ServerState } from '../../src/source/mariadb/server.ts';
import { openMariadbSource } from '../../src/source/mariadb.ts';
import type { Head, Located, Witness } from '../../src/source/source.ts';
import { Shipping } from '../contract/source-shipping.ts';
import { headWith } from '../helpers/head.ts';
import { gtidOf, ServerLog } from '../helpers/server-log.ts';

const log = { debug() {}, info() {}, warn() {}, error() {} };

/** Per domain, in order. */
type History = readonly (readonly string[])[];

/** Which servers wrote to each domain, transaction by transaction. */
const history = fc
  .array(fc.array(fc.constantFrom(1, 2, 3), { maxLength: 7 }), { minLength: 1, maxLength: 3 })
  .map(
    (domains): History => domains.map((writers, domain) => writers.map((server, i) => `${domain}-${server}-${i + 1}`)),
  );
/** How a server interleaves the domains, and where it begins a file: numbers to draw from. */
const order = fc.array(fc.nat(), { minLength: 24, maxLength: 24 });

function interleave(domains: History, draw: readonly number[]): string[] {
  const left = domains.map((gtids) => [...gtids]);
  const log: string[] = [];
  for (let i = 0; left.some((gtids) => gtids.length > 0); i++) {
    const open = left.filter((gtids) => gtids.length > 0);
    log.push(open[draw[i % draw.length]! % open.length]!.shift()!);
  }
  return log;
}

/** `large`: what one in seven transactions takes, bytes. */
function write(serverId: number, gtids: readonly string[], draw: readonly number[], large: number): ServerLog {
  const server = new ServerLog(serverId);
  for (const [i, gtid] of gtids.entries()) {
    if (draw[(i + 5) % draw.length]! % 5 === 0) server.rotate();
    server.apply(gtid, { bytes: draw[(i + 9) % draw.length]! % 7 === 0 ? large : 40 });
  }
  return server;
}

/** Ships all of a log; chunks end on boundaries and inside transactions. */
async function ship({ dir }: ServerLog): Promise<Shipping> {
  const source = openMariadbSource({
    stream: 'orders',
    dir,
    flavour: 'mariadb',
    busyPollMs: 5,
    maxSliceBytes: 400,
    log,
  });
  const shipping = new Shipping();
  await shipping.ship(source);
  await source.close();
  return shipping;
}

function headAt(shipping: Shipping, count: number): Head {
  const whole = shipping.head();
  const chunks = shipping.chunks.slice(0, count).toReversed();
  return {
    ...headWith({ position: chunks[0]?.to ?? null, chunks }),
    bytes: (witness: Witness) => whole.bytes(witness),
  };
}

async function locateIn({ dir, serverId }: ServerLog, head: Head, facts: Partial<ServerState> | null) {
  const binlogs = new Binlogs({ dir, flavour: 'mariadb' });
  const state = { serverId, isWritable: true, isReplicating: false, isInRing: false, slavePosition: '', ...facts };
  const server = facts && state;
  const asked = { server, lastKnown: server, isSilent: false, askServer: async () => server };
  try {
    const own = {
      lineage: await binlogs.look(),
      index: new LogIndex('mariadb'),
      flavour: 'mariadb',
      ...asked,
    } as const;
    return await locate(own, head, new Branches());
  } finally {
    await binlogs.close();
  }
}

const highest = (id: string) =>
  new Map(
    id
      .split(',')
      .filter(Boolean)
      .map((text) => [gtidOf(text).domain, gtidOf(text).sequence]),
  );
/** What a reader applies who has all up to an ID: per domain by number. */
function applied(gtids: readonly string[], id: string): string[] {
  const has = highest(id);
  return gtids.filter((text) => {
    const { domain, sequence } = gtidOf(text);
    if (sequence <= (has.get(domain) ?? 0)) return false;
    has.set(domain, sequence);
    return true;
  });
}
const byDomain = (gtids: readonly string[]) => Object.groupBy(gtids, (text) => gtidOf(text).domain);

test('two logs of one history: nothing is skipped, nothing is applied twice, and it never is a fork', async () => {
  await fc.assert(
    fc.asyncProperty(history, order, order, fc.nat(), fc.nat(), fc.nat(3), async (domains, a, b, cut, lag, keep) => {
      const there = interleave(domains, a);
      const here = interleave(domains, b).slice(0, lag % (there.length + 1));
      const [primary, replica] = [write(1, there, a, 600), write(2, here, b, 300_000)];
      try {
        const shipping = await ship(primary);
        if (shipping.chunks.length === 0) return;
        const head = headAt(shipping, 1 + (cut % shipping.chunks.length));
        if (keep > 0) replica.purge(keep);
        // What it wrote itself it wrote as the primary: its position as a replica has it.
        const slavePosition = here.join(',');
        for (const facts of [{}, { isReplicating: true, isWritable: false, slavePosition }, null]) {
          const located = await locateIn(replica, head, facts);
          check(located, { head, here, replica, purged: keep > 0 });
        }
      } finally {
        primary.remove();
        replica.remove();
      }
    }),
    { numRuns: 20 },
  );
}, 120_000);

function check(
  { result, allowed, at }: Located,
  { head, here, replica, purged }: { head: Head; here: readonly string[]; replica: ServerLog; purged: boolean },
): void {
  const { id } = head.position!;
  const isHere = id
    .split(',')
    .filter(Boolean)
    .every((gtid) => here.includes(gtid));
  if (!isHere) {
    expect(allowed).toBe(false);
    expect(purged ? ['behind', 'gap'] : ['behind']).toContain(result);
    return;
  }
  const missing = here.filter((text) => applied([text], id).length > 0);
  if (!allowed) {
    expect(result).toBe('gap');
    const left = replica.gtidsFrom({ ...at!, offset: 0 });
    expect(missing.every((gtid) => left.includes(gtid))).toBe(false);
    return;
  }
  expect(result).toBe('move');
  const read = replica.gtidsFrom(at!);
  expect(byDomain(applied(read, id))).toEqual(byDomain(missing));
  // No earlier place than needed.
  expect(missing.length === 0 ? read : [read[0]]).toEqual(missing.length === 0 ? [] : [missing[0]]);
}

const shared = history.filter(([first]) => first!.length > 2);

test('two logs that went apart: only the promoted one is taken, and gives its own history exactly', async () => {
  let taken = 0;
  await fc.assert(
    fc.asyncProperty(shared, order, order, fc.nat(), fc.nat(4), async (domains, a, b, cut, tails) => {
      const old = domains.map((gtids, domain) => gtids.map((_, i) => `${domain}-1-${i + 1}`));
      const [archiveTail, ownTail] = [1 + (tails % 2), 1 + (tails >> 1)];
      const more = (server: number, length: number) => (gtids: readonly string[], domain: number) =>
        domain > 0 ? gtids : [...gtids, ...Array.from({ length }, (_, i) => `0-${server}-${gtids.length + i + 1}`)];
      const there = interleave(old.map(more(1, archiveTail)), a);
      const before = interleave(old, b);
      const here = [...before, ...more(2, ownTail)(old[0]!, 0).slice(old[0]!.length)];
      const [primary, replica] = [write(1, there, a, 600), write(2, here, b, 300_000)];
      try {
        const shipping = await ship(primary);
        const { length: count } = shipping.chunks;
        const head = headAt(shipping, count - (cut % Math.min(4, count)));
        const hasTail = !head
          .position!.id.split(',')
          .filter(Boolean)
          .every((gtid) => here.includes(gtid));
        for (const facts of [{ isReplicating: true }, { isReplicating: null }, { isWritable: false }, null]) {
          // Its own tail was written on a replica, or is the history of nobody knows whom.
          const allowed = !hasTail && !facts?.isReplicating;
          expect((await locateIn(replica, head, facts)).allowed).toBe(allowed);
        }
        const { result, allowed, at, common } = await locateIn(replica, head, {});
        if (!hasTail) expect([result, allowed]).toEqual(['move', true]);
        else if (allowed) {
          taken++;
          expect(result).toBe('fork');
          const kept = head.position!.id === common!.id ? there : there.slice(0, countUpTo(primary, common!));
          const all = [...kept, ...applied(replica.gtidsFrom(at!), common!.id)];
          expect(byDomain(all)).toEqual(byDomain(here));
        } else expect(result).not.toBe('move');
      } finally {
        primary.remove();
        replica.remove();
      }
    }),
    { numRuns: 20 },
  );
  expect(taken).toBeGreaterThan(0);
}, 120_000);

/** How many transactions of a log end before a place. */
const countUpTo = (server: ServerLog, place: Position) =>
  server.gtidsFrom({ segment: 'binlog.000001', offset: 0 }).length - server.gtidsFrom(place).length;
