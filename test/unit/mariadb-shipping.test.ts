import { appendFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, jest, test } from '@jest/globals';
import { Discontinuity } from '../../src/errors.ts';
import { endOf, Shipping } from '../contract/source-shipping.ts';
import * as binlog from '../helpers/binlog.ts';
import { BinlogDir } from '../helpers/binlog.ts';
import { benchOfBinlogs } from '../helpers/binlog-source.ts';

const bench = benchOfBinlogs();

const shippedBytes = (name: string) => bench.shipping.contents().get(name) ?? Buffer.alloc(0);

describe('what can be shipped', () => {
  test('bytes are durable before they are yielded, whoever wrote them', async () => {
    const handle = await open(bench.binlogs.newest);
    const prototype: typeof handle = Object.getPrototypeOf(handle);
    await handle.close();
    let syncedTo = 0;
    const datasync = prototype.datasync;
    const spy = jest.spyOn(prototype, 'datasync').mockImplementation(async function (this: typeof handle) {
      const { size } = await this.stat();
      await datasync.call(this);
      syncedTo = size;
    });
    try {
      let transactions = 0;
      const ending = endOf(bench.source.read(null, bench.stop.signal), ({ to }) => {
        expect(to.offset).toBeLessThanOrEqual(syncedTo);
        if (++transactions === 5) bench.stop.abort();
        bench.binlogs.transaction();
      });
      await ending;
      expect(transactions).toBe(5);
    } finally {
      spy.mockRestore();
    }
  });

  test('the in-use flag is shipped as 0, and does not change a file in the middle of its shipping', async () => {
    bench.binlogs.transaction();
    expect(readFileSync(bench.binlogs.newest)[21]).toBe(1);
    await bench.shipping.ship(bench.source);
    expect(shippedBytes('binlog.000001')[21]).toBe(0);
    await bench.binlogs.rotate();
    expect(readFileSync(join(bench.binlogs.dir, 'binlog.000001'))[21]).toBe(0);
    expect(await bench.open().locate(bench.shipping.head())).toMatchObject({
      result: 'resume',
      at: bench.shipping.position,
    });
    await bench.shipping.ship(bench.source);
    expect(shippedBytes('binlog.000001')).toEqual(readFileSync(join(bench.binlogs.dir, 'binlog.000001')));
  });

  test('half an event waits for the rest', async () => {
    await bench.shipping.ship(bench.source);
    const transaction = Buffer.concat([binlog.gtid({ sequence: 1 }), binlog.rows(500), binlog.xid()]);
    bench.binlogs.write(transaction.subarray(0, 300));
    const ending = bench.follow({ enough: () => bench.shipping.position?.id === '0-1-1' });
    for (let at = 300; at < transaction.length; at += 50) {
      const before = bench.shipping.position;
      bench.binlogs.write(transaction.subarray(at, at + 50));
      await new Promise((resolve) => setImmediate(resolve));
      if (at + 50 < transaction.length) expect(bench.shipping.position).toEqual(before);
    }
    await ending;
    expect(bench.shipping.contents()).toEqual(bench.binlogs.contents());
  });

  test('a log without checksums is shipped, and resumed from inside a transaction', async () => {
    bench.use(new BinlogDir({ checksums: false }));
    bench.binlogs.transaction({ bytes: 5000, eventBytes: 700 });
    await bench.binlogs.rotate();
    bench.binlogs.transaction();
    const small = bench.open({ maxSliceBytes: 1024 });
    await bench.shipping.ship(small);
    expect(bench.shipping.contents()).toEqual(bench.binlogs.contents());
    for (const { to } of bench.shipping.chunks.slice(0, -1)) {
      const rest = new Shipping();
      rest.open({ result: 'resume', at: to, allowed: true, reason: '', evidence: {} });
      await rest.ship(bench.open({ maxSliceBytes: 1024 }));
      expect(rest.position).toEqual(bench.shipping.position);
    }
  });

  test('an event larger than a slice is checked to its end before any of it is shipped', async () => {
    const small = bench.open({ maxSliceBytes: 4096 });
    const large = binlog.rows(100_000);
    large[90_000]! ^= 1;
    bench.binlogs.transaction();
    const sound = readFileSync(bench.binlogs.newest).length;
    bench.binlogs.write(binlog.gtid({ sequence: 2 }), large, binlog.xid());
    expect(await bench.follow({ by: small })).toMatchObject({
      code: 'SOURCE_CORRUPT',
      message: expect.stringContaining(`offset ${sound + 42}`),
    });
    expect(bench.shipping.position).toMatchObject({ offset: sound + 42 });
    expect(bench.shipping.chunks.at(-1)).toMatchObject({ openTransaction: true });
  });

  test('a server id that changes between two files ends the term; the next goes on with the new one', async () => {
    bench.binlogs.transaction();
    await bench.shipping.ship(bench.source);
    const description = binlog.formatDescription({ serverId: 7 });
    const list = binlog.gtidList([{ sequence: 1 }], { serverId: 7 });
    writeFileSync(join(bench.binlogs.dir, 'binlog.000002'), Buffer.concat([binlog.MAGIC, description, list]));
    appendFileSync(bench.binlogs.index, './binlog.000002\n');
    expect(await bench.follow()).toBeInstanceOf(Discontinuity);
    const located = await bench.source.locate(bench.shipping.head());
    expect(located).toMatchObject({
      result: 'move',
      allowed: true,
      at: { origin: 'mariadb-7', segment: 'binlog.000002', offset: 0 },
    });
    bench.shipping.open(located);
    await bench.shipping.ship(bench.source);
    expect(shippedBytes('binlog.000002')).toEqual(readFileSync(join(bench.binlogs.dir, 'binlog.000002')));
  });

  test('what the log itself says that it lacks is told, once for each file', async () => {
    const write = (sequence: number, server: number) =>
      bench.binlogs.write(binlog.gtid({ sequence, server }), binlog.rows(50), binlog.xid());
    for (const sequence of [1, 2]) write(sequence, 9);
    // On the server's own writes nobody can have been left behind: its number was set.
    write(7, 1);
    await bench.shipping.ship(bench.source);
    expect(bench.warnings).toEqual([]);
    for (const sequence of [9, 10, 12]) write(sequence, 9);
    bench.binlogs.write(binlog.event(26, Buffer.from([1, 0, 0])));
    await bench.shipping.ship(bench.source);
    expect(bench.warnings).toEqual([
      expect.stringContaining('0-9-9 follows 0-1-7: what is between was skipped'),
      expect.stringContaining('incident'),
    ]);
  });

  test("encrypted binlogs are refused, MariaDB's and MySQL's", async () => {
    const first = Buffer.concat([binlog.MAGIC, binlog.formatDescription(), binlog.startEncryption()]);
    const encryptedMagic = Buffer.from([0xfd, 0x62, 0x69, 0x6e]);
    for (const bytes of [first, Buffer.concat([encryptedMagic, Buffer.alloc(600, 'x')])]) {
      writeFileSync(bench.binlogs.newest, bytes);
      const named = bench.open({ index: 'binlog.index' });
      await expect(named.locate(null)).rejects.toMatchObject({
        code: 'SOURCE_ENCRYPTED',
        verdict: 'retry',
        hint: expect.stringContaining('encrypt_binlog'),
      });
      expect(await named.inspect()).toMatchObject([{ level: 'error', message: expect.stringContaining('encrypted') }]);
    }
  });

  test('a log of the other database than the config says is refused: it would be cut inside transactions', async () => {
    bench.binlogs.transaction();
    await expect(bench.open({ flavour: 'mysql' }).locate(null)).rejects.toMatchObject({
      code: 'SOURCE_OTHER_TYPE',
      verdict: 'retry',
      message: expect.stringContaining('was written by MariaDB, but the config says "type: mysql"'),
      hint: expect.stringContaining('type: mariadb'),
    });
  });

  test('the version that a server is set to claim does not matter', async () => {
    const first = [binlog.formatDescription({ version: '8.0.36' }), binlog.gtidList([{ sequence: 7 }])];
    writeFileSync(bench.binlogs.newest, Buffer.concat([binlog.MAGIC, ...first]));
    expect((await bench.source.locate(null)).at).toMatchObject({ origin: 'mariadb-1', id: '0-1-7' });
  });

  test('what is held is shipped to its end even when the index is gone', async () => {
    bench.binlogs.transaction();
    await bench.binlogs.rotate();
    const slices = bench.source.read(null, bench.stop.signal)[Symbol.asyncIterator]();
    bench.shipping.add((await slices.next()).value);
    bench.binlogs.transaction();
    const expected = bench.binlogs.contents();
    for (const name of bench.binlogs.files) rmSync(join(bench.binlogs.dir, name));
    const ending = endOf({ [Symbol.asyncIterator]: () => slices }, (slice) => bench.shipping.add(slice));
    expect(await ending).toMatchObject({ code: 'SOURCE_UNREADABLE', verdict: 'retry' });
    expect(bench.shipping.contents()).toEqual(expected);
  });
});
