import { afterEach, expect, test } from '@jest/globals';
import { Pair, STREAM } from '../helpers/pair.ts';
import { until } from '../helpers/wait.ts';

/** Twins whose configs name different places must never both ship, and none may stay away for a config that agrees. */
let pair: Pair;
afterEach(() => pair.stop());

const DIFFERS = 'differs from those of node a';
const forEver = { agreeWithinMs: Number.POSITIVE_INFINITY };

function newPair(): Pair {
  pair = new Pair();
  pair.log.append();
  return pair;
}

test('a twin whose config ships elsewhere refuses to start', async () => {
  newPair().start('a');
  await pair.hasRole('a', 'master');
  await expect(pair.start('b', { config: 'other' }).done).rejects.toThrow(DIFFERS);
});

test('of two that start at the same moment one stays', async () => {
  newPair();
  const twins = ['a', 'b'].map((node) => pair.start(node, { config: `of ${node}`, agreeWithinMs: 0, rememberMs: 50 }));
  await expect(Promise.any(twins.map(({ done }) => done.then(() => 'told to', String)))).resolves.toContain('differs');
  const roles = twins.map(({ shipper }) => shipper.standing.role);
  expect(roles.filter((role) => role === 'stopped')).toHaveLength(1);
  await pair.shipped();
});

test('one that was refused, and has stopped, keeps nobody from starting', async () => {
  const a = newPair().start('a');
  await pair.hasRole('a', 'master');
  // As after a reload: its daemon goes on.
  const refused = pair.start('b', { config: 'other', agreeWithinMs: 0 });
  await expect(refused.done).rejects.toThrow(DIFFERS);
  const twin = { node: 'b', version: 'test', format: 1, time: '', streams: [await refused.shipper.state()] };
  await refused.client.twins.publish(twin);
  expect(await pair.twin('b')).toMatchObject({ role: 'stopped' });
  await a.stop();
  pair.start('a');
  await pair.hasRole('a', 'master');
});

test('twins that are told of another store one after the other both go there', async () => {
  const a = newPair().start('a');
  await pair.hasRole('a', 'master');
  const b = pair.start('b');
  await pair.isReady('b');
  await b.stop();
  const changed = pair.start('b', { config: 'other', ...forEver });
  await until('it tells what it waits for', () => changed.shipper.notReady().join().includes(DIFFERS));
  await a.stop();
  pair.start('a', { config: 'other', ...forEver });
  await until(
    'one leads',
    async () => (await pair.twin('a'))?.role === 'master' || (await pair.twin('b'))?.role === 'master',
  );
  await until('the other is ready', async () => (await pair.twin('a'))?.ready && (await pair.twin('b'))?.ready);
  expect(changed.streams.stopped()).toEqual([]);
  expect(changed.shipper.name).toBe(STREAM);
});
