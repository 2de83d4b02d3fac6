import { expect, test } from '@jest/globals';
import { retry } from '../../src/archive/retry.ts';
import { messageOf } from '../../src/errors.ts';

const never = new Promise<never>(() => {});

test('an attempt that never answers is told of, and left behind when the signal aborts', async () => {
  const abort = new AbortController();
  const told: string[] = [];
  const trying = retry(() => never, {
    signal: abort.signal,
    slowMs: 10,
    onFailure: (error) => {
      told.push(messageOf(error));
      if (told.length === 3) abort.abort(new Error('enough'));
    },
  });
  await expect(trying).rejects.toThrow('enough');
  expect(told).toEqual(Array(3).fill('no answer for 0.01 s or longer'));
});

test('an answer that comes late counts, and nothing more is told', async () => {
  const { promise, resolve } = Promise.withResolvers<string>();
  const told: unknown[] = [];
  const answer = await retry(() => promise, {
    signal: new AbortController().signal,
    slowMs: 10,
    onFailure: (error) => {
      told.push(error);
      resolve('late');
    },
  });
  expect(answer).toBe('late');
  expect(told).toHaveLength(1);
});
