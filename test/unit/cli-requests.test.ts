import { describe, expect, test } from '@jest/globals';
import { type Decision, explain } from '../../src/cli/accept.ts';
import { handOver } from '../../src/cli/handover.ts';
import type { Answer, OperatorRequest, Overview, Role, TwinStream } from '../../src/coordination/coordination.ts';
import { ShipmateError } from '../../src/errors.ts';

interface Seen {
  readonly node: string;
  readonly role: Role;
  readonly ready?: boolean;
  readonly reason?: string;
}

function overviewOf(master: string | null, ...twins: Seen[]): Overview {
  return {
    streams: [
      {
        name: 'orders',
        master,
        cursor: {
          archive: 'a',
          stream: 'orders',
          term: 3,
          slot: 7,
          digest: 'd'.repeat(64),
          position: { origin: 'o', incarnation: 'i', segment: 'binlog.000003', offset: 4711, id: '0-1-52' },
          time: '2026-11-22T13:00:00Z',
        },
      },
    ],
    twins: twins.map(({ node, role, ready = true, reason = 'resume: same bytes' }) => {
      const stream: TwinStream = { name: 'orders', role, ready, reason, lagBytes: 0, lagSeconds: 0, config: 'c' };
      return { node, version: '1', format: 1, time: '2026-11-22T13:00:00Z', streams: [stream] };
    }),
  };
}

/** Boards on which the daemons answer as told; `looks` are what is seen, one after the other, the last one for ever. */
function boards(answer: Answer | null, ...looks: Overview[]) {
  const asked: { stream: string; request: OperatorRequest }[] = [];
  let look = 0;
  return {
    asked,
    overview: async () => looks[Math.min(look++, looks.length - 1)]!,
    requests: {
      async ask(stream: string, request: OperatorRequest) {
        asked.push({ stream, request });
        return answer;
      },
      watch: () => (async function* () {})(),
      answer: async () => {},
    },
  };
}

const before = overviewOf('db-1', { node: 'db-1', role: 'master' }, { node: 'db-2', role: 'standby' });
const elected = overviewOf('db-2', { node: 'db-1', role: 'standby' }, { node: 'db-2', role: 'taking-over' });
const after = overviewOf('db-2', { node: 'db-1', role: 'standby' }, { node: 'db-2', role: 'master' });
const ok: Answer = { ok: true, message: 'resigned' };

describe('handover', () => {
  test('asks the master, and is done when the new one has opened its term', async () => {
    const { asked, ...both } = boards(ok, before, before, elected, after);
    const done = await handOver(both, { stream: 'orders', to: 'db-2' });
    expect(done).toEqual({ stream: 'orders', from: 'db-1', to: 'db-2', tookMs: expect.any(Number) });
    expect(asked).toEqual([
      {
        stream: 'orders',
        request: { kind: 'handover', to: 'db-2', by: expect.stringContaining('@'), time: expect.any(String) },
      },
    ]);
  });

  test('to the node that leads already changes nothing', async () => {
    const { asked, ...both } = boards(ok, before);
    expect(await handOver(both, { stream: 'orders', to: 'db-1' })).toMatchObject({ from: 'db-1', to: 'db-1' });
    expect(asked).toEqual([]);
  });

  const lame = overviewOf(
    'db-1',
    { node: 'db-1', role: 'master' },
    { node: 'db-2', role: 'standby', ready: false, reason: 'gap: purged' },
  );
  const alone = overviewOf('db-1', { node: 'db-1', role: 'master' });
  const nobody = overviewOf(null, { node: 'db-2', role: 'standby' });

  test.each<[string, Overview, string | undefined, string]>([
    ['no twin is ready', lame, undefined, 'no twin is ready to take over stream orders (db-2: gap: purged)'],
    ['the asked one is not ready', lame, 'db-2', 'no twin is ready to take over stream orders (db-2: gap: purged)'],
    ['there is no twin', alone, undefined, 'no twin is ready to take over stream orders'],
    ['the asked one is not alive', before, 'db-3', 'no live daemon db-3 has stream orders'],
    ['nobody leads', nobody, undefined, 'stream orders has no master'],
  ])('where %s, the master is not even asked', async (_, overview, to, why) => {
    const { asked, ...both } = boards(ok, overview);
    const error = await handOver(both, { stream: 'orders', to }).catch((thrown) => thrown);
    expect(error).toBeInstanceOf(ShipmateError);
    expect(error.message).toContain(why);
    expect(error.hint).toBeTruthy();
    expect(asked).toEqual([]);
  });

  test('a master that does not answer, or refuses, is told', async () => {
    const { asked: _, ...silent } = boards(null, before);
    await expect(handOver(silent, { stream: 'orders' })).rejects.toThrow('did not answer within 10 s');
    const { asked: __, ...refusing } = boards({ ok: false, message: 'db-2 just became unready' }, before);
    await expect(handOver(refusing, { stream: 'orders' })).rejects.toThrow(
      'refused to hand over stream orders: db-2 just',
    );
  });
});

describe('what an operator is told before accepting', () => {
  const gap: Decision = { kind: 'accept-gap', result: 'gap', consequence: 'Bytes are lost.' };
  const purged: Seen = { node: 'db-2', role: 'standby', ready: false, reason: 'gap: binlog.000003 was purged' };

  test('the archive’s end, what the twin reports, and what it means', () => {
    const { lines, head } = explain(overviewOf(null, purged), 'orders', gap);
    expect(head).toBe('d'.repeat(64));
    expect(lines.join('\n')).toBe(
      [
        'The archive of orders ends in term 3, slot 7, at 0-1-52 (binlog.000003:4711), head dddddddddddd.',
        'db-2: gap: binlog.000003 was purged',
        'Bytes are lost.',
      ].join('\n'),
    );
  });

  test('without a cursor in etcd, that', () => {
    const overview = overviewOf(null, purged);
    const wiped = { ...overview, streams: [] };
    const { lines, head } = explain(wiped, 'orders', gap);
    expect(head).toBeNull();
    expect(lines[0]).toContain('is not in etcd');
  });

  test.each<[string, Overview, string]>([
    ['a healthy twin leads', overviewOf('db-1', { node: 'db-1', role: 'master' }, purged), 'db-1 leads stream orders'],
    [
      'no twin reports it',
      overviewOf(null, { ...purged, reason: 'fork: other history' }),
      'no twin of stream orders reports a gap',
    ],
    [
      'the word is not the result',
      overviewOf(null, { ...purged, reason: 'gaps: x' }),
      'no twin of stream orders reports a gap',
    ],
  ])('where %s there is nothing to accept', (_, overview, why) => {
    expect(() => explain(overview, 'orders', gap)).toThrow(why);
  });
});
