import { afterEach, describe, expect, test } from '@jest/globals';
import { readArchive } from '../../src/archive/identity.ts';
import { readChain, readFloor } from '../../src/archive/walk.ts';
import { openBlockPool } from '../../src/codec/blocks.ts';
import { openEncoder } from '../../src/codec/encoder.ts';
import type { Role, TwinStream } from '../../src/coordination/coordination.ts';
import type { Read } from '../../src/core/header.ts';
import { Metrics } from '../../src/metrics.ts';
import { runDaemon } from '../../src/ship/daemon.ts';
import { StreamShipper } from '../../src/ship/stream.ts';
import { Wake } from '../../src/ship/wake.ts';
import { FakeLog } from '../fakes/fake-log.ts';
import { openFakeSource } from '../fakes/fake-source.ts';
import { MemoryHub } from '../fakes/memory-coordination.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { until } from '../helpers/wait.ts';

const STREAM = 'orders';
const request = { by: 'a test', time: '2026-01-01T00:00:00Z' };
const stops: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  await Promise.allSettled(stops.splice(0).map((stop) => stop()));
});

/** Twins in one process: the real role loop over a log, a store and a coordination in memory. */
class Pair {
  readonly log = new FakeLog();
  readonly store = new MemoryStore();
  readonly hub = new MemoryHub();

  start(node: string, { init = true, config = 'same' } = {}) {
    const coordination = this.hub.client(node);
    const memory = new MemoryHub().client(node).archives;
    const changed = new Wake();
    const metrics = new Metrics({ version: 'test', node });
    const said: string[] = [];
    const say = (message: string) => void said.push(message);
    const log = { debug: say, info: say, warn: say, error: say };
    const shipper = new StreamShipper({
      name: STREAM,
      node,
      cluster: 'test',
      source: openFakeSource(this.log),
      store: this.store,
      coordination,
      memory,
      chunk: { maxBytes: 1 << 20, maxDelayMs: 5 },
      pool: openBlockPool({ blockBytes: 1 << 20, maxBytes: 4 << 20 }),
      encoder: openEncoder(),
      metrics: metrics.stream(STREAM),
      log,
      config,
      init,
      force: false,
      onChange: () => changed.nudge(),
    });
    const stopping = new AbortController();
    const done = runDaemon(
      { node, version: 'test', streams: [shipper], coordination, metrics, log, changed },
      stopping.signal,
    );
    done.catch(() => {});
    const stop = async () => {
      stopping.abort(new Error('stopped'));
      await done.finally(() => coordination.close());
    };
    stops.push(stop);
    return { node, coordination, done, stop, said };
  }

  async twin(node: string): Promise<TwinStream | undefined> {
    const twins = await this.hub.client('observer').twins.read();
    return twins.find((twin) => twin.node === node)?.streams[0];
  }

  hasRole = (node: string, role: Role) =>
    until(`${node} is ${role}`, async () => (await this.twin(node))?.role === role, { withinMs: 10_000 });

  isReady = (node: string) =>
    until(`${node} is ready`, async () => (await this.twin(node))?.ready, { withinMs: 10_000 });

  async chain(): Promise<Read[]> {
    const archive = await readArchive(this.store, STREAM);
    const reads: Read[] = [];
    if (archive) await readChain(archive, await readFloor(archive), (_, read) => reads.push(read));
    return reads;
  }

  /** All that the log holds now is in the chain. */
  shipped = () =>
    until(
      'everything is shipped',
      async () => {
        const end = (await this.chain()).findLast(({ header }) => header.kind === 'chunk')?.header;
        const last = this.log.segments.at(-1)!;
        return end?.kind === 'chunk' && end.to.incarnation === last.incarnation && end.to.offset === last.bytes.length;
      },
      { withinMs: 10_000 },
    );

  async openings(): Promise<string[]> {
    return (await this.chain()).flatMap(({ header }) =>
      header.kind === 'opening' ? [`${header.node}: ${header.result}`] : [],
    );
  }
}

describe('the role loop', () => {
  test('a standby takes over where the master left, and the first term is opened by whoever made the archive', async () => {
    const pair = new Pair();
    pair.log.append();
    const a = pair.start('a');
    await pair.hasRole('a', 'master');
    pair.start('b');
    await pair.isReady('b');
    await pair.shipped();
    pair.log.append({ bytes: 5000 });
    await a.stop();
    pair.log.append();
    await pair.hasRole('b', 'master');
    await pair.shipped();
    expect(await pair.openings()).toEqual(['a: start', 'b: resume']);
    expect((await pair.chain())[0]!.header).toMatchObject({ term: 1, slot: 0, kind: 'opening' });
  });

  test('a lost lease deposes the master; nothing of it stands after its seal', async () => {
    const pair = new Pair();
    pair.log.append();
    pair.start('a');
    await pair.hasRole('a', 'master');
    pair.start('b');
    await pair.isReady('b');
    pair.hub.expire('a');
    await pair.hasRole('b', 'master');
    await pair.hasRole('a', 'standby');
    pair.log.append();
    await pair.shipped();
    const chain = await pair.chain();
    const seal = chain.findIndex(({ header }) => header.kind === 'seal');
    expect(chain.slice(seal + 1).map(({ header }) => header.node)).not.toContain('a');
  });

  test('hands over on request, to the node that was asked for, and says no when that is not ready', async () => {
    const pair = new Pair();
    pair.log.append();
    const a = pair.start('a');
    await pair.hasRole('a', 'master');
    const { requests } = a.coordination;
    const refused = await requests.ask(STREAM, { kind: 'handover', ...request }, 5_000);
    expect(refused).toMatchObject({ ok: false, message: expect.stringContaining('no other twin is ready') });
    pair.start('b');
    pair.start('c');
    await Promise.all([pair.isReady('b'), pair.isReady('c')]);
    expect(await requests.ask(STREAM, { kind: 'handover', to: 'c', ...request }, 5_000)).toMatchObject({ ok: true });
    await pair.hasRole('c', 'master');
    expect(await pair.openings()).toEqual(['a: start', 'c: resume']);
  });

  test('rule 8: a log that shrank, or was started again, ends the term; the next opening says so', async () => {
    const pair = new Pair();
    for (let n = 0; n < 20; n++) pair.log.append();
    pair.start('a');
    await pair.hasRole('a', 'master');
    await pair.shipped();
    pair.log.append();
    await pair.shipped();
    pair.log.truncate(50);
    pair.log.append();
    await pair.shipped();
    pair.log.reset();
    pair.log.append();
    await pair.shipped();
    expect(await pair.openings()).toEqual(['a: start', 'a: truncate', 'a: reset']);
  });

  test('a gap stops every twin, is told, and is crossed only when an operator accepts this one', async () => {
    const pair = new Pair();
    pair.log.append();
    const first = pair.start('a');
    await pair.hasRole('a', 'master');
    await pair.shipped();
    await first.stop();
    pair.log.append();
    pair.log.rotate();
    pair.log.append();
    pair.log.rotate();
    pair.log.purge(1);
    const a = pair.start('a');
    await until('a reports the gap', async () => (await pair.twin('a'))?.reason.startsWith('gap'));
    expect(await pair.twin('a')).toMatchObject({ ready: false, role: 'standby' });
    const { requests, cursors } = a.coordination;
    const stale = await requests.ask(STREAM, { kind: 'accept-gap', head: 'another', ...request }, 5_000);
    expect(stale).toMatchObject({ ok: false });
    const head = (await cursors.load(STREAM))!.digest;
    expect(await requests.ask(STREAM, { kind: 'accept-gap', head, ...request }, 10_000)).toMatchObject({ ok: true });
    await pair.shipped();
    const opening = (await pair.chain()).findLast(({ header }) => header.kind === 'opening')!.header;
    expect(opening).toMatchObject({ result: 'gap', evidence: { accepted: { by: 'a test' } } });
  });

  test('a twin whose config ships elsewhere refuses to start', async () => {
    const pair = new Pair();
    pair.log.append();
    pair.start('a');
    await pair.hasRole('a', 'master');
    const b = pair.start('b', { config: 'other' });
    await expect(b.done).rejects.toThrow('differs from those of node a');
  });

  test('without --init nothing is created; an archive that vanished is not begun again', async () => {
    const pair = new Pair();
    pair.log.append();
    await expect(pair.start('a', { init: false }).done).rejects.toThrow('holds no archive');
    const b = pair.start('b');
    await pair.hasRole('b', 'master');
    await b.stop();
    await pair.store.delete(pair.store.keys());
    await expect(pair.start('c').done).rejects.toThrow('is not in store');
    expect(pair.store.keys()).toEqual([]);
  });

  test('an etcd that was wiped under running daemons learns the archive again, and nothing forks', async () => {
    const pair = new Pair();
    pair.log.append();
    pair.start('a');
    pair.start('b');
    await pair.shipped();
    pair.hub.wipe();
    pair.log.append();
    await pair.shipped();
    const { archives } = pair.hub.client('observer');
    await until('the id is there again', async () => (await archives.load(STREAM))?.state === 'created');
  });
});
