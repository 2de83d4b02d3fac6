import { afterEach, expect, test } from '@jest/globals';
import { orAbort } from '../../src/coordination/abort.ts';
import type { ObjectStore } from '../../src/store/store.ts';
import { throttledStore } from '../../src/store/throttled.ts';
import { Pair } from '../helpers/pair.ts';
import { until } from '../helpers/wait.ts';

const pair = new Pair();
afterEach(() => pair.stop());

test('while not one chunk may be sent, terms are opened, sealed and handed over all the same', async () => {
  const gate = Promise.withResolvers<void>();
  let asked = 0;
  const take = (_bytes: number, signal: AbortSignal) => {
    asked++;
    return orAbort(gate.promise, signal);
  };
  const throttled = (store: ObjectStore) => throttledStore(store, { take });
  pair.log.append();
  const a = pair.start('a', { throttled });
  await pair.hasRole('a', 'master');
  await until('a chunk waits', () => asked > 0);
  pair.start('b', { throttled });
  await pair.isReady('b');
  await a.stop();
  await pair.hasRole('b', 'master');
  await until('its chunk waits too', () => asked > 1);
  expect(await pair.openings()).toEqual(['a: start', 'b: resume']);
  expect((await pair.chain()).map(({ header }) => header.kind)).toEqual(['opening', 'seal', 'opening']);

  gate.resolve();
  await pair.shipped();
});
