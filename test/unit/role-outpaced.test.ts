import { afterEach, describe, expect, test } from '@jest/globals';
import type { Twin, TwinStream } from '../../src/coordination/coordination.ts';
import { abortReason } from '../../src/errors.ts';
import { Outpaced, PACE } from '../../src/ship/outpaced.ts';
import { openMariadbSource } from '../../src/source/mariadb.ts';
import type { LogSource } from '../../src/source/source.ts';
import { openFakeSource } from '../fakes/fake-source.ts';
import { Pair, STREAM } from '../helpers/pair.ts';
import { ServerLog } from '../helpers/server-log.ts';
import { until } from '../helpers/wait.ts';

/** Rule 21: a ready twin that is far ahead for long is handed the term, with a cool-down. */
const told = (node: string, state: Partial<TwinStream>): Twin => ({
  node,
  version: 'test',
  format: 1,
  time: '2026-01-01T00:00:00Z',
  streams: [
    { name: STREAM, role: 'standby', ready: true, reason: '', lagBytes: 0, lagSeconds: 0, config: 'same', ...state },
  ],
});
const master = (state: Partial<TwinStream> = {}) => told('a', { role: 'master', ...state });
const AHEAD = { lagBytes: 50_000, lagSeconds: 30 };

/** What each look says, a second apart, for so many seconds. */
function look(outpaced: Outpaced, twins: readonly Twin[], { fromSecond = 0, seconds = 600 } = {}) {
  return Array.from({ length: seconds }, (_, n) => outpaced.observe(twins, (fromSecond + n) * 1_000)?.node ?? null);
}
const newOutpaced = () => new Outpaced({ stream: STREAM, node: 'a' }, PACE);

describe('a twin that is far ahead', () => {
  test('is handed the term only after it was so for long, and the reign lasted as long as it cools down', () => {
    const early = look(newOutpaced(), [master(), told('b', AHEAD)]);
    expect(early.indexOf('b')).toBe(PACE.coolDownMs / 1_000);
    const outpaced = newOutpaced();
    expect(look(outpaced, [master(), told('b', {})]).every((node) => node === null)).toBe(true);
    const late = look(outpaced, [master(), told('b', AHEAD)], { fromSecond: 600 });
    expect(late.indexOf('b')).toBe(PACE.forMs / 1_000);
  });

  test('must be ahead in every look: one that catches up in between is as good as the master', () => {
    const outpaced = newOutpaced();
    look(outpaced, [master(), told('b', {})]);
    for (let second = 600; second < 1_200; second++) {
      const state = second % 14 === 0 ? {} : AHEAD;
      expect(outpaced.observe([master(), told('b', state)], second * 1_000)).toBeNull();
    }
  });

  test.each([
    { why: 'it is not ready', twins: [master(), told('b', { ...AHEAD, ready: false })] },
    {
      why: 'the master has as much left to ship',
      twins: [master({ lagBytes: 30_000, lagSeconds: 30 }), told('b', AHEAD)],
    },
    { why: 'what it has more is new', twins: [master(), told('b', { lagBytes: 50_000_000, lagSeconds: 3 })] },
    { why: 'it can’t measure its own log', twins: [master(), told('b', { lagBytes: null, lagSeconds: null })] },
    { why: 'this twin does not lead', twins: [told('a', {}), told('b', AHEAD)] },
    { why: 'it is this twin’s own word', twins: [master(AHEAD)] },
    { why: 'it is another stream’s', twins: [master(), told('b', { ...AHEAD, name: 'billing' })] },
  ])('but not where $why', ({ twins }) => {
    expect(look(newOutpaced(), twins).every((node) => node === null)).toBe(true);
  });

  test('is handed it by a master that can’t measure its own log either, in any look', () => {
    const unknown = master({ lagBytes: null, lagSeconds: null });
    const outpaced = newOutpaced();
    look(outpaced, [master(), told('b', {})]);
    expect(look(outpaced, [unknown, told('b', AHEAD)], { fromSecond: 600 }).indexOf('b')).toBe(PACE.forMs / 1_000);
    const asMuch = master({ lagBytes: 50_000, lagSeconds: 30 });
    const flickering = newOutpaced();
    for (let second = 0; second < 600; second++) {
      const own = second % 14 === 0 ? asMuch : unknown;
      expect(flickering.observe([own, told('b', AHEAD)], second * 1_000)).toBeNull();
    }
  });

  test('is not asked again at once when it could not take over', () => {
    const outpaced = newOutpaced();
    const twins = [master(), told('b', AHEAD)];
    look(outpaced, twins);
    outpaced.refused(outpaced.observe(twins, 600_000)!);
    expect(look(outpaced, twins, { fromSecond: 601 }).indexOf('b')).toBe(PACE.forMs / 1_000);
  });

  test('cools down anew with each reign, so that two twins never play ping-pong', () => {
    const outpaced = newOutpaced();
    const twins = [master(), told('b', AHEAD)];
    look(outpaced, twins);
    outpaced.observe([told('a', AHEAD), told('b', { role: 'master' })], 600_000);
    expect(look(outpaced, twins, { fromSecond: 601 }).indexOf('b')).toBe(PACE.coolDownMs / 1_000);
  });
});

describe('a master on a stalled replica', () => {
  let pair: Pair;
  afterEach(() => pair.stop());

  test.each<Stall>(['stands still', 'hangs'])(
    'whose log %s hands the term to the twin whose log goes on, once',
    async (how) => {
      const pace = { aheadSeconds: 0.2, forMs: 200, coolDownMs: 100, lookMs: 20 };
      pair = new Pair();
      const stalled = stallable(openFakeSource(pair.log), how);
      pair.log.append();
      const a = pair.start('a', { source: stalled.source, pace });
      await pair.hasRole('a', 'master');
      pair.start('b', { pace });
      await pair.isReady('b');
      await pair.shipped();
      stalled.stall();
      for (let n = 0; n < 20; n++) pair.log.append({ bytes: 1_000 });
      await pair.hasRole('b', 'master');
      await pair.shipped();
      expect(await pair.openings()).toEqual(['a: start', 'b: resume']);
      expect(a.said).toContainEqual(expect.stringMatching(/^outpaced: b has \d+ bytes, .* that the log here lacks/));
      await until('it is told', () =>
        a.metrics.text().then((text) => /handed_on_total{stream="orders",cluster="test"} 1/.test(text)),
      );
    },
  );
});

describe('a twin beside another server', () => {
  const pair = new Pair();
  const logs = [new ServerLog(1), new ServerLog(2)] as const;
  afterEach(async () => {
    await pair.stop();
    for (const log of logs) log.remove();
  });

  test('is not ahead with the new file that its server has begun, only with the next transaction', async () => {
    const [one, two] = logs;
    for (const log of logs) log.apply('0-1-1 0-1-2');
    const sourceOf = ({ dir }: ServerLog) =>
      openMariadbSource({ stream: STREAM, dir, flavour: 'mariadb', busyPollMs: 5, log: SILENT });
    pair.start('a', { source: sourceOf(one) });
    await pair.hasRole('a', 'master');
    pair.start('b', { source: sourceOf(two) });
    const standsAt = (segment: string) =>
      until(`b stands at ${segment}`, async () => {
        const twin = await pair.twin('b');
        return twin?.reason.startsWith(`move: ${segment} has all`) && twin;
      });
    expect(await standsAt('binlog.000001')).toMatchObject({ ready: true, lagBytes: 0 });
    two.rotate();
    expect(await standsAt('binlog.000002')).toMatchObject({ ready: true, lagBytes: 0, lagSeconds: 0 });
    two.apply('0-1-3');
    await until('b is ahead', async () => ((await pair.twin('b'))?.lagBytes ?? 0) > 0);
  });
});

const SILENT = { debug() {}, info() {}, warn() {}, error() {} };

type Stall = 'stands still' | 'hangs';

/** A source whose log stands still from `stall` on, as that of a replica whose applier has stopped, or is in a dead mount. */
function stallable(source: LogSource, how: Stall): { readonly source: LogSource; stall(): void } {
  let stalls = false;
  const never = new Promise<never>(() => {});
  return {
    stall: () => {
      stalls = true;
    },
    source: {
      ...source,
      async *read(from, signal) {
        for await (const slice of source.read(from, signal)) {
          if (stalls && how === 'hangs') await never;
          if (stalls)
            await new Promise((_, reject) => signal.addEventListener('abort', () => reject(abortReason(signal))));
          yield slice;
        }
      },
      async backlog(from) {
        if (stalls && how === 'hangs') return never;
        return stalls ? { bytes: 0, oldestMs: null } : source.backlog(from);
      },
      async locate(head) {
        if (stalls && how === 'hangs') return never;
        const located = await source.locate(head);
        return stalls ? { ...located, result: 'behind', at: null, allowed: false, reason: 'it stands still' } : located;
      },
    },
  };
}
