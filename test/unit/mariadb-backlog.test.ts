import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import type { Position } from '../../src/core/position.ts';
import { benchOfBinlogs } from '../helpers/binlog-source.ts';

const bench = benchOfBinlogs();

/** The binlogs that this process has open, by name; those gone from the directory marked. */
function openFiles(): string[] {
  const links = readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      return [];
    }
  });
  const prefix = `${bench.binlogs.dir}/`;
  return links
    .filter((path) => path.startsWith(prefix))
    .map((path) => path.slice(prefix.length))
    .sort();
}

async function writeFiles(count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    bench.binlogs.transaction();
    await bench.binlogs.rotate();
  }
}

/** Ships all by a source that is closed again, so that what is open is the other's. */
async function ship(): Promise<void> {
  const source = bench.open();
  await bench.shipping.ship(source);
  await source.close();
}

const sizeOf = (name: string) => readFileSync(join(bench.binlogs.dir, name)).length;
const startOf = (name: string): Position => ({
  ...bench.shipping.chunks.find(({ from }) => from.segment === name)!.from,
});

describe('the backlog', () => {
  test('is held open, so that a purge takes nothing, until it is acknowledged', async () => {
    await writeFiles(3);
    await ship();
    const { source } = bench;
    await source.backlog(startOf('binlog.000003'));
    expect(openFiles()).toContain('binlog.000001'); // what was shipped may not be where it must be yet
    await source.acknowledge(startOf('binlog.000002'));
    await source.backlog(startOf('binlog.000003'));
    expect(openFiles()).toEqual(['binlog.000002', 'binlog.000003', 'binlog.000004']);
    expect(source.heldBytes()).toBe(0);

    const purged = sizeOf('binlog.000002') + sizeOf('binlog.000003');
    bench.binlogs.purge();
    await source.backlog(startOf('binlog.000002'));
    expect(source.heldBytes()).toBe(purged);
    expect(openFiles()).toContain('binlog.000002 (deleted)');
    expect(await source.locate({ ...bench.shipping.head(), position: startOf('binlog.000002') })).toMatchObject({
      result: 'resume',
    });

    await source.acknowledge(startOf('binlog.000003'));
    expect(source.heldBytes()).toBe(purged - purged / 2);
    await source.acknowledge(startOf('binlog.000004'));
    expect(source.heldBytes()).toBe(0);
    expect(openFiles()).toEqual(['binlog.000004']);
  });

  test('counts what was purged but is held, and the time of its oldest byte', async () => {
    await writeFiles(2);
    await bench.shipping.ship(bench.open());
    const start = startOf('binlog.000002');
    const before = await bench.source.backlog(start);
    bench.binlogs.purge();
    expect(await bench.source.backlog(start)).toEqual(before);
    expect(before.oldestMs).toBeGreaterThan(1_700_000_000_000);
    // A twin that holds nothing counts what is left.
    expect((await bench.open().backlog(start)).bytes).toBe(sizeOf('binlog.000003'));
  });

  test('inside a large event is as old as its file, not as the bytes there', async () => {
    bench.binlogs.transaction({ bytes: 100_000, eventBytes: 100_000 });
    await bench.shipping.ship(bench.open({ maxSliceBytes: 1000 }));
    const inside = bench.shipping.chunks.find(({ openTransaction, from }) => openTransaction && from.offset > 5000)!;
    const { oldestMs } = await bench.source.backlog(inside.to);
    expect(Math.abs(oldestMs! - Date.now())).toBeLessThan(60_000);
  });

  test('is let go when the source is closed, after a reset as well', async () => {
    await writeFiles(2);
    const { source } = bench;
    await source.backlog(null);
    const slices = source.read(null, bench.stop.signal)[Symbol.asyncIterator]();
    await slices.next();
    bench.binlogs.reset();
    await source.backlog(null);
    expect(openFiles().length).toBeGreaterThan(1);
    await slices.return?.();
    expect(openFiles()).toEqual(['binlog.000001']);
    await source.close();
    expect(openFiles()).toEqual([]);
  });

  test('of many files is held up to a limit', async () => {
    await writeFiles(260);
    await bench.source.backlog(null);
    // The oldest, which a purge takes first, and the newest.
    expect(openFiles()).toHaveLength(257);
    expect(openFiles()).toEqual(expect.arrayContaining(['binlog.000001', 'binlog.000256', 'binlog.000261']));
  });
});

describe('what the files alone tell an operator', () => {
  test('how many there are, and whether events carry checksums', async () => {
    await writeFiles(1);
    expect(await bench.source.inspect()).toMatchObject([
      {
        level: 'ok',
        message: expect.stringMatching(/^2 binlogs, binlog\.000001 to binlog\.000002, \d+ bytes, of mariadb-1$/),
      },
      { level: 'ok', message: 'events carry checksums' },
    ]);
  });

  test('an unreachable server is told without its password', async () => {
    const findings = await bench.open({ url: 'mariadb://shipmate:s3cret@127.0.0.1:1' }).inspect();
    expect(findings.at(-1)).toMatchObject({ level: 'error', hint: expect.stringContaining('url:') });
    expect(JSON.stringify(findings)).not.toContain('s3cret');
  });
});
