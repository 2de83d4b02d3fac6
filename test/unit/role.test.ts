import { afterEach, describe, expect, test } from '@jest/globals';
import { Pair, asker as request, STREAM } from '../helpers/pair.ts';
import { until } from '../helpers/wait.ts';

const pairs: Pair[] = [];
afterEach(async () => {
  await Promise.all(pairs.splice(0).map((pair) => pair.stop()));
});

function newPair(): Pair {
  const pair = new Pair();
  pairs.push(pair);
  return pair;
}

describe('the role loop', () => {
  test('a standby takes over where the master left, and the first term is opened by whoever made the archive', async () => {
    const pair = newPair();
    pair.log.append();
    const a = pair.start('a');
    await pair.hasRole('a', 'master');
    pair.start('b');
    await pair.isReady('b');
    await pair.shipped();
    pair.log.append({ bytes: 5000 });
    await a.stop();
    pair.log.append();
    await pair.hasRole('b', 'master');
    await pair.shipped();
    expect(await pair.openings()).toEqual(['a: start', 'b: resume']);
    expect((await pair.chain())[0]!.header).toMatchObject({ term: 1, slot: 0, kind: 'opening' });
  });

  test('a lost lease deposes the master; nothing of it stands after its seal', async () => {
    const pair = newPair();
    pair.log.append();
    pair.start('a');
    await pair.hasRole('a', 'master');
    pair.start('b');
    await pair.isReady('b');
    pair.hub.expire('a');
    await pair.hasRole('b', 'master');
    await pair.hasRole('a', 'standby');
    pair.log.append();
    await pair.shipped();
    const chain = await pair.chain();
    const seal = chain.findIndex(({ header }) => header.kind === 'seal');
    expect(chain.slice(seal + 1).map(({ header }) => header.node)).not.toContain('a');
  });

  test('hands over on request, to the node that was asked for, and says no when that is not ready', async () => {
    const pair = newPair();
    pair.log.append();
    const a = pair.start('a');
    await pair.hasRole('a', 'master');
    const { requests } = a.coordination;
    const refused = await requests.ask(STREAM, { kind: 'handover', ...request }, 5_000);
    expect(refused).toMatchObject({ ok: false, message: expect.stringContaining('no other twin is ready') });
    pair.start('b');
    pair.start('c');
    await Promise.all([pair.isReady('b'), pair.isReady('c')]);
    expect(await requests.ask(STREAM, { kind: 'handover', to: 'c', ...request }, 5_000)).toMatchObject({ ok: true });
    await pair.hasRole('c', 'master');
    expect(await pair.openings()).toEqual(['a: start', 'c: resume']);
  });

  test('rule 8: a log that shrank, or was started again, ends the term; the next opening says so', async () => {
    const pair = newPair();
    for (let n = 0; n < 20; n++) pair.log.append();
    pair.start('a');
    await pair.hasRole('a', 'master');
    await pair.shipped();
    pair.log.append();
    await pair.shipped();
    pair.log.truncate(50);
    pair.log.append();
    await pair.shipped();
    pair.log.reset();
    pair.log.append();
    await pair.shipped();
    expect(await pair.openings()).toEqual(['a: start', 'a: truncate', 'a: reset']);
  });

  test('a gap stops every twin, is told, and is crossed only when an operator accepts this one', async () => {
    const pair = newPair();
    pair.log.append();
    const first = pair.start('a');
    await pair.hasRole('a', 'master');
    await pair.shipped();
    await first.stop();
    pair.log.append();
    pair.log.rotate();
    pair.log.append();
    pair.log.rotate();
    pair.log.purge(1);
    const a = pair.start('a');
    await until('a reports the gap', async () => (await pair.twin('a'))?.reason.startsWith('gap'));
    expect(await pair.twin('a')).toMatchObject({ ready: false, role: 'standby' });
    const { requests, cursors } = a.coordination;
    const stale = await requests.ask(STREAM, { kind: 'accept-gap', head: 'another', ...request }, 5_000);
    expect(stale).toMatchObject({ ok: false });
    const head = (await cursors.load(STREAM))!.digest;
    expect(await requests.ask(STREAM, { kind: 'accept-gap', head, ...request }, 10_000)).toMatchObject({ ok: true });
    await pair.shipped();
    const opening = (await pair.chain()).findLast(({ header }) => header.kind === 'opening')!.header;
    expect(opening).toMatchObject({ result: 'gap', evidence: { accepted: { by: 'a test' } } });
  });

  test('a twin whose config ships elsewhere refuses to start', async () => {
    const pair = newPair();
    pair.log.append();
    pair.start('a');
    await pair.hasRole('a', 'master');
    const b = pair.start('b', { config: 'other' });
    await expect(b.done).rejects.toThrow('differs from those of node a');
  });

  test('without --init nothing is created; an archive that vanished is not begun again', async () => {
    const pair = newPair();
    pair.log.append();
    await expect(pair.start('a', { init: false }).done).rejects.toThrow('holds no archive');
    const b = pair.start('b');
    await pair.hasRole('b', 'master');
    await b.stop();
    await pair.store.delete(pair.store.keys());
    await expect(pair.start('c').done).rejects.toThrow('is not in store');
    expect(pair.store.keys()).toEqual([]);
  });

  test('an etcd that was wiped under running daemons learns the archive again, and nothing forks', async () => {
    const pair = newPair();
    pair.log.append();
    pair.start('a');
    pair.start('b');
    await pair.shipped();
    pair.hub.wipe();
    pair.log.append();
    await pair.shipped();
    const { archives } = pair.hub.client('observer');
    await until('the id is there again', async () => (await archives.load(STREAM))?.state === 'created');
  });
});
