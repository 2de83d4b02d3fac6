import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { AofScanner, manifestOf, parseManifest } from '../../src/source/files/aof.ts';
import { filesFormat } from '../../src/source/files/format.ts';
import { openFilesSource } from '../../src/source/files.ts';
import type { Until } from '../../src/source/source.ts';
import { Shipping } from '../contract/source-shipping.ts';

const log = { debug() {}, info() {}, warn() {}, error() {} };
const redis = { layout: 'redis-aof', match: '*', order: 'number', cut: 'byte', settleMs: 0 } as const;

const command = (...words: string[]) =>
  `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join('')}`;

/** What Redis keeps or drops as a whole. */
const record = fc.oneof(
  fc.tuple(fc.string(), fc.string({ maxLength: 200 })).map(([key, value]) => command('SET', key, value)),
  fc.array(fc.string(), { maxLength: 3 }).map((keys) => {
    return [command('MULTI'), ...keys.map((key) => command('del', `${key}\r\n*1\r\n`)), command('exec')].join('');
  }),
  fc.constant(command('SELECT', '0')),
);

/** Feeds bytes in pieces of any lengths. */
function feedIn(pieces: readonly number[], bytes: Buffer, feed: (piece: Buffer) => void): void {
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const length = Math.max(1, pieces[i % pieces.length] ?? 1);
    feed(bytes.subarray(at, at + length));
    at += length;
  }
}

const pieces = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1 });

describe('increments of Redis', () => {
  test('have their boundaries after commands, and after EXEC, wherever the bytes are cut', () =>
    fc.assert(
      fc.property(fc.array(record), record, fc.nat(), pieces, (records, last, cutAt, lengths) => {
        const whole = Buffer.from(records.join(''));
        const part = Buffer.from(last);
        const scanner = new AofScanner();
        feedIn(lengths, Buffer.concat([whole, part.subarray(0, cutAt % part.length)]), (piece) => scanner.feed(piece));
        expect(scanner.boundary).toBe(whole.length);
      }),
    ));

  test('are cut before the first command that is later than a time', () =>
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(3), record, fc.boolean())), fc.nat(10), (timed, target) => {
        let seconds = 1_700_000_000;
        const chunks = [''];
        let before = 0;
        for (const [pause, each, endsChunk] of timed) {
          seconds += pause;
          const text = `#TS:${seconds}\r\n${each}`;
          chunks[chunks.length - 1] += text;
          if (endsChunk) chunks.push('');
          if (seconds <= 1_700_000_000 + target) before += Buffer.byteLength(text);
        }
        const cutter = filesFormat(redis).cutter({ kind: 'time', ms: (1_700_000_000 + target) * 1000 });
        const kept = chunks.map((chunk) => cutter.feed('appendonly.aof.1.incr.aof', Buffer.from(chunk)));
        expect(kept.reduce((sum, bytes) => sum + bytes, 0)).toBe(before);
        expect(cutter.reached).toBe(seconds > 1_700_000_000 + target);
      }),
    ));

  test('that are damaged are told from those that are torn', () => {
    expect(() => new AofScanner().feed(Buffer.from(`${command('SET', 'a', 'b')}REDIS`.padEnd(2_000, 'x')))).toThrow(
      'damaged',
    );
    expect(() => new AofScanner().feed(Buffer.from('$3\r\nSET\r\n'))).toThrow('damaged');
  });
});

describe('a restore of Redis', () => {
  const cut = (until: Until, parts: [string, string][]) => {
    const cutter = filesFormat(redis).cutter(until);
    return parts.map(([name, text]) => cutter.feed(name, Buffer.from(text)));
  };
  const [base, first, second] = ['a.aof.1.base.rdb', 'a.aof.1.incr.aof', 'a.aof.2.incr.aof'] as const;

  test('has a manifest that Redis writes itself, and that this source reads', () => {
    const { name, content } = manifestOf([base, first, second])!;
    expect(name).toBe('a.aof.manifest');
    expect(content).toBe(`file ${base} seq 1 type b\nfile ${first} seq 1 type i\nfile ${second} seq 2 type i\n`);
    expect(parseManifest(content)).toEqual([base, first, second]);
    expect(parseManifest(`file x.9.base.rdb seq 9 type h\n${content}`)).toEqual([base, first, second]);
    // As Redis 8 writes it.
    const later = content.replaceAll('type i', 'type i startoffset 0 endoffset 17');
    expect(parseManifest(later)).toEqual([base, first, second]);
    expect(parseManifest('nonsense')).toBeNull();
  });

  test('ends at the last whole command before a place, never inside the base', () => {
    const one = command('SET', 'a', '1');
    const parts: [string, string][] = [
      [base, 'REDIS0010'],
      [first, one + one],
      [second, one],
    ];
    const at = (place: string) => cut({ kind: 'id', id: place }, parts);
    expect(at(`${first}:${one.length}`)).toEqual([9, one.length, 0]);
    expect(at(`${first}:${one.length + 5}`)).toEqual([9, one.length, 0]);
    expect(at(`${first}:${2 * one.length}`)).toEqual([9, 2 * one.length, 0]);
    expect(at(`${base}:9`)).toEqual([9, 0, 0]);
    expect(() => at(`${base}:5`)).toThrow('lies inside');
  });

  test('may end with the last byte that there is: it is found, though nothing follows to tell', () => {
    const cutter = filesFormat(redis).cutter({ kind: 'id', id: `${first}:5` });
    cutter.feed(first, Buffer.from('four'));
    expect(cutter.isAtEnd).toBe(false);
    cutter.feed(first, Buffer.from('!'));
    expect(cutter).toMatchObject({ isAtEnd: true, reached: false, id: `${first}:5` });
  });

  test('to a time is refused where the increments carry none', () => {
    const untimed = Array.from({ length: 4 }, (_, i): [string, string] => [`a.aof.${i + 1}.incr.aof`, command('PING')]);
    expect(() => cut({ kind: 'time', ms: 0 }, untimed)).toThrow('carry no times');
  });

  test('orders IDs as the log does', () => {
    const { covers, parseId } = filesFormat(redis);
    expect(covers?.(`${first}:0`, `${base}:99`)).toBe(true);
    expect(covers?.('a.aof.10.incr.aof:0', 'a.aof.9.incr.aof:99')).toBe(true);
    expect(covers?.(`${first}:5`, `${first}:6`)).toBe(false);
    expect(() => parseId('0-1-7')).toThrow('is not an ID');
  });
});

describe('the directory of a Redis', () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'shipmate-aof-'));
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  const write = (name: string, text: string) => writeFileSync(join(dir, name), text);
  const manifest = (...names: string[]) => write('a.aof.manifest', manifestOf(names)!.content);
  const open = ({ maxSliceBytes = 1 << 20 } = {}) =>
    openFilesSource({ ...redis, stream: 'cache', dir, shared: true, node: 'db-1', busyPollMs: 5, maxSliceBytes, log });
  const [base, incr] = [(n: number) => `a.aof.${n}.base.rdb`, (n: number) => `a.aof.${n}.incr.aof`];
  const SET = command('SET', 'a', '1');

  test('is shipped from its base on; what a rewrite is about to name, and has not, is not', async () => {
    write(base(1), 'REDIS base');
    write(incr(1), `${SET}${SET.slice(0, 9)}`);
    write('temp-rewriteaof-bg-7.aof', 'half');
    manifest(base(1), incr(1));
    const source = open();
    const shipping = new Shipping();
    const stop = new AbortController();
    for await (const slice of source.read(null, stop.signal)) {
      shipping.add(slice);
      if (slice.to.segment === incr(1)) break;
    }
    expect([...shipping.contents()].map(([name, bytes]) => [name, String(bytes)])).toEqual([
      [base(1), 'REDIS base'],
      [incr(1), SET],
    ]);
    await source.close();
  });

  test('a transaction larger than a slice is open until its EXEC, wherever a twin goes on', async () => {
    const transaction = [command('MULTI'), ...Array(50).fill(SET), command('EXEC')].join('');
    write(base(1), 'REDIS base');
    write(incr(1), SET + transaction + SET);
    manifest(base(1), incr(1));
    const slicesFrom = async (shipping: Shipping) => {
      const source = open({ maxSliceBytes: 100 });
      const slices = await shipping.ship(source);
      await source.close();
      return slices;
    };
    const slices = await slicesFrom(new Shipping());
    const inside = slices.filter(({ boundary }) => !boundary);
    expect(inside.length).toBeGreaterThan(5);
    expect(new Set(inside.map(({ to }) => to.id))).toEqual(new Set([`${incr(1)}:${SET.length}`]));
    expect(slices.at(-1)).toMatchObject({
      boundary: true,
      to: { id: `${incr(1)}:${2 * SET.length + transaction.length}` },
    });
    for (const [index, { to }] of slices.slice(0, -1).entries()) {
      const rest = new Shipping();
      rest.open({ result: 'resume', at: to, allowed: true, reason: '', evidence: {} });
      expect((await slicesFrom(rest)).map((slice) => slice.to)).toEqual(
        slices.slice(index + 1).map((slice) => slice.to),
      );
    }
  });

  test('gap: increments were removed before they were shipped; the base there is now holds what is missing', async () => {
    write(base(1), 'REDIS base');
    write(incr(1), SET);
    manifest(base(1), incr(1));
    const before = open();
    const shipping = new Shipping();
    await shipping.ship(before);
    await before.close();
    for (const name of [base(1), incr(1)]) rmSync(join(dir, name));
    write(base(2), 'REDIS later');
    write(incr(3), SET);
    manifest(base(2), incr(3));
    const after = open();
    const located = await after.locate(shipping.head());
    expect(located).toMatchObject({ result: 'gap', allowed: false, at: { segment: base(2), offset: 0 } });
    shipping.open(located);
    await shipping.ship(after);
    expect([...shipping.contents().keys()]).toEqual([base(1), incr(1), base(2), incr(3)]);
    await after.close();
  });
});
