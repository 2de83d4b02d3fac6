import { expect, test } from '@jest/globals';
import { ShipmateError } from '../../src/errors.ts';
import { Metrics } from '../../src/metrics.ts';
import { Trouble } from '../../src/ship/trouble.ts';

function newTrouble() {
  const said: string[] = [];
  const say = (message: string) => void said.push(message);
  const log = { debug: say, info: say, warn: say, error: say };
  const metrics = new Metrics({ version: 'test', node: 'a', cluster: 'acme' }).stream('orders');
  return { trouble: new Trouble({ log, metrics }), said };
}

const full = (key: string) =>
  new ShipmateError(`can't create ${key}: no space left`, { code: 'STORE_FULL', verdict: 'retry' });

test('a trouble that every attempt words in its own way is logged once, and told as it was met last', () => {
  const { trouble, said } = newTrouble();
  for (let n = 0; n < 100; n++) trouble.report('store', full(`object ${n}`));
  expect(said).toEqual(["store: can't create object 0: no space left"]);
  expect(trouble.standing()).toEqual(["store: can't create object 99: no space left"]);
  trouble.report('store', new Error('another one'));
  expect(said.at(-1)).toBe('store: another one');
  trouble.clear('store');
  expect(trouble.standing()).toEqual([]);
});

test('what may come back any moment is not taken for over before it was quiet', () => {
  const { trouble } = newTrouble();
  trouble.report('archive', full('an object'));
  trouble.clear('archive', { quietMs: 60_000 });
  expect(trouble.standing()).toHaveLength(1);
  trouble.clear('archive', { quietMs: 0 });
  expect(trouble.standing()).toEqual([]);
});

test('a password in an error is neither logged nor told to the twins and on the status page', () => {
  const { trouble, said } = newTrouble();
  trouble.report('store', new Error('no route to https://key:secret@proxy:3128/'));
  expect([...said, ...trouble.standing()]).toEqual(Array(2).fill('store: no route to https://key:***@proxy:3128/'));
});
