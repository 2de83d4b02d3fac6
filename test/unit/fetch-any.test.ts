import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { headOf } from '../../src/archive/head.ts';
import { type Archive, findEnd } from '../../src/archive/walk.ts';
import { placeOf } from '../../src/core/keys.ts';
import { ArchiveNotWhole, Discontinuity } from '../../src/errors.ts';
import { ChunkReader } from '../../src/restore/chunks.ts';
import { findFile } from '../../src/restore/fetch-find.ts';
import { parseHistory } from '../../src/source/postgres/history.ts';
import { parseId } from '../../src/source/postgres/lsn.ts';
import { walFiles } from '../../src/source/postgres/wal-files.ts';
import { historyName, segmentNameAt } from '../../src/source/postgres/wal-name.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { createArchive, shipTerm } from '../helpers/shipped-archive.ts';
import { WalServer } from '../helpers/wal-servers.ts';

const files = walFiles();
const SEGMENT_BYTES = 1 << 20;
const STEP = BigInt(SEGMENT_BYTES);

/** Which server does what; servers are named by a number, the newest last. */
type Step =
  | { readonly do: 'write' | 'switch log' | 'ship'; readonly at: number }
  | { readonly do: 'die'; readonly at: number; readonly slots: number }
  | { readonly do: 'promote'; readonly at: number; readonly share: number; readonly knowing: boolean };

const at = fc.nat(7);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constantFrom('write', 'write', 'ship', 'switch log'), at }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('die'), at, slots: fc.nat(9) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('promote'),
      at,
      share: fc.constantFrom(0.7, 0.95, 1),
      knowing: fc.boolean(),
    }),
  },
);

class World {
  readonly memory = new MemoryStore();
  readonly archive: Archive;
  readonly servers: WalServer[] = [WalServer.primary()];
  newest = 1;
  /** Whose log the archive is. */
  living = this.servers[0]!;

  constructor(archive: Archive, memory: MemoryStore) {
    this.archive = archive;
    this.memory = memory;
  }

  async take(step: Step): Promise<void> {
    const server = this.servers[this.servers.length - 1 - (step.at % this.servers.length)]!;
    if (step.do === 'write') server.transaction({ bytes: 130_000 });
    else if (step.do === 'switch log') server.switchLog();
    else if (step.do === 'promote') {
      if (this.servers.length > 5) return;
      const begin = server.line.begin > BigInt(SEGMENT_BYTES) ? server.line.begin : BigInt(SEGMENT_BYTES);
      const ends = server.line.ends.filter((end) => end <= server.flushed && end > begin);
      const upTo = ends[Math.max(0, Math.floor(step.share * ends.length) - 1)] ?? server.flushed;
      const standby = server.standby(upTo);
      standby.promote(step.knowing ? this.newest + 1 : server.line.wal.timeline + 1);
      this.newest = Math.max(this.newest, standby.line.wal.timeline);
      this.servers.push(standby);
    } else {
      for (let term = 0; term < 6; term++) {
        const goesOn = await this.ship(server, step.do === 'die' ? step.slots : null);
        if (!goesOn) return;
      }
    }
  }

  /** Whether the log went over to another timeline. */
  async ship(server: WalServer, slots: number | null): Promise<boolean> {
    const source = server.open({ maxSliceBytes: 1 << 16 });
    const located = await source.locate(await headOf(this.archive, await findEnd(this.archive, null)));
    if (located.at === null || (!located.allowed && located.result !== 'fork')) return false;
    this.living = server;
    try {
      await shipTerm(this.archive, source, { maxChunkBytes: 1 << 16 });
      return false;
    } catch (error) {
      if (!(error instanceof Discontinuity)) throw error;
      return slots === null;
    } finally {
      await source.close();
      if (slots !== null) await this.cut(slots);
    }
  }

  /** The last term's master died when it had written so many objects. */
  async cut(slots: number): Promise<void> {
    const keys: string[] = [];
    for await (const { key } of this.memory.list('orders/terms/')) keys.push(key);
    const places = keys.map((key) => ({ key, place: placeOf(key)! }));
    const last = Math.max(...places.map(({ place }) => place.term));
    const late = places.filter(({ place }) => place.term === last && place.slot > slots).map(({ key }) => key);
    await this.memory.delete(late);
  }

  remove(): void {
    for (const server of this.servers) server.remove();
  }
}

/** The bytes at each LSN of a server's own history. */
function bytesOf(server: WalServer, from: bigint, to: bigint): Buffer {
  const pieces: Buffer[] = [];
  let lsn = from;
  for (const { line, end } of server.lines()) {
    const upTo = end < to ? end : to;
    if (upTo <= lsn) continue;
    const all = line.wal.bytes();
    pieces.push(all.subarray(Number(lsn - line.wal.start), Number(upTo - line.wal.start)));
    lsn = upTo;
  }
  return Buffer.concat(pieces);
}

interface Backup {
  readonly timeline: number;
  readonly lsn: bigint;
}

/** A recovery to a timeline, by default the newest one, as PostgreSQL looks for its files. */
async function recover(archive: Archive, backup: Backup, target: number | null = null) {
  const chunks = new ChunkReader(archive);
  const read = async (name: string): Promise<Buffer | null> => {
    const found = await findFile(chunks, name, files);
    if ('absent' in found) return found.isPassed ? Buffer.alloc(0) : null;
    const pieces: Buffer[] = [];
    for await (const { ref, bytes } of chunks.readInOrder(found.pieces)) {
      pieces.push(Buffer.from(bytes.subarray(0, ref.length)));
    }
    return Buffer.concat(pieces);
  };
  let newest = target ?? backup.timeline;
  while (target === null && (await read(historyName(newest + 1))) !== null) newest++;
  const history = newest === 1 ? null : await read(historyName(newest));
  const ancestors = history ? parseHistory(history) : [];
  const path = [...ancestors.map((each) => each.timeline), newest];
  const beginOf = (timeline: number) => ancestors[path.indexOf(timeline) - 1]?.switchLsn ?? 0n;
  const out: Buffer[] = [];
  let current = 0;
  let end = backup.lsn;
  for (let lsn = backup.lsn; ; lsn += STEP) {
    let bytes: Buffer | null = null;
    for (const timeline of path.toReversed()) {
      if (timeline < current) break;
      const begin = beginOf(timeline);
      if (lsn / STEP < begin / STEP) continue;
      bytes = await read(segmentNameAt(timeline, lsn, SEGMENT_BYTES));
      if (bytes === null) continue;
      current = timeline;
      break;
    }
    if (bytes === null) break;
    out.push(bytes);
    end = lsn + BigInt(bytes.length);
    if (bytes.length < SEGMENT_BYTES) break;
  }
  return { timeline: newest, history, end, bytes: Buffer.concat(out) };
}

/** Along each timeline that was left: all that came before that is there, and nothing of another one. */
async function demandLeft({ archive, living }: World, newest: number): Promise<void> {
  for (const { line, end } of living.lines()) {
    const { wal, history } = line;
    if (wal.timeline >= newest) continue;
    const found = await recover(archive, { timeline: 1, lsn: STEP }, wal.timeline);
    // Of a timeline that the archive passed over the server is told so.
    if ((found.history ?? '').toString() !== (history ?? '')) continue;
    expect([wal.timeline, found.end >= end, found.end, end]).toEqual([wal.timeline, true, found.end, end]);
    const tail = wal.bytes().subarray(Number(end - wal.start), Number(found.end - wal.start));
    expect(found.bytes.equals(Buffer.concat([bytesOf(living, STEP, end), tail]))).toBe(true);
  }
}

test('after any history a recovery by fetch alone ends where the archive does, or fails', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 22 }), async (steps) => {
      const memory = new MemoryStore();
      const world = new World(await createArchive(memory, 'orders', 'postgres'), memory);
      try {
        await world.take({ do: 'ship', at: 0 });
        for (const each of steps) await world.take(each);
        const { position } = await findEnd(world.archive, null);
        // Opened, and nothing of it is there yet: recovery ends as before.
        if (position!.segment.endsWith('.history') && position!.offset === 0) return;
        const { timeline, lsn } = parseId(position!.id);
        let found: Awaited<ReturnType<typeof recover>>;
        try {
          await demandLeft(world, timeline);
          found = await recover(world.archive, { timeline: 1, lsn: STEP });
        } catch (error) {
          expect(error).toBeInstanceOf(ArchiveNotWhole);
          // Only while it goes over to another timeline.
          const begin = world.living.lines().find(({ line }) => line.wal.timeline === timeline)?.line.begin ?? 0n;
          expect([lsn <= begin, String(error)]).toEqual([true, String(error)]);
          return;
        }
        const living = bytesOf(world.living, STEP, found.end);
        expect([found.timeline, found.end]).toEqual([timeline, lsn]);
        expect(found.bytes.equals(living)).toBe(true);
      } finally {
        world.remove();
      }
    }),
    { numRuns: 12 },
  );
}, 120_000);
