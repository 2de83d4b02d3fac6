import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, test } from '@jest/globals';
import { adoptArchive } from '../../src/archive/identity.ts';
import { within } from '../../src/archive/retry.ts';
import { placeKey } from '../../src/core/keys.ts';
import { Discontinuity, ShipmateError } from '../../src/errors.ts';
import { FakeLog } from '../fakes/fake-log.ts';
import { openFakeSource } from '../fakes/fake-source.ts';
import { FaultyStore } from '../fakes/faulty-store.ts';
import { asker, but, Pair, STREAM } from '../helpers/pair.ts';
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

/** To end a broken test, not to measure. */
const BOUND_MS = 10_000;

/** What a daemon takes for the state directory's or etcd's failure. */
const failed = () => new ShipmateError('broken for a moment', { code: 'BROKEN', verdict: 'retry' });

describe('what fails beside the archive', () => {
  test('a watch of the cursor that fails is begun again, and does not end the daemon', async () => {
    const pair = newPair();
    pair.log.append();
    let watches = 0;
    const coordination = but(({ cursors }) => ({
      cursors: {
        load: (stream) => cursors.load(stream),
        save: (cursor, by) => cursors.save(cursor, by),
        forget: (stream) => cursors.forget(stream),
        async *watch(stream, signal) {
          watches++;
          if (watches === 1) throw failed();
          yield* cursors.watch(stream, signal);
        },
      },
    }));
    pair.start('a');
    await pair.hasRole('a', 'master');
    pair.start('b', { coordination });
    await pair.isReady('b');
    await until('the watch is begun again', () => watches > 1, { withinMs: 30_000 });
  });

  test('a watch of the requests that fails is begun again', async () => {
    const pair = newPair();
    pair.log.append();
    let watches = 0;
    const coordination = but(({ requests }) => ({
      requests: {
        ask: (stream, request, timeoutMs) => requests.ask(stream, request, timeoutMs),
        answer: (pending, answer) => requests.answer(pending, answer),
        async *watch(stream, signal) {
          watches++;
          if (watches === 1) throw failed();
          yield* requests.watch(stream, signal);
        },
      },
    }));
    const a = pair.start('a', { coordination });
    await pair.hasRole('a', 'master');
    const answer = await a.client.requests.ask(STREAM, { kind: 'handover', ...asker }, 5_000);
    expect(answer).toMatchObject({ ok: false });
  });

  test('a standby that missed etcd for a moment is whole again when etcd is', async () => {
    const pair = newPair();
    pair.log.append();
    pair.start('a');
    await pair.hasRole('a', 'master');
    const b = pair.start('b');
    await pair.isReady('b');
    b.client.cutOff();
    await until('b tells of it', () => b.shipper.notReady().length > 0, { withinMs: 30_000 });
    b.client.heal();
    await until('b has no trouble any more', () => b.shipper.notReady().length === 0, { withinMs: 30_000 });
  });

  test('a master tells its twins why it does not get on, and that it does again', async () => {
    const pair = newPair();
    pair.log.append();
    const store = new FaultyStore(pair.store);
    pair.start('a', { store });
    await pair.shipped();
    store.faults = (operation) => (operation === 'create' ? { kind: 'full' } : undefined);
    pair.log.append();
    const told = () => pair.twin('a').then((twin) => twin?.reason);
    await until('its status says that the store is full', async () => /^master; store: ./.test((await told()) ?? ''));
    store.faults = () => undefined;
    await until('its status says no more of it', async () => (await told()) === 'master');
  });

  test('a twin that was elected, and whose store is away for it alone, can be told to hand over', async () => {
    const pair = newPair();
    pair.log.append();
    const before = pair.start('b');
    await pair.shipped();
    await before.stop();
    const store = new FaultyStore(pair.store, (operation, key) =>
      operation === 'create' && key.includes('/terms/') ? { kind: 'before' } : undefined,
    );
    const a = pair.start('a', { store });
    await until('a can not open its term', () => /^taking-over; store: /.test(a.shipper.standing.reason));
    pair.start('b');
    await pair.isReady('b');
    const answer = await a.client.requests.ask(STREAM, { kind: 'handover', to: 'b', ...asker }, BOUND_MS);
    expect(answer).toEqual({ ok: true, message: 'a has resigned' });
    await pair.hasRole('b', 'master');
  });

  test('what ended one reign is no trouble any more in the next', async () => {
    const pair = newPair();
    pair.log.append();
    const source = openFakeSource(pair.log);
    let ends = 0;
    const a = pair.start('a', {
      source: {
        ...source,
        async locate(head) {
          if (ends++ === 2) throw failed();
          return source.locate(head);
        },
      },
    });
    await until('a met the failure', () => ends > 2, { withinMs: 30_000 });
    await pair.hasRole('a', 'master');
    await pair.shipped();
    expect(a.shipper.notReady()).toEqual([]);
  });

  test('a campaign that fails leaves nothing behind that waits for its end', async () => {
    const pair = newPair();
    pair.log.append();
    const signals: AbortSignal[] = [];
    const coordination = but((own) => ({
      elector: (stream) => ({
        async campaign(signal) {
          signals.push(signal);
          if (signals.length < 3) throw failed();
          return own.elector(stream).campaign(signal);
        },
      }),
    }));
    pair.start('a', { coordination });
    await pair.hasRole('a', 'master');
    expect(signals.map(({ aborted }) => aborted)).toEqual([true, true, true]);
  });

  test('rule 1: a newcomer that finds etcd wiped takes nothing from the daemons that run', async () => {
    const pair = newPair();
    pair.log.append();
    pair.start('a');
    await pair.shipped();
    pair.hub.wipe();
    await expect(pair.start('b').done).rejects.toMatchObject({ code: 'ARCHIVE_UNKNOWN' });
    const { archives } = pair.hub.client('observer');
    expect(await archives.load(STREAM)).toMatchObject({ state: 'proposed' });
    const archive = (await pair.chain())[0]!.header.archive;
    await until('a has told etcd again', async () => (await archives.load(STREAM))?.id === archive, {
      withinMs: BOUND_MS,
    });
    expect(await archives.load(STREAM)).toEqual({ id: archive, state: 'created' });
  });
});

describe('what never answers', () => {
  const isRead = (operation: string) => operation !== 'create' && operation !== 'list';

  test('a standby whose store hangs stops when it is told to', async () => {
    const pair = newPair();
    pair.log.append();
    pair.start('a');
    await pair.hasRole('a', 'master');
    const store = new FaultyStore(pair.store);
    const b = pair.start('b', { store });
    await pair.isReady('b');
    store.faults = (operation) => (isRead(operation) ? { kind: 'lost' } : undefined);
    await delay(1_500);
    await within(BOUND_MS, b.stop());
  });

  test('a twin whose store hangs while it takes over gives the stream up when it is told to', async () => {
    const pair = newPair();
    pair.log.append();
    const a = pair.start('a');
    await pair.hasRole('a', 'master');
    const store = new FaultyStore(pair.store);
    const b = pair.start('b', { store });
    await pair.isReady('b');
    store.faults = (operation) => (isRead(operation) ? { kind: 'lost' } : undefined);
    await a.stop();
    await pair.hasRole('b', 'taking-over');
    pair.start('c');
    await pair.isReady('c');
    await within(BOUND_MS, b.stop());
    await pair.hasRole('c', 'master');
  });

  test('a master whose source hangs gives the stream up when it is told to', async () => {
    const pair = newPair();
    pair.log.append();
    const source = openFakeSource(pair.log);
    let hangs = false;
    const never = new Promise<never>(() => {});
    const a = pair.start('a', {
      source: {
        ...source,
        async *read(from, signal) {
          for await (const slice of source.read(from, signal)) {
            yield slice;
            if (hangs) await never;
          }
        },
        acknowledge: async (upTo) => (hangs ? never : source.acknowledge(upTo)),
        backlog: async (from) => (hangs ? never : source.backlog(from)),
      },
    });
    await pair.hasRole('a', 'master');
    await pair.shipped();
    pair.start('b');
    await pair.isReady('b');
    hangs = true;
    pair.log.append();
    await pair.shipped();
    await within(BOUND_MS, a.stop());
    await pair.hasRole('b', 'master');
  });
});

describe('taking over', () => {
  test('rule 11: who is elected, but finds that it can not go on, seals nothing', async () => {
    const pair = newPair();
    const log = new FakeLog();
    for (const one of [pair.log, log]) one.append();
    const a = pair.start('a');
    await pair.hasRole('a', 'master');
    await pair.shipped();
    const source = openFakeSource(pair.log);
    let hasIt = true;
    pair.start('b', {
      source: {
        ...source,
        locate: async (head) =>
          hasIt ? source.locate(head) : { result: 'behind', at: null, allowed: false, reason: 'a test', evidence: {} },
      },
    });
    await pair.isReady('b');
    // `a` is cut off and ships on; `b` is elected in the moment in which it no longer could go on.
    hasIt = false;
    a.client.cutOff();
    pair.hub.expire('a');
    await until('b has given up', async () => (await pair.twin('b'))?.reason.startsWith('behind'), {
      withinMs: 30_000,
    });
    pair.log.append();
    await pair.shipped();
    expect(await pair.openings()).toEqual(['a: start']);
    expect((await pair.chain()).filter(({ header }) => header.kind === 'seal')).toEqual([]);
  });

  test('a log that breaks off again and again makes terms slowly', async () => {
    const pair = newPair();
    pair.log.append();
    const source = openFakeSource(pair.log);
    pair.start('a', {
      source: {
        ...source,
        read: () => ({
          [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(new Discontinuity('broken off')) }),
        }),
      },
    });
    await until('the first term is open', async () => (await pair.openings()).length > 0);
    await delay(2_000);
    expect((await pair.openings()).length).toBeLessThan(20);
  });

  test('rule 9: a store that went back in time stops a standby, whatever etcd has forgotten', async () => {
    const pair = newPair();
    pair.log.append();
    const a = pair.start('a');
    await pair.hasRole('a', 'master');
    await pair.shipped();
    pair.log.append();
    await pair.shipped();
    const b = pair.start('b');
    await pair.isReady('b');
    b.client.cutOff();
    await a.stop();
    const [last] = (await pair.chain()).slice(-1);
    await pair.store.delete([placeKey(STREAM, last!.header)]);
    pair.hub.stream(STREAM).cursor = null;
    b.client.heal();
    await until('b says so', async () => (await b.shipper.state()).reason.includes('went back in time'), {
      withinMs: BOUND_MS,
    });
    expect((await pair.chain()).filter(({ header }) => header.kind === 'seal')).toEqual([]);
    expect(pair.store.keys(`${STREAM}/terms/00000002/`)).toEqual([]);
  });

  test('rule 9: a store that went back is gone on with once an operator adopts it', async () => {
    const pair = newPair();
    pair.log.append();
    const first = pair.start('a');
    await pair.shipped();
    pair.log.append();
    await pair.shipped();
    await first.stop();
    const [last] = (await pair.chain()).slice(-1);
    await pair.store.delete([placeKey(STREAM, last!.header)]);
    const refused = pair.start('a');
    await until('a refuses', async () => (await pair.twin('a'))?.reason.includes('went back in time'));
    await refused.stop();
    const { archives, cursors } = pair.hub.client('operator');
    const opener = {
      store: pair.store,
      stream: STREAM,
      cluster: 'test',
      node: 'a',
      signal: new AbortController().signal,
    };
    const identity = { type: 'fake', name: null };
    await adoptArchive({ ...opener, identity, memories: [archives, archives] }, cursors);
    pair.start('a');
    await pair.shipped();
    expect(await pair.openings()).toEqual(['a: start', 'a: resume']);
  });
});

describe('on request', () => {
  test('a stream that is handed over goes to the twin, though that joins the queue a moment later', async () => {
    const pair = newPair();
    pair.log.append();
    const a = pair.start('a');
    await pair.hasRole('a', 'master');
    const b = pair.hub.client('b');
    const stream = { name: STREAM, role: 'standby', ready: true, reason: '', lagBytes: 0, lagSeconds: 0 } as const;
    const twin = { node: 'b', version: 'test', format: 1, time: asker.time };
    await b.twins.publish({ ...twin, streams: [{ ...stream, config: 'same' }] });
    expect(await a.client.requests.ask(STREAM, { kind: 'handover', ...asker }, 5_000)).toMatchObject({ ok: true });
    await delay(200);
    await within(BOUND_MS, b.elector(STREAM).campaign(new AbortController().signal));
  });

  test('a gap is crossed on request though the newest cursor was never saved', async () => {
    const pair = newPair();
    pair.log.append();
    const first = pair.start('a');
    await pair.hasRole('a', 'master');
    await pair.shipped();
    const stale = pair.hub.stream(STREAM).cursor!;
    pair.log.append();
    await pair.shipped();
    await first.stop();
    pair.hub.stream(STREAM).cursor = stale;
    for (let n = 0; n < 2; n++) {
      pair.log.append();
      pair.log.rotate();
    }
    pair.log.purge(1);
    const { client } = pair.start('a');
    await until('a reports the gap', async () => (await pair.twin('a'))?.reason.startsWith('gap'));
    const asked = { kind: 'accept-gap', head: stale.digest, ...asker } as const;
    expect(await client.requests.ask(STREAM, asked, 5_000)).toMatchObject({ ok: true });
  });
});
