import { afterEach, expect, jest, test } from '@jest/globals';
import { orAbort } from '../../src/coordination/abort.ts';
import { ShipmateError } from '../../src/errors.ts';
import { openFakeSource } from '../fakes/fake-source.ts';
import { Pair } from '../helpers/pair.ts';
import { until } from '../helpers/wait.ts';

let pair: Pair;
afterEach(async () => {
  jest.useRealTimers();
  await pair.stop();
});

/** A master whose log could not be read, and gives nothing since: so many bytes of it are not read. Moves time. */
async function afterTrouble(unreadBytes: number): Promise<string[]> {
  jest.useFakeTimers({
    doNotFake: ['nextTick', 'queueMicrotask', 'setImmediate', 'setInterval', 'Date', 'performance'],
  });
  pair = new Pair();
  pair.log.append();
  let reads = 0;
  const source = {
    ...openFakeSource(pair.log),
    backlog: async () => ({ bytes: unreadBytes, oldestMs: null }),
    async *read(_from: unknown, signal: AbortSignal) {
      if (++reads === 1) throw new ShipmateError('no such disk', { code: 'SOURCE_UNREADABLE', verdict: 'retry' });
      yield await orAbort(new Promise<never>(() => {}), signal);
    },
  };
  const { shipper } = pair.start('a', { source });
  await until('it reads again', () => reads > 1);
  expect(shipper.standing.trouble).toEqual(['source: no such disk']);
  await jest.advanceTimersByTimeAsync(15_000);
  return [...shipper.standing.trouble];
}

test('a log that was read to its end, and gives nothing more, works', async () => {
  expect(await afterTrouble(0)).toEqual([]);
});

test('one that gives nothing though there is more hangs: its trouble stays', async () => {
  expect(await afterTrouble(1)).toEqual(['source: no such disk']);
});
