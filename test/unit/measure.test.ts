import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from '@jest/globals';
import { Measure } from '../../src/ship/measure.ts';
import { until } from '../helpers/wait.ts';

const log = { debug() {}, info() {}, warn() {}, error() {} };
const { signal } = new AbortController();
const ALL_READ = { bytes: 0, oldestMs: null };

test('a log that hangs is told of, holds up its twins once, and is asked once', async () => {
  const { promise, resolve } = Promise.withResolvers<typeof ALL_READ>();
  let asked = 0;
  const told: string[] = [];
  const measure = new Measure({
    source: {
      backlog: () => {
        asked++;
        return promise;
      },
    },
    ...{ log, signal },
    slowMs: 20,
    onHang: () => told.push('hangs'),
    onRecovered: () => told.push('has recovered'),
  });
  expect(await measure.from(null)).toBeNull();
  expect(told[0]).toBe('hangs');
  // What they are told then may not be a second old each time.
  expect(await Promise.race([measure.from(null), delay(500, 'late')])).toBeNull();
  expect(asked).toBe(1);
  resolve(ALL_READ);
  await until('it has recovered', () => told.at(-1) === 'has recovered', { everyMs: 1 });
  expect(await measure.from(null)).toEqual(ALL_READ);
});

test('one that fails is asked again, and one that answers in time is not told of', async () => {
  let asked = 0;
  const measure = new Measure({
    source: {
      backlog() {
        if (++asked === 1) throw new Error('no such disk');
        return Promise.resolve(ALL_READ);
      },
    },
    ...{ log, signal },
    onHang: () => expect(true).toBe(false),
    onRecovered: () => expect(true).toBe(false),
  });
  expect(await measure.from(null)).toBeNull();
  expect(await measure.from(null)).toEqual(ALL_READ);
});

test('nothing is told of a log any more once it was left', async () => {
  const leaving = new AbortController();
  let told = 0;
  const measure = new Measure({
    source: { backlog: () => new Promise(() => {}) },
    ...{ log, signal: leaving.signal, slowMs: 5, onRecovered() {} },
    onHang: () => {
      told++;
    },
  });
  const measured = measure.from(null);
  await until('it is told', () => told > 0, { everyMs: 1 });
  leaving.abort();
  expect(await measured).toBeNull();
  const before = told;
  await delay(50);
  expect(told).toBe(before);
});
