import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from '@jest/globals';
import { addressOf } from '../../src/coordination/etcd/endpoint.ts';
import { NoAnswer } from '../../src/coordination/etcd/errors.ts';
import { AllFailed, type RaceOptions, race } from '../../src/coordination/etcd/race.ts';

const down = new Error('down');
const hangs = () => new Promise<string>(() => {});
const fails = () => Promise.reject(down);
const answers = (value: string) => () => Promise.resolve(value);

function options(given: Partial<RaceOptions> = {}): RaceOptions {
  const { signal } = new AbortController();
  return { patienceMs: 10, timeoutMs: 200, givesWay: (error) => error === down, signal, ...given };
}

describe('a race of attempts', () => {
  test('asks nobody else while the first answers', async () => {
    let asked = 0;
    const second = () => {
      asked++;
      return hangs();
    };
    expect(await race([answers('first'), second], options())).toBe('first');
    await delay(30);
    expect(asked).toBe(0);
  });

  test('goes on where one fails, at once, and where one hangs, after a while', async () => {
    const patient = options({ patienceMs: 10_000, timeoutMs: 20_000 });
    expect(await race([fails, answers('second')], patient)).toBe('second');
    expect(await race([hangs, fails, answers('third')], options())).toBe('third');
  });

  test('takes the answer of one that was slow', async () => {
    const slow = () => delay(50, 'slow');
    expect(await race([slow, hangs], options())).toBe('slow');
    expect(await race([slow, fails], options())).toBe('slow');
  });

  test('ends at once with a failure that does not give way', async () => {
    const refused = new Error('refused');
    let asked = 0;
    const second = () => {
      asked++;
      return hangs();
    };
    await expect(race([() => Promise.reject(refused), second], options())).rejects.toBe(refused);
    expect(asked).toBe(0);
  });

  test('tells what each said when all failed, and when time ran out', async () => {
    const all = await race([fails, fails], options()).catch((error: unknown) => error);
    expect(all).toMatchObject({ failures: [down, down] });
    const late = await race([hangs, fails], options({ timeoutMs: 50 })).catch((error: unknown) => error);
    expect(late).toBeInstanceOf(AllFailed);
    expect(late).toMatchObject({ failures: [expect.any(NoAnswer), down] });
  });

  test('ends with its signal', async () => {
    const stop = new AbortController();
    const running = race([hangs], options({ signal: stop.signal }));
    stop.abort(new Error('closed'));
    await expect(running).rejects.toThrow('closed');
    await expect(race([answers('any')], options({ signal: stop.signal }))).rejects.toThrow('closed');
  });
});

test.each([
  ['http://etcd-1', { host: 'etcd-1', port: 2379, secure: false }],
  ['https://etcd-1:443', { host: 'etcd-1', port: 443, secure: true }],
  ['http://127.0.0.1:2379/', { host: '127.0.0.1', port: 2379, secure: false }],
  ['https://[fd00::1]:12379', { host: 'fd00::1', port: 12379, secure: true }],
  ['https://[fd00::1]', { host: 'fd00::1', port: 2379, secure: true }],
])('the endpoint %s is read', (url, address) => {
  expect(addressOf(url)).toEqual(address);
});
