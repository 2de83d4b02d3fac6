import { beforeEach, describe, expect, test } from '@jest/globals';
import { ChunkReader } from '../../src/restore/chunks.ts';
import type { PlannedRun, RestorePlan } from '../../src/restore/plan.ts';
import { silent } from '../../src/restore/progress.ts';
import { replay, replayCommands } from '../../src/restore/replay.ts';
import { type StatedRun, startAfter } from '../../src/restore/states.ts';
import { mariadbReplay } from '../../src/source/mariadb/apply.ts';
import { mariadbFormat } from '../../src/source/mariadb/format.ts';
import { contradiction, remainderOf, unionOf } from '../../src/source/mariadb/gtid-position.ts';
import type { LogFormat, ReplayRun } from '../../src/source/source.ts';
import { emptyArchive } from '../helpers/hand-made-archive.ts';

const segment = { name: 'binlog.000001', origin: 'o', incarnation: 'i', offset: 0, length: 100, fromId: '' };

function runOf(directory: string, before: string, end: string, anew = false): PlannedRun {
  const file = { ...segment, evidence: null, pieces: [], fileStart: new Uint8Array(0) };
  return { directory, origin: 'o', segments: [file], bytes: 100, before, end, anew };
}

function planOf(runs: readonly PlannedRun[], from: string | null = null): RestorePlan {
  const target = { until: { kind: 'latest' }, from, afterGap: false, throughTerm: null } as const;
  const end = { id: runs.at(-1)!.end, timeMs: null };
  return {
    archive: 'a',
    stream: 'orders',
    ...target,
    runs,
    segments: 1,
    bytes: 100,
    end,
    beyondArchive: false,
    isWhole: true,
  };
}

/** The server: what it has, and what was applied to it. */
let server: { log: string; replicated: string };
let applied: ReplayRun[];

beforeEach(() => {
  server = { log: '', replicated: '' };
  applied = [];
});

function format(ends: Record<string, string> = {}): LogFormat {
  return {
    ...mariadbFormat(),
    replay: {
      command: mariadbReplay.command,
      applied: async () => server,
      async apply(run, _target, onProgress) {
        applied.push(run);
        onProgress(100);
        server.log = unionOf(server.log, ends[run.directory] ?? '');
      },
    },
  };
}

const carryOut = (plan: RestorePlan) => {
  const ends = Object.fromEntries(plan.runs.map(({ directory, end }) => [`/r/${directory}`, end]));
  const chunks = new ChunkReader(emptyArchive().archive);
  return replay(plan, { chunks, format: format(ends), directory: '/r', target: {}, progress: silent });
};

const TWO = [runOf('01', '', '0-1-9,1-1-4'), runOf('02', '0-1-9,1-1-4', '0-2-20,1-1-4')];

describe('replay into a server', () => {
  test('takes the runs in order, each from what the ones before had', async () => {
    await carryOut(planOf(TWO));
    expect(applied.map(({ directory, after }) => [directory, after])).toEqual([
      ['/r/01', ''],
      ['/r/02', '0-1-9,1-1-4'],
    ]);
  });

  test('leaves out the runs that a server has, and in the next one what it has of that', async () => {
    server.log = '0-2-12,1-1-4';
    await carryOut(planOf(TWO));
    expect(applied.map(({ directory, after }) => [directory, after])).toEqual([['/r/02', '0-2-12,1-1-4']]);
  });

  test('refuses a server that does not fit, and touches it not', async () => {
    const late = [runOf('', '0-1-5', '0-1-9')];
    for (const [plan, log, replicated, words] of [
      [planOf(TWO), '0-1-9,1-1-4,2-7-1', '', /has transactions that what is restored lacks/],
      [planOf(TWO), '', '0-1-3', /has replicated up to 0-1-3 .* no --from/],
      [planOf(late), '', '', /begins after 0-1-5/],
      [planOf([...TWO, runOf('03', '', '0-2-3', true)]), '', '', /began anew \(RESET MASTER\) with 03/],
    ] as const) {
      server = { log, replicated };
      await expect(carryOut(plan)).rejects.toMatchObject({
        code: 'REPLAY_REFUSED',
        message: expect.stringMatching(words),
      });
      expect(applied).toEqual([]);
    }
  });

  test('ends with an error where the server did not log what it was given', async () => {
    const chunks = new ChunkReader(emptyArchive().archive);
    const options = { chunks, format: format(), directory: '/r', target: {}, progress: silent };
    await expect(replay(planOf(TWO), options)).rejects.toMatchObject({ code: 'REPLAY_FAILED' });
  });

  test('commands are quoted for a shell', () => {
    const target = { socket: "/tmp/it's here/s", user: 'root' };
    const [first, second] = replayCommands(planOf(TWO), { format: mariadbFormat(), directory: '/my restore', target });
    expect(first).toBe(
      "(set -o pipefail; cd '/my restore/01' && mariadb-binlog --no-defaults $(cat binlog.index) | " +
        "mariadb --batch --binary-mode --max-allowed-packet=1G '--socket=/tmp/it'\\''s here/s' --user=root)",
    );
    expect(second).toContain('mariadb-binlog --no-defaults --skip-gtid-strict-mode --start-position=0-1-9,1-1-4 $(cat');
  });
});

describe('where to go on from an ID', () => {
  const statedRun = (before: string, end: string, ids: readonly string[], anew = false): StatedRun => ({
    run: {
      origin: 'o',
      segments: ids.map((fromId, n) => ({
        ...segment,
        name: `binlog.00000${n + 1}`,
        fromId,
        evidence: null,
        pieces: [],
      })),
      afterGap: false,
      anew,
      until: null,
    },
    before,
    end,
  });

  test('is the last file at whose start it has everything', () => {
    const runs = [statedRun('', '0-1-30', ['', '0-1-10', '0-1-20'])];
    const names = (id: string) =>
      startAfter(runs, id, mariadbFormat())?.flatMap(({ run }) => run.segments.map(({ name }) => name));
    expect(names('0-1-15')).toEqual(['binlog.000002', 'binlog.000003']);
    expect(names('0-1-20')).toEqual(['binlog.000003']);
    expect(names('0-1-31')).toBeUndefined();
  });

  test('is not guessed where the log began anew and gave the same IDs again', () => {
    const runs = [statedRun('', '0-1-30', ['']), statedRun('', '0-1-9', [''], true)];
    expect(() => startAfter(runs, '0-1-5', mariadbFormat())).toThrow(/names two places/);
    expect(startAfter(runs, '0-1-15', mariadbFormat())).toHaveLength(2);
  });
});

describe('GTID positions as text', () => {
  test('united, reduced and compared, domain by domain', () => {
    expect(unionOf('1-1-7,0-1-5', '0-2-9')).toBe('0-2-9,1-1-7');
    expect(unionOf('', '0-1-1')).toBe('0-1-1');
    expect(remainderOf('0-1-5,1-1-7', '0-1-6')).toBe('1-1-7');
    expect(remainderOf('0-1-5', '0-2-5')).toBe('');
    expect(contradiction('0-1-5,1-1-7', '0-2-5,1-1-7')).toEqual({ named: '0-1-5', found: '0-2-5' });
    expect(contradiction('0-1-5', '0-2-6,1-2-5')).toBeNull();
  });

  test('of MySQL they are sets', () => {
    const [a, b] = ['3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5', '3e11fa47-71ca-11e1-9e33-c80aa9429562:6-7'];
    expect(unionOf(a, b)).toBe('3e11fa47-71ca-11e1-9e33-c80aa9429562:1-7');
    expect(remainderOf(a, unionOf(a, b))).toBe('');
  });
});
