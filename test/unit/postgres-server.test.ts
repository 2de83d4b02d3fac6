import { describe, expect, test } from '@jest/globals';
import { messageOf } from '../../src/errors.ts';
import { isFitVersion } from '../../src/source/postgres/fitness.ts';
import { flushedOnStandby, type StateRow } from '../../src/source/postgres/flushed.ts';
import { idText, parseId } from '../../src/source/postgres/lsn.ts';
import { failedSql } from '../../src/source/postgres/sql-errors.ts';

const ALONE: StateRow = {
  was_in_recovery: true,
  is_in_recovery: true,
  life: '1',
  flushed: null,
  writes_timeline: null,
  replayed: null,
  received: null,
  receiver_status: null,
  received_timeline: null,
  received_flushed: null,
  recovered: null,
};

/** Up to where a standby's WAL is taken for safe; `newest`: the highest timeline that its pg_wal knows. */
async function safe(row: Partial<StateRow>, { remembered = '', newest = 1 } = {}): Promise<string | null> {
  const known = remembered === '' ? null : parseId(remembered);
  const flushed = await flushedOnStandby({ ...ALONE, ...row }, known, async () => newest);
  return flushed && idText(flushed);
}

const receives = (timeline: number, flushed: string) => ({
  receiver_status: 'streaming',
  received_timeline: timeline,
  received_flushed: flushed,
});

describe('WAL of a standby is safe', () => {
  test('up to what its receiver has flushed, and never less than was known, as long as the timeline stays', async () => {
    expect(await safe({ ...receives(1, '0/500'), replayed: '0/400' })).toBe('1/0/500');
    expect(await safe(receives(1, '0/300'), { remembered: '1/0/500' })).toBe('1/0/500');
    expect(await safe(receives(2, '0/300'), { remembered: '1/0/500' })).toBe('2/0/300');
    expect(await safe({}, { remembered: '2/0/500' })).toBe('2/0/500');
  });

  test('up to what was replayed, where recovery is proven to be on the newest timeline that it can know of', async () => {
    const replaying = { recovered: '2/0/300', replayed: '0/400' };
    expect(await safe(replaying, { newest: 2 })).toBe('2/0/400');
    // It may be on the third one by now, of which these places mean other bytes.
    expect(await safe(replaying, { newest: 3 })).toBe('2/0/300');
    // What was received may have been of the first one, beyond the place where the second left it.
    expect(await safe({ ...replaying, received: '0/900' }, { newest: 2 })).toBe('2/0/400');
    expect(await safe({ recovered: '1/0/300', replayed: '0/400', received: '0/900' })).toBe('1/0/900');
  });

  test('not up to what was replayed, where its receiver only begins with the next timeline', async () => {
    const begins = { ...receives(2, '0/200'), recovered: '1/0/300', replayed: '0/400' };
    expect(await safe(begins, { newest: 2 })).toBe('2/0/200');
  });

  test('nowhere, where nothing is known', async () => {
    expect(await safe({ recovered: '0/0/0', replayed: '0/400' })).toBeNull();
  });
});

test('versions from 13.5 and 14.1 on are fit', () => {
  expect([130005, 140001, 150000, 180001].filter(isFitVersion)).toHaveLength(4);
  expect([90624, 120022, 130004, 140000, 190000].filter(isFitVersion)).toEqual([]);
});

test('a failure names the server and what to do, and no password', () => {
  const url = 'postgresql://shipmate:s3cr@t@db-1:5433/postgres?host=/run/postgresql&password=s3cret';
  const cause = Object.assign(new Error(`no connection to ${url}`), { code: 'ENOENT' });
  const failed = failedSql(cause, { url, stream: 'billing' });
  expect(failed).toMatchObject({
    code: 'SERVER_UNREACHABLE',
    verdict: 'retry',
    hint: expect.stringContaining('socket'),
  });
  expect(messageOf(failed)).toContain('stream billing: the PostgreSQL server at /run/postgresql/.s.PGSQL.5433');
  expect(messageOf(failed)).not.toMatch(/s3cr/);
});
