import { Readable } from 'node:stream';
import { describe, expect, jest, test } from '@jest/globals';
import { Governor } from '../../src/ship/governor.ts';
import { throttledStore } from '../../src/store/throttled.ts';
import { MemoryStore } from '../fakes/memory-store.ts';

const MIB = 1024 * 1024;
const never = new AbortController().signal;

/** On the timers' simulated clock. */
async function onFakeClock(body: (governor: Governor) => Promise<void>): Promise<void> {
  jest.useFakeTimers({ doNotFake: ['nextTick', 'queueMicrotask'] });
  try {
    await body(new Governor({ nowMs: () => Date.now() }));
  } finally {
    jest.useRealTimers();
  }
}

/** Resolved or not, told now. */
function seen(promise: Promise<unknown>): { done: boolean } {
  const state = { done: false };
  promise.then(
    () => {
      state.done = true;
    },
    () => {},
  );
  return state;
}

describe('a share', () => {
  test('waits until its class may go on', () =>
    onFakeClock(async (governor) => {
      governor.set({ link: MIB, guaranteed: { slow: MIB } });
      const share = governor.of('slow');
      await share.take(2 * MIB, never);
      const next = seen(share.take(1, never));
      await jest.advanceTimersByTimeAsync(1_850);
      expect(next.done).toBe(false);
      await jest.advanceTimersByTimeAsync(100);
      expect(next.done).toBe(true);
    }));

  test('that gives up says why, and those behind it go on without its bytes', () =>
    onFakeClock(async (governor) => {
      governor.set({ link: MIB, guaranteed: {} });
      const share = governor.of('slow');
      await share.take(MIB, never);
      const leaving = new AbortController();
      const left = share.take(100 * MIB, leaving.signal);
      const next = seen(share.take(MIB, never));
      leaving.abort(new Error('the term is over'));
      await expect(left).rejects.toThrow('the term is over');
      await expect(share.take(1, leaving.signal)).rejects.toThrow('the term is over');
      await jest.advanceTimersByTimeAsync(1_000);
      expect(next.done).toBe(true);
      expect(jest.getTimerCount()).toBe(0);
    }));

  test('waits for nothing without limits, and no longer once they are taken away', () =>
    onFakeClock(async (governor) => {
      const share = governor.of('fast');
      for (let n = 0; n < 10; n++) await share.take(100 * MIB, never);
      governor.set({ link: MIB, guaranteed: {} });
      await share.take(100 * MIB, never);
      const next = seen(share.take(1, never));
      await jest.advanceTimersByTimeAsync(10_000);
      expect(next.done).toBe(false);
      governor.set(null);
      await jest.advanceTimersByTimeAsync(0);
      expect(next.done).toBe(true);
    }));

  test('is measured over the last half minute', () =>
    onFakeClock(async (governor) => {
      const share = governor.of('slow');
      for (let second = 0; second < 60; second++) {
        await share.take(second < 30 ? 9 * MIB : MIB, never);
        await jest.advanceTimersByTimeAsync(1_000);
      }
      const [{ name, bytesPerSecond }] = governor.measured() as [{ name: string; bytesPerSecond: number }];
      expect([name, Math.round((bytesPerSecond / MIB) * 10) / 10]).toEqual(['slow', 1]);
      await jest.advanceTimersByTimeAsync(31_000);
      expect(governor.measured()).toEqual([{ name: 'slow', bytesPerSecond: 0 }]);
    }));
});

describe('a throttled store', () => {
  test('sends nothing of a body before it may, and a stream piece by piece', async () => {
    const asked: number[] = [];
    let gate = Promise.withResolvers<void>();
    const store = new MemoryStore();
    const throttled = throttledStore(store, {
      take: (bytes) => {
        asked.push(bytes);
        return gate.promise;
      },
    });
    const whole = throttled.create('whole', Buffer.alloc(1_000), never);
    await new Promise(setImmediate);
    expect([asked, store.keys()]).toEqual([[1_000], []]);
    gate.resolve();
    expect(await whole).toBe('created');

    gate = Promise.withResolvers();
    const streamed = throttled.create('streamed', () => Readable.from([Buffer.alloc(10), Buffer.alloc(20)]), never);
    await new Promise(setImmediate);
    expect(asked).toEqual([1_000, 10]);
    gate.resolve();
    expect(await streamed).toBe('created');
    expect(asked).toEqual([1_000, 10, 20]);
    expect(store.peek('streamed')).toHaveLength(30);
  });

  test('gives a body up, waiting or half sent, with the reason of the abort', async () => {
    const leaving = new AbortController();
    const governor = new Governor({ nowMs: () => performance.now() });
    governor.set({ link: 1024, guaranteed: {} });
    const store = new MemoryStore();
    const throttled = throttledStore(store, governor.of('slow'));
    let closed = false;
    async function* endless() {
      try {
        for (;;) yield Buffer.alloc(1024);
      } finally {
        closed = true;
      }
    }
    const refused = (created: Promise<unknown>) => expect(created).rejects.toThrow('the term is over');
    const streamed = refused(throttled.create('streamed', () => Readable.from(endless()), leaving.signal));
    await new Promise(setImmediate); // its first piece has passed
    const whole = refused(throttled.create('whole', Buffer.alloc(1024), leaving.signal));
    leaving.abort(new Error('the term is over'));
    await Promise.all([streamed, whole]);
    await new Promise(setImmediate);
    expect([store.keys(), closed]).toEqual([[], true]);
  });
});
