import { afterEach, expect, test } from '@jest/globals';
import { orAbort } from '../../src/coordination/abort.ts';
import { ShipmateError } from '../../src/errors.ts';
import type { LogSource } from '../../src/source/source.ts';
import { throttledStore } from '../../src/store/throttled.ts';
import { openFakeSource } from '../fakes/fake-source.ts';
import { Pair, type TwinOptions } from '../helpers/pair.ts';
import { until } from '../helpers/wait.ts';

/** A stream is stuck when only a new start of the daemon helps: whoever kills it for that must be right. */
let pair: Pair;
afterEach(() => pair.stop());

/** A daemon on a clock that the test moves. */
function start(options: (source: LogSource) => TwinOptions = () => ({})) {
  let nowMs = 0;
  pair = new Pair();
  pair.log.append();
  const { shipper } = pair.start('a', { ...options(openFakeSource(pair.log)), monotonicMs: () => nowMs });
  /** Looks twice a minute, for so long; whether it was stuck in the end. */
  const lookFor = (minutes: number): boolean => {
    let isStuck = false;
    for (let look = 0; look < minutes * 2; look++) {
      nowMs += 30_000;
      isStuck = shipper.isStuck();
    }
    return isStuck;
  };
  return { shipper, lookFor };
}

const much = { bytes: 64 << 20, oldestMs: 0 };

test('a master that has much to ship and ships nothing, for no known reason, is stuck after minutes', async () => {
  const take = (_bytes: number, signal: AbortSignal) => orAbort(new Promise<never>(() => {}), signal);
  const { lookFor } = start((source) => ({
    source: { ...source, backlog: async () => much },
    throttled: (store) => throttledStore(store, { take }),
  }));
  await pair.hasRole('a', 'master');
  await until('the backlog was measured', async () => (await pair.twin('a'))?.lagBytes === much.bytes);
  expect(lookFor(4)).toBe(false);
  expect(lookFor(2)).toBe(true);
});

test('one whose server has written only a part of a large event is not: it waits for the rest', async () => {
  const { shipper, lookFor } = start((source) => ({ source: { ...source, backlog: async () => much } }));
  await pair.hasRole('a', 'master');
  const written = pair.log.segments.at(-1)!.bytes.length;
  await until('all that can be read is settled', () => shipper.archiveEnd?.offset === written);
  await until('the backlog was measured', async () => (await pair.twin('a'))?.lagBytes === much.bytes);
  expect(lookFor(600)).toBe(false);
});

test('one that has nothing to ship is not, however long that lasts', async () => {
  const { lookFor } = start();
  await pair.hasRole('a', 'master');
  await pair.shipped();
  await until('the backlog was measured', async () => (await pair.twin('a'))?.lagBytes === 0);
  expect(lookFor(600)).toBe(false);
});

test('one whose log can not be read says so, and is not', async () => {
  const unreadable = new ShipmateError('no such disk', { code: 'SOURCE_UNREADABLE', verdict: 'retry' });
  const { shipper, lookFor } = start((source) => ({
    source: {
      ...source,
      backlog: async () => much,
      read: () => {
        throw unreadable;
      },
    },
  }));
  await until('the trouble is known', () => shipper.standing.trouble.length > 0);
  expect(lookFor(600)).toBe(false);
});

test('one that waits for its archive is not: it tries again and again', async () => {
  const away = new ShipmateError('no answer', { code: 'STORE_DOWN', verdict: 'retry' });
  const { shipper, lookFor } = start(() => ({
    stores: () => {
      throw away;
    },
  }));
  await until('it knows why it waits', () => shipper.isTried);
  expect(shipper.standing).toMatchObject({ role: 'starting', ready: false, reason: 'archive: no answer' });
  expect(lookFor(600)).toBe(false);
});
