import { afterEach, expect, test } from '@jest/globals';
import { within } from '../../src/archive/retry.ts';
import { ShipmateError } from '../../src/errors.ts';
import { openFakeSource } from '../fakes/fake-source.ts';
import { but, Pair, STREAM } from '../helpers/pair.ts';
import { until } from '../helpers/wait.ts';

/** A stream that is told to leave, as by a reloaded config, must be gone, or seen as stopped. */
let pair: Pair;
afterEach(() => pair.stop());

const long = { withinMs: 30_000 };

test('one that leaves too late stays as stopped until it is told again', async () => {
  pair = new Pair();
  pair.log.append();
  const { promise: answered, resolve: answer } = Promise.withResolvers<void>();
  const coordination = but((own) => ({
    elector: (stream) => ({
      async campaign(signal) {
        const leadership = await own.elector(stream).campaign(signal);
        return Object.assign(leadership, { resign: () => answered });
      },
    }),
  }));
  const { streams, shipper } = pair.start('a', { coordination });
  await pair.hasRole('a', 'master');
  expect(streams.stopped()).toEqual([]);
  await expect(streams.leave(STREAM, { withinMs: 50 })).rejects.toThrow('no answer');
  expect(streams.stopped()).toEqual([STREAM]);
  answer();
  await until('it has left', () => shipper.standing.role === 'stopped');
  expect(streams.stopped()).toEqual([STREAM]);
  expect(shipper.notReady()).toEqual([expect.stringContaining('has stopped')]);
  await streams.leave(STREAM, long);
  expect(streams.shippers).toEqual([]);
});

test('a source that hangs while it is inspected holds nobody up', async () => {
  pair = new Pair();
  pair.log.append();
  let inspections = 0;
  const source = {
    ...openFakeSource(pair.log),
    inspect: () => {
      inspections++;
      return new Promise<never>(() => {});
    },
  };
  const { streams } = pair.start('a', { source });
  await pair.hasRole('a', 'master');
  expect(inspections).toBe(1);
  await within(20_000, streams.leave(STREAM, long));
});

test('one that has failed, and is taken out, shows its numbers no more', async () => {
  pair = new Pair();
  const refused = new ShipmateError('no right to it', { code: 'STORE_REFUSED', verdict: 'fatal' });
  const stores = () => {
    throw refused;
  };
  const { streams, shipper, metrics, done } = pair.start('a', { stores });
  await expect(done).rejects.toBe(refused);
  await shipper.state();
  expect(await metrics.text()).toContain(`shipmate_ready{stream="${STREAM}"`);
  const measuring = shipper.state();
  await streams.leave(STREAM, long);
  await metrics.forget(STREAM);
  await Promise.all([measuring, shipper.state()]);
  expect(await metrics.text()).not.toContain(`stream="${STREAM}"`);
});
