import { appendFileSync, chmodSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import * as binlog from '../helpers/binlog.ts';
import { asShipped, BinlogDir } from '../helpers/binlog.ts';
import { benchOfBinlogs } from '../helpers/binlog-source.ts';

const bench = benchOfBinlogs();

describe('the index of binlogs', () => {
  test('is found beside that of the relay logs, which is none', async () => {
    const relay = Buffer.concat([binlog.MAGIC, binlog.formatDescription({ flags: 0x40 }), binlog.gtidList([])]);
    writeFileSync(join(bench.binlogs.dir, 'a-relay-bin.000001'), relay);
    writeFileSync(join(bench.binlogs.dir, 'a-relay-bin.index'), './a-relay-bin.000001\n');
    await bench.shipping.ship(bench.source);
    expect([...bench.shipping.contents().keys()]).toEqual(['binlog.000001']);
  });

  test('is never a relay log index, whatever it is named', async () => {
    writeFileSync(
      bench.binlogs.newest,
      Buffer.concat([binlog.MAGIC, binlog.formatDescription({ flags: 0x40 }), binlog.gtidList([])]),
    );
    await expect(bench.source.locate(null)).rejects.toMatchObject({ code: 'SOURCE_NO_INDEX', verdict: 'retry' });
    const named = bench.open({ index: 'binlog.index' });
    await expect(named.locate(null)).rejects.toMatchObject({
      code: 'SOURCE_NO_INDEX',
      hint: expect.stringContaining('index:'),
    });
  });

  test('must be named where two could be meant', async () => {
    writeFileSync(join(bench.binlogs.dir, 'old.000001'), readFileSync(bench.binlogs.newest));
    writeFileSync(join(bench.binlogs.dir, 'old.index'), './old.000001\n');
    await expect(bench.source.locate(null)).rejects.toMatchObject({
      code: 'SOURCE_INDEX_AMBIGUOUS',
      message: expect.stringContaining('binlog.index, old.index'),
      hint: expect.stringContaining('index:'),
    });
    const named = bench.open({ index: 'old.index' });
    expect((await named.locate(null)).at).toMatchObject({ segment: 'old.000001' });
  });

  test('that comes beside it later is told: the server may write there now, and the log here stand still', async () => {
    await bench.shipping.ship(bench.source);
    writeFileSync(join(bench.binlogs.dir, 'renamed.000001'), readFileSync(bench.binlogs.newest));
    writeFileSync(join(bench.binlogs.dir, 'renamed.index'), './renamed.000001\n');
    expect(await bench.source.inspect()).toMatchObject([
      { level: 'error', message: expect.stringContaining('several') },
    ]);
    expect(await bench.open({ index: 'binlog.index' }).inspect()).toMatchObject([{ level: 'ok' }, { level: 'ok' }]);
  });

  test('missing, or the directory unreadable, is an error that passes', async () => {
    rmSync(bench.binlogs.index);
    const ending = bench.follow();
    expect(await ending).toMatchObject({
      code: 'SOURCE_NO_INDEX',
      verdict: 'retry',
      hint: expect.stringContaining('log_bin'),
    });
    for (const dir of [join(bench.binlogs.dir, 'absent'), bench.binlogs.newest]) {
      await expect(bench.open({ dir }).locate(null)).rejects.toMatchObject({
        code: 'SOURCE_UNREADABLE',
        verdict: 'retry',
      });
    }
    const missing = bench.open({ index: 'elsewhere.index' });
    await expect(missing.locate(null)).rejects.toMatchObject({
      code: 'SOURCE_UNREADABLE',
      message: expect.stringContaining('elsewhere.index'),
    });
    appendFileSync(bench.binlogs.index, './binlog.000001\n');
    await bench.shipping.ship(bench.source);
    expect(bench.shipping.contents()).toEqual(bench.binlogs.contents());
  });

  test('without rights is an error that says whose rights', async () => {
    const isRoot = process.geteuid!() === 0;
    chmodSync(bench.binlogs.dir, 0o000);
    if (isRoot) process.seteuid!(65534);
    try {
      await expect(bench.source.locate(null)).rejects.toMatchObject({
        code: 'SOURCE_UNREADABLE',
        hint: expect.stringContaining('user'),
      });
    } finally {
      if (isRoot) process.seteuid!(0);
      chmodSync(bench.binlogs.dir, 0o700);
    }
  });

  test('may hold absolute paths, and paths that a mount has moved', async () => {
    bench.binlogs.transaction();
    await bench.binlogs.rotate();
    writeFileSync(bench.binlogs.index, `${bench.binlogs.dir}/binlog.000001\n/var/log/elsewhere/binlog.000002\n`);
    await bench.shipping.ship(bench.source);
    expect([...bench.shipping.contents().keys()]).toEqual(['binlog.000001', 'binlog.000002']);
  });

  test('never leads out of the directory to a file of the same name: on the host of a container, another server’s', async () => {
    const other = new BinlogDir({ serverId: 9 });
    other.start();
    other.transaction();
    writeFileSync(bench.binlogs.index, `${other.dir}/binlog.000001\n`);
    await bench.shipping.ship(bench.source);
    other.remove();
    expect(bench.shipping.contents()).toEqual(
      new Map([['binlog.000001', asShipped(readFileSync(bench.binlogs.newest))]]),
    );
  });

  test('is not believed before its last line is whole', async () => {
    await bench.shipping.ship(bench.source);
    writeFileSync(join(bench.binlogs.dir, 'binlog.000002'), readFileSync(bench.binlogs.newest));
    appendFileSync(bench.binlogs.index, './binlog.0000');
    expect((await bench.source.backlog(bench.shipping.position)).bytes).toBe(0);
    appendFileSync(bench.binlogs.index, '02\n');
    expect((await bench.open().backlog(bench.shipping.position)).bytes).toBe(readFileSync(bench.binlogs.newest).length);
  });

  test('is read again while a purge rewrites it in place', async () => {
    for (let i = 0; i < 3; i++) await bench.binlogs.rotate();
    const whole = readFileSync(bench.binlogs.index, 'utf8').split('\n');
    // The purge has copied the last two lines to the start, and has yet to cut off what follows them.
    writeFileSync(bench.binlogs.index, [...whole.slice(2, 4), ...whole.slice(2)].join('\n'));
    const looking = bench.source.locate(null);
    setTimeout(() => writeFileSync(bench.binlogs.index, whole.slice(2).join('\n')), 20);
    expect((await looking).at).toMatchObject({ segment: 'binlog.000003' });
  });

  test('that lists nonsense is an error', async () => {
    writeFileSync(bench.binlogs.index, './binlog.000002\n./binlog.000001\n');
    const named = bench.open({ index: bench.binlogs.index });
    await expect(named.locate(null)).rejects.toMatchObject({ code: 'SOURCE_BAD_INDEX' });
  });

  test('in an empty directory is yet to come: the log is empty, and read once it begins', async () => {
    bench.use(new BinlogDir(), { start: false });
    expect(await bench.source.locate(null)).toMatchObject({ result: 'start', at: null, allowed: true });
    expect(await bench.source.end()).toBeNull();
    expect(await bench.source.backlog(null)).toEqual({ bytes: 0, oldestMs: null });
    expect(await bench.source.identity()).toEqual({ type: 'mariadb', name: null });
    const ending = bench.follow({ enough: () => bench.shipping.position?.id === '0-1-1' });
    bench.binlogs.start();
    bench.binlogs.transaction();
    await ending;
    expect(bench.shipping.contents()).toEqual(bench.binlogs.contents());
    expect(await bench.source.identity()).toEqual({ type: 'mariadb', name: 'server-1' });
  });
});
