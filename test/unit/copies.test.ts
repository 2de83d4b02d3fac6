import { afterEach, describe, expect, test } from '@jest/globals';
import { placeKey } from '../../src/core/keys.ts';
import type { Position } from '../../src/core/position.ts';
import { statusReport } from '../../src/core/status.ts';
import { openFakeSource } from '../fakes/fake-source.ts';
import { FaultyStore, Gate } from '../fakes/faulty-store.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { Pair, STREAM } from '../helpers/pair.ts';
import { until } from '../helpers/wait.ts';

const pairs: Pair[] = [];
afterEach(async () => {
  await Promise.all(pairs.splice(0).map((pair) => pair.stop()));
});

/** Twins in one process whose plan has the copies `near` and `far`. */
class Plan {
  readonly pair = new Pair();
  readonly copies = { near: new MemoryStore('near'), far: new MemoryStore('far') };
  readonly near = new FaultyStore(this.copies.near);
  readonly acknowledged = new Map<string, Position>();
  /** In `far`; null: without bound. */
  readonly #room: number | null;

  constructor(room: number | null = null) {
    this.#room = room;
    pairs.push(this.pair);
    this.pair.log.append();
  }

  start(node: string, plan: { ack?: number; count?: number; delayMs?: number } = {}) {
    const source = openFakeSource(this.pair.log);
    return this.pair.start(node, {
      plan: { primary: 'memory', copies: ['far', 'near'], ...plan },
      stores: (name) => (name === 'near' ? this.near : name === 'far' ? this.#far() : this.pair.store),
      source: {
        ...source,
        acknowledge: async (upTo) => {
          this.acknowledged.set(node, upTo);
        },
      },
    });
  }

  #far() {
    const room = this.#room;
    const capacity = async () => (room === null ? null : { freeBytes: room, totalBytes: room });
    return new Proxy(this.copies.far, {
      get: (store, name) => {
        const value = name === 'capacity' ? capacity : Reflect.get(store, name);
        return typeof value === 'function' ? value.bind(store) : value;
      },
    });
  }

  /** Up to where the log goes that is in the primary. */
  async offset(): Promise<number> {
    const chunk = (await this.pair.chain()).findLast(({ header }) => header.kind === 'chunk')?.header;
    return chunk?.kind === 'chunk' ? chunk.to.offset : 0;
  }

  acknowledges = (node: string) =>
    until(`${node} acknowledges all`, async () => this.acknowledged.get(node)?.offset === (await this.offset()), {
      withinMs: 15_000,
      describe: () => JSON.stringify([...this.acknowledged]),
    });

  isSame = (copy: 'near' | 'far') =>
    until(
      `${copy} is the same`,
      () => {
        const [memory, keys] = [this.pair.store, this.pair.store.keys(`${STREAM}/terms/`)];
        return keys.every(
          (key) => this.copies[copy].keys(key).length > 0 && this.copies[copy].peek(key).equals(memory.peek(key)),
        );
      },
      { withinMs: 15_000 },
    );

  async stores(node: string) {
    return (await this.pair.twin(node))?.stores ?? [];
  }
}

describe('ack: 2', () => {
  test('holds back what both twins let go of while no copy has it, and never the primary', async () => {
    const plan = new Plan();
    const gate = new Gate();
    plan.near.faults = (operation) => (operation === 'create' ? { kind: 'delay', until: gate.opened } : undefined);
    plan.start('a', { ack: 2, count: 1 });
    await plan.pair.hasRole('a', 'master');
    plan.start('b', { ack: 2, count: 1 });
    await plan.pair.isReady('b');
    // With room in neither told, the first by name is chosen: it is not the one that hangs.
    await plan.isSame('far');
    await plan.acknowledges('a');
    await plan.acknowledges('b');
  });

  test('nothing is acknowledged while every copy hangs; the log is shipped on; a new master goes by it too', async () => {
    const plan = new Plan();
    let away = true;
    plan.near.faults = () => (away ? { kind: 'before' } : undefined);
    plan.copies.far.overwrite(placeKey(STREAM, { term: 1, slot: 0 }), Buffer.from('another archive'));
    plan.start('a', { ack: 2 });
    await plan.pair.hasRole('a', 'master');
    plan.start('b', { ack: 2 });
    await plan.pair.isReady('b');
    for (let n = 0; n < 3; n++) {
      plan.pair.log.append({ bytes: 2_000 });
      await plan.pair.shipped();
    }
    await until('the copies are known to fail', async () => {
      const states = (await plan.stores('a')).map(({ name, state }) => `${name} ${state}`);
      return states.join() === 'far diverged,near failing';
    });
    expect([...plan.acknowledged]).toEqual([]);
    plan.pair.hub.expire('a');
    await plan.pair.hasRole('b', 'master');
    await plan.pair.isReady('a');
    plan.pair.log.append({ bytes: 2_000 });
    await plan.pair.shipped();
    expect([...plan.acknowledged]).toEqual([]);
    away = false;
    await plan.isSame('near');
    await plan.acknowledges('b');
    await plan.acknowledges('a');
  });
});

test('a plan without ack: the source is acknowledged whatever becomes of the copies, and the status tells of them', async () => {
  const plan = new Plan();
  plan.near.faults = (operation) => (operation === 'create' ? { kind: 'full' } : undefined);
  const a = plan.start('a');
  await plan.pair.hasRole('a', 'master');
  plan.pair.log.append({ bytes: 5_000 });
  await plan.pair.shipped();
  await plan.acknowledges('a');
  await plan.isSame('far');
  await until('near is known to be full', async () =>
    (await plan.stores('a')).some(({ name, state }) => name === 'near' && state === 'failing'),
  );
  await until('far is told to have all', async () => (await plan.stores('a'))[0]?.lagBytes === 0);
  const metrics = await a.metrics.text();
  expect(metrics).toContain(`shipmate_copy_state{stream="${STREAM}",store="near",state="failing",cluster="test"} 1`);
  expect(metrics).toContain(`shipmate_alarm{stream="${STREAM}",alarm="copy-failing",cluster="test"} 1`);
  expect(metrics).toContain(`shipmate_copy_lag_bytes{stream="${STREAM}",store="far",cluster="test"} 0`);
  const report = statusReport(await a.coordination.overview(), {
    cluster: 'test',
    stores: { [STREAM]: ['memory', 'far', 'near'] },
  });
  expect(report.streams[0]!.stores).toMatchObject([
    { name: 'memory', lagBytes: 0 },
    { name: 'far', state: 'ok', lagBytes: 0, delaySeconds: 0 },
    { name: 'near', state: 'failing', reason: expect.stringContaining('no space') },
  ]);
  plan.near.faults = () => undefined;
  await plan.isSame('near');
  await until('it is over', async () => (await plan.stores('a')).every(({ state }) => state === 'ok'));
});

test('with fewer copies than stores, the one with the most room is chosen, and the one that holds the archive stays', async () => {
  const plan = new Plan(100);
  const a = plan.start('a', { count: 1 });
  await plan.pair.hasRole('a', 'master');
  plan.pair.log.append({ bytes: 5_000 });
  await plan.isSame('near');
  expect((await plan.stores('a')).map(({ name }) => name)).toEqual(['near']);
  expect(plan.copies.far.keys()).toEqual([]);
  plan.start('b', { count: 1 });
  await plan.pair.isReady('b');
  await a.stop();
  await plan.pair.hasRole('b', 'master');
  plan.pair.log.append({ bytes: 5_000 });
  await plan.pair.shipped();
  await plan.isSame('near');
  expect(plan.copies.far.keys()).toEqual([]);
});
