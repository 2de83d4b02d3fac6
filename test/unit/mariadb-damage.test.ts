import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { Shipping } from '../contract/source-shipping.ts';
import * as binlog from '../helpers/binlog.ts';
import { benchOfBinlogs } from '../helpers/binlog-source.ts';
import { until } from '../helpers/wait.ts';

const bench = benchOfBinlogs();

describe('damage', () => {
  /** Three transactions; returns where the second begins. */
  const threeTransactions = () => {
    const ends = [0, 1, 2].map(() => {
      bench.binlogs.transaction();
      return readFileSync(bench.binlogs.newest).length;
    });
    return { from: ends[0]! };
  };
  const overwrite = (offset: number, bytes: Buffer) => {
    const whole = readFileSync(bench.binlogs.newest);
    bytes.copy(whole, offset);
    writeFileSync(bench.binlogs.newest, whole);
  };

  test('a wrong checksum stops shipping before it, and shipping goes on once it is mended', async () => {
    const { from } = threeTransactions();
    const sound = readFileSync(bench.binlogs.newest);
    overwrite(from + 42 + 20, Buffer.from([0xff]));
    expect(await bench.follow()).toMatchObject({
      code: 'SOURCE_CORRUPT',
      verdict: 'retry',
      message: expect.stringMatching(
        /binlog\.000001 is damaged at offset \d+: the checksum of tableMap \(19\) is wrong/,
      ),
      hint: expect.stringContaining('mariadb-binlog'),
    });
    expect(bench.shipping.position).toMatchObject({ offset: from, id: '0-1-1' });
    writeFileSync(bench.binlogs.newest, sound);
    await bench.shipping.ship(bench.open());
    expect(bench.shipping.contents()).toEqual(bench.binlogs.contents());
  });

  test('an impossible length stops shipping before it, in a file that goes on', async () => {
    const { from } = threeTransactions();
    overwrite(from + 9, Buffer.from([18, 0, 0, 0]));
    expect(await bench.follow()).toMatchObject({
      code: 'SOURCE_CORRUPT',
      message: expect.stringContaining('18 bytes'),
    });
    expect(bench.shipping.position).toMatchObject({ offset: from });
    await bench.binlogs.rotate();
    expect(await bench.follow({ by: bench.open() })).toMatchObject({ code: 'SOURCE_CORRUPT' });
  });

  test('a file that is no binlog, or of an unknown format, is an error', async () => {
    writeFileSync(bench.binlogs.newest, Buffer.alloc(4096, 'text'));
    const named = () => bench.open({ index: 'binlog.index' });
    expect(await bench.follow({ by: named() })).toMatchObject({
      code: 'SOURCE_CORRUPT',
      message: expect.stringContaining('offset 0'),
    });
    const description = binlog.formatDescription({ algorithm: 2 });
    writeFileSync(bench.binlogs.newest, Buffer.concat([binlog.MAGIC, description, binlog.gtidList([])]));
    expect(await bench.follow({ by: named() })).toMatchObject({
      code: 'SOURCE_CORRUPT',
      message: expect.stringContaining('format description'),
    });
  });

  test.each([
    ['half an event', binlog.rows(300).subarray(0, 200)],
    ['half a header', binlog.rows(300).subarray(0, 12)],
    ['zeros', Buffer.alloc(500)],
    ['an event with wrong bytes', Buffer.concat([binlog.rows(300).subarray(0, 200), Buffer.alloc(123)])],
    ['a transaction without an end', Buffer.concat([binlog.gtid({ sequence: 2 }), binlog.rows(300)])],
    ['half an event larger than a slice', binlog.rows(3000).subarray(0, 2500)],
  ])('what a crash leaves at the end of a file is shipped as it is, then the next file: %s', async (_, tail) => {
    bench.binlogs.transaction();
    bench.binlogs.crash({ tail });
    bench.binlogs.transaction();
    const small = bench.open({ maxSliceBytes: 1024 });
    const slices = await bench.shipping.ship(small);
    expect(bench.shipping.contents()).toEqual(bench.binlogs.contents());
    const torn = slices.filter(({ boundary, to }) => !boundary && to.segment === 'binlog.000001');
    expect(torn.length).toBeGreaterThan(0);
    expect(torn.every(({ to }) => to.id === '0-1-1')).toBe(true);
    expect(slices.at(-1)).toMatchObject({ boundary: true, to: { id: '0-1-2' } });
    expect(bench.warnings).toHaveLength(1);
    // And another twin may go on from any of these.
    for (const { to } of torn) {
      const rest = new Shipping();
      rest.open({ result: 'resume', at: to, allowed: true, reason: '', evidence: {} });
      await rest.ship(bench.open({ maxSliceBytes: 1024 }));
      expect(rest.position).toEqual(bench.shipping.position);
    }
  });

  test('zeros at the end of the newest file wait for the crashed server to come back', async () => {
    bench.binlogs.transaction();
    bench.binlogs.write(Buffer.alloc(200));
    const ending = bench.follow({ enough: () => bench.shipping.position?.id === '0-1-2' });
    await until('the transaction is shipped', () => bench.shipping.position?.id === '0-1-1', { everyMs: 5 });
    bench.binlogs.crash();
    bench.binlogs.transaction();
    expect(await ending).toMatchObject({ message: 'enough' });
    expect(bench.shipping.contents()).toEqual(bench.binlogs.contents());
  });
});
