import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { headOf } from '../../src/archive/head.ts';
import { planPrune, prune } from '../../src/archive/prune.ts';
import { planRepair, repair } from '../../src/archive/repair.ts';
import { type Archive, findEnd } from '../../src/archive/walk.ts';
import { comparePlaces } from '../../src/core/keys.ts';
import { ChunkReader } from '../../src/restore/chunks.ts';
import { findFile } from '../../src/restore/fetch-find.ts';
import { planRestore } from '../../src/restore/plan.ts';
import { silent } from '../../src/restore/progress.ts';
import { demandArchive } from '../../src/restore/reading.ts';
import { restore } from '../../src/restore/restore.ts';
import { Copier } from '../../src/ship/copier.ts';
import { postgresFormat } from '../../src/source/postgres/format.ts';
import { walFiles } from '../../src/source/postgres/wal-files.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { createArchive, shipTerm } from '../helpers/shipped-archive.ts';
import { WalServer } from '../helpers/wal-servers.ts';

const format = postgresFormat();
const isCompanion = (segment: string) => format.companion?.(segment) === segment;
const signal = new AbortController().signal;

/** A copy that begins after the prune. */
async function copied(archive: Archive, store: MemoryStore): Promise<MemoryStore> {
  const end = await findEnd(archive, null);
  const done = new AbortController();
  const log = { debug() {}, info() {}, warn() {}, error() {} };
  const copier = new Copier({
    ...{ archive, store, delayMs: 0, log, nowMs: Date.now, end: () => end, onState() {} },
    onHeld: (held) => held && comparePlaces(held, end) === 0 && done.abort(new Error('it holds all')),
  });
  await expect(copier.run(done.signal)).rejects.toThrow('it holds all');
  return store;
}

test('a timeline’s history outlives the prune of its beginning: restore, fetch and take-over go on from the floor', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'shipmate-retention-'));
  const primary = WalServer.primary();
  const servers = [primary];
  try {
    const memory = new MemoryStore('main');
    const archive = await createArchive(memory, 'orders', 'postgres');
    const ship = async (server: WalServer) => {
      const source = server.open({ maxSliceBytes: 50_000 });
      await shipTerm(archive, source, { maxChunkBytes: 50_000 }).finally(() => source.close());
    };
    const write = (server: WalServer) => {
      for (let n = 0; n < 4; n++) {
        server.transaction({ bytes: 300_000 });
        server.switchLog();
      }
      server.transaction({ bytes: 100_000 });
    };
    write(primary);
    await ship(primary);
    const standby = primary.standby();
    servers.push(standby);
    standby.promote();
    write(standby);
    await ship(standby);

    const plan = await planPrune(archive, { keep: { segments: 2 }, now: () => new Date(), isCompanion }, []);
    expect(plan.floor.position?.segment.startsWith('00000002')).toBe(true);
    const { objects } = await prune(archive, plan, { isCompanion, signal });
    expect(objects).toBeGreaterThan(5);

    const nas = new MemoryStore('nas');
    const repairing = { from: archive, to: nas, isCompanion, signal };
    await repair(await planRepair(repairing), repairing);
    const late = await copied(archive, new MemoryStore('late'));
    for (const each of [archive, await demandArchive(nas, 'orders'), await demandArchive(late, 'orders')]) {
      const chunks = new ChunkReader(each);
      const until = { kind: 'latest' } as const;
      const planned = await planRestore({ chunks, format, until, afterGap: false, progress: silent });
      const directory = join(dir, each.store.name);
      await restore(planned, { chunks, format, directory, progress: silent });
      const names = (await readdir(directory)).filter((name) => /^[0-9A-F]{8}/.test(name));
      const [history, ...segments] = names.sort(
        (a, b) => Number(b.endsWith('history')) - Number(a.endsWith('history')),
      );
      expect(history).toBe('00000002.history');
      const there = standby.contents();
      for (const name of segments) {
        const bytes = there.get(name)!;
        expect((await readFile(join(directory, name))).subarray(0, bytes.length).equals(bytes)).toBe(true);
      }
      expect(await findFile(chunks, '00000002.history', walFiles())).toMatchObject({ name: '00000002.history' });
      for (const name of segments) expect(await findFile(chunks, name, walFiles())).toHaveProperty('pieces');
      // Deleted is not "not in the archive": that would end recovery.
      const deleted = [...there.keys()].filter((name) => !segments.includes(name) && !name.endsWith('history'));
      expect(deleted.length).toBeGreaterThan(3);
      for (const name of deleted) {
        await expect(findFile(chunks, name, walFiles())).rejects.toMatchObject({ code: 'PRUNED' });
      }
    }

    const source = standby.open();
    const located = await source.locate(await headOf(archive, await findEnd(archive, null)));
    await source.close();
    expect(located).toMatchObject({ result: 'resume', allowed: true });
    write(standby);
    await ship(standby);
  } finally {
    for (const server of servers) server.remove();
    await rm(dir, { recursive: true });
  }
});
