import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { Coordination, Cursor, OperatorRequest, Twin } from '../../src/coordination/coordination.ts';
import type { Override } from '../../src/core/limits.ts';
import { Deposed } from '../../src/errors.ts';

export interface Cluster {
  /** A daemon, or a command beside it, on the cluster that the test began with. */
  open(node: string): Promise<Coordination>;
  stop(): Promise<void>;
}

export interface ContractOptions {
  readonly start: () => Promise<Cluster>;
  /** Whether several daemons can be there at once. */
  readonly twins: boolean;
}

export const cursorAt = (slot: number, stream = 'orders'): Cursor => ({
  archive: 'archive-1',
  stream,
  term: 1,
  slot,
  digest: `digest-${slot}`,
  position: { origin: 'mariadb-1', incarnation: 'i', segment: 'binlog.000001', offset: slot * 10, id: `0-1-${slot}` },
  time: '2026-11-01T00:00:00.000Z',
});

export const twinOf = (node: string, role: Twin['streams'][number]['role'] = 'standby'): Twin => ({
  node,
  version: '0.1.0',
  format: 1,
  time: '2026-11-01T00:00:00.000Z',
  streams: [{ name: 'orders', role, ready: true, reason: 'resume', lagBytes: 0, lagSeconds: null, config: 'c' }],
});

const LIMIT: Override = {
  id: 'one',
  change: { link: 1_000_000, shipping: 0.25, classes: { slow: 1_000 } },
  fromMs: 5,
  untilMs: null,
  by: 'dba',
  placedMs: 5,
};
const HANDOVER: OperatorRequest = { kind: 'handover', to: 'b', by: 'dba', time: '2026-11-01T00:00:00.000Z' };
const never = new AbortController().signal;

/** What everything that goes by `Coordination` must do. */
export function describeCoordination(name: string, { start, twins }: ContractOptions): void {
  const testWithTwins = twins ? test : () => {};

  describe(`the coordination contract: ${name}`, () => {
    let cluster: Cluster;
    let opened: Coordination[];
    const open = async (node: string) => {
      const coordination = await cluster.open(node);
      opened.push(coordination);
      return coordination;
    };

    beforeEach(async () => {
      opened = [];
      cluster = await start();
    });
    afterEach(async () => {
      for (const coordination of opened) await coordination.close();
      await cluster.stop();
    });

    describe('election', () => {
      test('a lone candidate is elected, and its lease runs', async () => {
        const a = await open('a');
        const leadership = await a.elector('orders').campaign(never);
        expect(leadership.revision).toBeGreaterThan(0n);
        expect(leadership.remainingMs()).toBeGreaterThan(0);
        expect(leadership.confirmed()).toBe(true);
        expect(leadership.signal.aborted).toBe(false);
      });

      test('one leadership of a stream at a time, the later with the higher revision', async () => {
        const a = await open('a');
        const one = await a.elector('orders').campaign(never);
        const other = watched(a.elector('orders').campaign(never));
        const billing = await a.elector('billing').campaign(never);
        expect(billing.confirmed()).toBe(true);
        expect(other.settled).toBe(false);

        await one.resign();
        const two = await other.promise;
        expect(two.revision).toBeGreaterThan(one.revision);
        expect(two.confirmed()).toBe(true);
      });

      test('who resigned leads no more, and may say so twice', async () => {
        const a = await open('a');
        const leadership = await a.elector('orders').campaign(never);
        await leadership.resign();
        await leadership.resign();
        expect(leadership.confirmed()).toBe(false);
        expect(leadership.signal.reason).toBeInstanceOf(Deposed);
        await expect(a.cursors.save(cursorAt(1), leadership)).rejects.toThrow(Deposed);
        expect(await a.cursors.load('orders')).toBeNull();
      });

      test('an aborted campaign leaves the queue with the reason of the abort', async () => {
        const a = await open('a');
        const one = await a.elector('orders').campaign(never);
        const giveUp = new AbortController();
        const campaign = a.elector('orders').campaign(giveUp.signal);
        giveUp.abort(new Error('not ready any more'));
        await expect(campaign).rejects.toThrow('not ready any more');
        await expect(a.elector('orders').campaign(giveUp.signal)).rejects.toThrow('not ready any more');

        await one.resign();
        const next = await a.elector('orders').campaign(never);
        expect(next.confirmed()).toBe(true);
      });

      testWithTwins('twins lead in the order of their arrival; who leaves the queue holds up nobody', async () => {
        const [a, b, c] = [await open('a'), await open('b'), await open('c')];
        const first = await a.elector('orders').campaign(never);
        const giveUp = new AbortController();
        const second = b.elector('orders').campaign(giveUp.signal);
        await delay(100); // so that b's key is there before c's
        const third = watched(c.elector('orders').campaign(never));

        giveUp.abort(new Error('not ready any more'));
        await expect(second).rejects.toThrow('not ready any more');
        expect(third.settled).toBe(false);
        await first.resign();
        const leadership = await third.promise;
        expect(leadership.revision).toBeGreaterThan(first.revision);
        expect((await a.overview()).streams).toMatchObject([{ name: 'orders', master: 'c' }]);
      });

      testWithTwins('a daemon that closes hands over at once', async () => {
        const [a, b] = [await open('a'), await open('b')];
        const leadership = await a.elector('orders').campaign(never);
        const next = watched(b.elector('orders').campaign(never));
        await a.close();
        expect((await next.promise).confirmed()).toBe(true);
        expect(leadership.signal.aborted).toBe(true);
      });
    });

    describe('cursors', () => {
      test('the master saves, everybody loads', async () => {
        const [a, visitor] = [await open('a'), await open('visitor')];
        expect(await visitor.cursors.load('orders')).toBeNull();
        const leadership = await a.elector('orders').campaign(never);
        await a.cursors.save(cursorAt(1), leadership);
        await a.cursors.save(cursorAt(2), leadership);
        expect(await visitor.cursors.load('orders')).toEqual(cursorAt(2));
        expect(await visitor.cursors.load('billing')).toBeNull();
      });

      test('a cursor that is forgotten is gone', async () => {
        const a = await open('a');
        const leadership = await a.elector('orders').campaign(never);
        await a.cursors.save(cursorAt(1), leadership);
        await a.cursors.forget('orders');
        await a.cursors.forget('billing');
        expect(await a.cursors.load('orders')).toBeNull();
        await a.cursors.save(cursorAt(2), leadership);
        expect(await a.cursors.load('orders')).toEqual(cursorAt(2));
      });

      test('a watch gives the present cursor, then the newest, until its signal', async () => {
        const [a, visitor] = [await open('a'), await open('visitor')];
        const leadership = await a.elector('orders').campaign(never);
        await a.cursors.save(cursorAt(1), leadership);
        const stop = new AbortController();
        const seen: number[] = [];
        for await (const cursor of visitor.cursors.watch('orders', stop.signal)) {
          seen.push(cursor.slot);
          if (cursor.slot === 1) {
            for (const slot of [2, 3, 4]) await a.cursors.save(cursorAt(slot), leadership);
          }
          if (cursor.slot === 4) stop.abort();
        }
        expect(seen[0]).toBe(1);
        expect(seen.at(-1)).toBe(4);
        expect(seen).toEqual([...seen].sort());
      });

      testWithTwins('a leadership that was followed by another saves nothing', async () => {
        const [a, b] = [await open('a'), await open('b')];
        const old = await a.elector('orders').campaign(never);
        await old.resign();
        const present = await b.elector('orders').campaign(never);
        await b.cursors.save(cursorAt(2), present);
        const again = a.elector('orders').campaign(never);
        await expect(a.cursors.save(cursorAt(1), old)).rejects.toThrow(Deposed);
        expect(await a.cursors.load('orders')).toEqual(cursorAt(2));
        await present.resign();
        await expect(a.cursors.save(cursorAt(1), old)).rejects.toThrow(Deposed);
        await a.cursors.save(cursorAt(3), await again);
        expect(await b.cursors.load('orders')).toEqual(cursorAt(3));
      });
    });

    test('of archive ids proposed at once one is remembered, and confirming has the last word', async () => {
      const [a, b] = [await open('a'), await open('b')];
      expect(await a.archives.load('orders')).toBeNull();
      const proposals = ['one', 'two', 'three', 'four'].map((id, n) => (n % 2 ? a : b).archives.propose('orders', id));
      const remembered = await Promise.all(proposals);
      expect(new Set(remembered.map(({ id }) => id)).size).toBe(1);
      expect(await b.archives.load('orders')).toEqual({ id: remembered[0]!.id, state: 'proposed' });

      await a.archives.confirm('orders', 'adopted');
      expect(await b.archives.propose('orders', 'late')).toEqual({ id: 'adopted', state: 'created' });
      expect(await b.archives.load('billing')).toBeNull();
    });

    test('of secrets offered at once one is kept, for good', async () => {
      const [a, b] = [await open('a'), await open('b')];
      expect(await a.archives.secret('orders')).toBeNull();
      const offers = ['1', '2', '3', '4'].map((digit, n) =>
        (n % 2 ? a : b).archives.keepSecret('orders', digit.repeat(64)),
      );
      const [kept, ...others] = await Promise.all(offers);
      expect(new Set(others)).toEqual(new Set([kept]));
      expect(await a.archives.keepSecret('orders', '5'.repeat(64))).toBe(kept);
      expect(await b.archives.secret('orders')).toBe(kept);
      expect(await b.archives.secret('billing')).toBeNull();
      expect((await a.overview()).streams.map(({ name }) => name)).not.toContain('billing');
    });

    test('of promotions the one with the highest generation is remembered, by everybody', async () => {
      const [a, b] = [await open('a'), await open('b')];
      expect(await a.archives.generation('orders')).toBeNull();
      const first = { archive: 'one', generation: 1, store: 'nas' };
      expect(await a.archives.raise('orders', first)).toEqual(first);
      expect(await b.archives.raise('orders', { ...first, store: 'late' })).toEqual(first);
      expect(await b.archives.generation('orders')).toEqual(first);
      expect(await b.archives.raise('orders', { ...first, generation: 3 })).toMatchObject({ generation: 3 });
      expect(await a.archives.raise('orders', { ...first, generation: 2 })).toMatchObject({ generation: 3 });
      expect(await a.archives.generation('orders')).toEqual({ ...first, generation: 3 });
      expect(await a.archives.generation('billing')).toBeNull();
      const adopted = { archive: 'another', generation: 1, store: 'nas' };
      expect(await a.archives.raise('orders', adopted)).toEqual(adopted);
    });

    test('a promotion has one winner, and voids the cursor of the chain before it', async () => {
      const [a, visitor] = [await open('a'), await open('visitor')];
      const leadership = await a.elector('orders').campaign(never);
      await a.cursors.save(cursorAt(1), leadership);
      const rivals = ['nas', 'far'].map((store) =>
        visitor.archives.raise('orders', { archive: 'archive-1', generation: 1, store }),
      );
      const remembered = await Promise.all(rivals);
      expect(new Set(remembered.map(({ store }) => store)).size).toBe(1);
      expect((await visitor.overview()).streams).toMatchObject([{ cursor: null, promotion: remembered[0] }]);
      await a.cursors.save({ ...cursorAt(2), generation: 1 }, leadership);
      expect((await visitor.overview()).streams).toMatchObject([{ cursor: { slot: 2, generation: 1 } }]);
    });

    describe('twins', () => {
      test('what a daemon publishes is seen, the newest only, until the daemon is gone', async () => {
        const [a, visitor] = [await open('a'), await open('visitor')];
        expect(await visitor.twins.read()).toEqual([]);
        await Promise.all([a.twins.publish(twinOf('a')), a.twins.publish(twinOf('a', 'master'))]);
        expect(await visitor.twins.read()).toEqual([twinOf('a', 'master')]);
        await a.close();
        expect(await visitor.twins.read()).toEqual([]);
      });

      testWithTwins('each has its own entry', async () => {
        const [a, b] = [await open('a'), await open('b')];
        await a.twins.publish(twinOf('a'));
        await b.twins.publish(twinOf('b'));
        expect((await a.twins.read()).map(({ node }) => node)).toEqual(['a', 'b']);
      });
    });

    describe('requests', () => {
      test('a request reaches the daemon once, and its answer the asker', async () => {
        const [a, visitor] = [await open('a'), await open('visitor')];
        const stop = new AbortController();
        const seen: OperatorRequest[] = [];
        const served = (async () => {
          for await (const pending of a.requests.watch('orders', stop.signal)) {
            seen.push(pending.request);
            await a.requests.answer(pending, { ok: true, message: 'b leads now' });
            await a.requests.answer(pending, { ok: false, message: 'too late to change that' });
          }
        })();
        expect(await visitor.requests.ask('orders', HANDOVER, 10_000)).toEqual({ ok: true, message: 'b leads now' });
        const accept: OperatorRequest = { kind: 'accept-gap', head: 'digest', by: 'dba', time: 't' };
        expect((await visitor.requests.ask('orders', accept, 10_000))?.ok).toBe(true);
        expect(seen).toEqual([HANDOVER, accept]);
        stop.abort();
        await served;
      });

      test('one placed before anybody watches is found; one that nobody answers is withdrawn', async () => {
        const [a, visitor] = [await open('a'), await open('visitor')];
        const asked = visitor.requests.ask('orders', HANDOVER, 10_000);
        for await (const pending of a.requests.watch('orders', never)) {
          expect(pending.request).toEqual(HANDOVER);
          await a.requests.answer(pending, { ok: false, message: 'no' });
          break;
        }
        expect(await asked).toEqual({ ok: false, message: 'no' });

        expect(await visitor.requests.ask('orders', HANDOVER, 50)).toBeNull();
        const brief = AbortSignal.timeout(150);
        for await (const pending of a.requests.watch('orders', brief)) throw new Error(`${pending.key} lingers`);
      });
    });

    test('what operators change of the limits is listed, and every daemon hears of it, until it is taken back', async () => {
      const [a, visitor] = [await open('a'), await open('visitor')];
      expect(await visitor.limits.list()).toEqual([]);
      const stop = new AbortController();
      const heard: string[][] = [];
      for await (const overrides of a.limits.watch(stop.signal)) {
        heard.push(overrides.map(({ id }) => id).sort());
        if (heard.length === 1) await visitor.limits.add(LIMIT);
        if (heard.length === 2) await visitor.limits.add({ ...LIMIT, id: 'two', node: 'a', untilMs: 9 });
        if (heard.length === 3) {
          const listed = await a.limits.list();
          expect(listed.toSorted((x, y) => (x.id < y.id ? -1 : 1))).toEqual([
            LIMIT,
            { ...LIMIT, id: 'two', node: 'a', untilMs: 9 },
          ]);
          await visitor.limits.remove(['one', 'absent']);
        }
        if (heard.length === 4) stop.abort();
      }
      expect(heard).toEqual([[], ['one'], ['one', 'two'], ['two']]);
      expect((await a.overview()).streams).toEqual([]);
    });

    test('the overview shows streams, masters, cursors and twins', async () => {
      const [a, visitor] = [await open('a'), await open('visitor')];
      expect(await visitor.overview()).toEqual({ streams: [], twins: [] });
      const leadership = await a.elector('orders').campaign(never);
      await a.cursors.save(cursorAt(7), leadership);
      await a.archives.propose('billing', 'archive-2');
      await a.twins.publish(twinOf('a', 'master'));
      const { streams, twins: seen } = await visitor.overview();
      expect([...streams].sort((x, y) => x.name.localeCompare(y.name))).toEqual([
        { name: 'billing', master: null, cursor: null },
        { name: 'orders', master: 'a', cursor: cursorAt(7) },
      ]);
      expect(seen).toEqual([twinOf('a', 'master')]);
      expect(a.health().reachable).toBe(true);

      await leadership.resign();
      expect((await visitor.overview()).streams.find(({ name: stream }) => stream === 'orders')?.master).toBeNull();
    });
  });
}

/** A promise and whether it has settled. */
function watched<T>(promise: Promise<T>): { promise: Promise<T>; readonly settled: boolean } {
  const state = { promise, settled: false };
  promise.then(
    () => {
      state.settled = true;
    },
    () => {
      state.settled = true;
    },
  );
  return state;
}
