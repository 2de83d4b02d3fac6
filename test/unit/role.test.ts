import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, test } from '@jest/globals';
import { openSolo } from '../../src/coordination/solo.ts';
import { encodeHeader } from '../../src/core/header.ts';
import { placeKey } from '../../src/core/keys.ts';
import { Discontinuity, ShipmateError } from '../../src/errors.ts';
import { openFakeSource } from '../fakes/fake-source.ts';
import { FaultyStore } from '../fakes/faulty-store.ts';
import { but, Pair, asker as request, STREAM } from '../helpers/pair.ts';
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

  test('what lay in the log unread took as long to be durable as it lay there', async () => {
    const pair = newPair();
    pair.log.append(); // its events are long over
    const { metrics } = pair.start('a');
    await pair.hasRole('a', 'master');
    await pair.shipped();
    await until('it is told', async () => {
      const buckets = (await metrics.text()).matchAll(/write_to_durable_seconds_bucket{le="(300|\+Inf)".*} (\d+)/g);
      const [most, all] = [...buckets].map(([, , count]) => Number(count));
      return most === 0 && all! > 0;
    });
  });

  test('a stranger’s object in a term is told by the standby that walks over it', async () => {
    const pair = newPair();
    pair.log.append();
    pair.start('a');
    await pair.hasRole('a', 'master');
    const { metrics, said } = pair.start('b');
    await pair.isReady('b');
    await pair.shipped();
    const { header, digest: prev } = (await pair.chain()).at(-1)!;
    const stranger = { ...header, slot: header.slot + 1, claim: 'of nobody', prev };
    pair.store.overwrite(placeKey(STREAM, stranger), encodeHeader(stranger).frame);
    await until('it is told', async () => /alarm="foreign-object".*} 1$/m.test(await metrics.text()));
    expect(said).toContainEqual(expect.stringMatching(/holds a chunk that is not its owner's \(node a\)/));
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

  test('rule 8: what was read before the log broke off is in the chain before the term is sealed', async () => {
    const pair = newPair();
    pair.log.append();
    const slow = new FaultyStore(pair.store, (operation, key) =>
      operation === 'create' && key.includes('/terms/') ? { kind: 'delay', until: delay(50) } : undefined,
    );
    const source = openFakeSource(pair.log);
    let breaksOff = false;
    pair.start('a', {
      store: slow,
      source: {
        ...source,
        async *read(from, signal) {
          for await (const slice of source.read(from, signal)) {
            yield slice;
            if (!breaksOff) continue;
            breaksOff = false;
            throw new Discontinuity('broken off');
          }
        },
      },
    });
    await pair.shipped();
    breaksOff = true;
    pair.log.append({ bytes: 500 });
    await pair.shipped();
    await until('the next term is open', async () => (await pair.openings()).length === 2);
    const kinds = (await pair.chain()).map(({ header }) => header.kind);
    expect(kinds).toEqual(['opening', 'chunk', 'chunk', 'seal', 'opening']);
  });

  test('rule 4: every term has a claim of its own, whoever opens it and why', async () => {
    const pair = newPair();
    pair.log.append();
    pair.start('a');
    await pair.hasRole('a', 'master');
    await pair.shipped();
    pair.log.reset();
    pair.log.append();
    await pair.shipped();
    for (const term of [3, 4]) {
      pair.hub.expire('a');
      await until(`a has opened term ${term}`, async () => (await pair.openings()).length === term);
    }
    const openings = (await pair.chain()).filter(({ header }) => header.kind === 'opening');
    expect(new Set(openings.map(({ header }) => header.claim)).size).toBe(4);
  });

  test('rule 7: an opening is saved as the cursor though nothing follows it', async () => {
    const pair = newPair();
    pair.log.append();
    const a = pair.start('a');
    await pair.hasRole('a', 'master');
    await pair.shipped();
    pair.start('b');
    await pair.isReady('b');
    await a.stop();
    await pair.hasRole('b', 'master');
    const [last] = (await pair.chain()).slice(-1);
    expect(last!.header).toMatchObject({ kind: 'opening', term: 2 });
    await until('it is the cursor', () => pair.hub.stream(STREAM).cursor?.digest === last!.digest);
  });

  test('rule 16: who leaves saves what is settled, though it could save nothing before', async () => {
    const pair = newPair();
    pair.log.append();
    let leaving = false;
    const a = pair.start('a', {
      coordination: but(({ cursors }) => ({
        cursors: {
          load: (stream) => cursors.load(stream),
          watch: (stream, signal) => cursors.watch(stream, signal),
          forget: (stream) => cursors.forget(stream),
          async save(cursor, by) {
            if (!leaving) throw new ShipmateError('not now', { code: 'BROKEN', verdict: 'retry' });
            await cursors.save(cursor, by);
          },
        },
      })),
    });
    await pair.shipped();
    expect(pair.hub.stream(STREAM).cursor).toBeNull();
    leaving = true;
    await a.stop();
    const [last] = (await pair.chain()).slice(-1);
    expect(pair.hub.stream(STREAM).cursor).toMatchObject({ term: 1, slot: last!.header.slot, digest: last!.digest });
  });

  test('a source that fails for a moment is read on from where it failed, in the same term', async () => {
    const pair = newPair();
    pair.log.append();
    const source = openFakeSource(pair.log, { maxSliceBytes: 100 });
    let reads = 0;
    pair.start('a', {
      source: {
        ...source,
        async *read(from, signal) {
          reads++;
          let slices = 0;
          for await (const slice of source.read(from, signal)) {
            yield slice;
            if (++slices === 3 && reads < 5) throw new Error('read error');
          }
        },
      },
    });
    for (let n = 0; n < 20; n++) pair.log.append();
    await pair.shipped();
    expect(reads).toBe(5);
    expect(await pair.openings()).toEqual(['a: start']);
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

  test('rule 15: without etcd a deposed daemon ends for good, and only the last owner’s node goes on unforced', async () => {
    const pair = newPair();
    const stateDirs = [
      mkdtempSync(join(tmpdir(), 'shipmate-solo-a-')),
      mkdtempSync(join(tmpdir(), 'shipmate-solo-b-')),
    ];
    try {
      pair.log.append();
      const [onA, onB] = [
        await openSolo({ node: 'a', stateDir: stateDirs[0]! }),
        await openSolo({ node: 'b', stateDir: stateDirs[1]! }),
      ];
      const a = pair.start('a', { coordination: () => onA });
      await pair.shipped();
      const { archive } = (await pair.chain())[0]!.header;
      await onB.archives.confirm(STREAM, archive);
      await expect(pair.start('b', { coordination: () => onB }).done).rejects.toMatchObject({
        code: 'SOLO_OTHER_NODE',
      });
      pair.start('b', { coordination: () => onB, force: true });
      await until('b has taken over', async () => (await pair.openings()).length === 2);
      pair.log.append();
      await expect(a.done).rejects.toMatchObject({ code: 'SOLO_DEPOSED' });
      await expect(pair.start('a', { coordination: () => onA }).done).rejects.toMatchObject({
        code: 'SOLO_OTHER_NODE',
      });
      await pair.shipped();
      expect(await pair.openings()).toEqual(['a: start', 'b: resume']);
    } finally {
      await pair.stop();
      for (const dir of stateDirs) rmSync(dir, { recursive: true, force: true });
    }
  });
});
