import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { UsageError } from '../../src/errors.ts';
import { mariadbFormat } from '../../src/source/mariadb/format.ts';
import { type Flavour, type GtidState, gtidStateAt, gtidStateOf } from '../../src/source/mariadb/gtid.ts';
import * as binlog from '../helpers/binlog.ts';

const OTHER_UUID = '9c000000-0000-0000-0000-00000000000c';
const CHECKSUM_BYTES = 4;

const load = (state: GtidState, event: Buffer) => state.load(event, 0, event.length - CHECKSUM_BYTES);
const see = (state: GtidState, ...events: Buffer[]) => {
  for (const event of events) {
    state.begin(event, 0, event.length - CHECKSUM_BYTES);
    state.complete();
  }
  return state.text();
};
const start = (flavour: Flavour) => gtidStateAt(flavour, '');

describe("MariaDB's GTID position", () => {
  test('is the last GTID of each domain, in the order of the domains', () => {
    const state = start('mariadb');
    expect(state.text()).toBe('');
    const events = [
      binlog.gtid({ domain: 7, server: 2, sequence: 9 }),
      binlog.gtid({ domain: 0, server: 1, sequence: 51 }),
      binlog.gtid({ domain: 0, server: 3, sequence: 52 }),
    ];
    expect(see(state, ...events)).toBe('0-3-52,7-2-9');
  });

  test('does not move before the group is complete', () => {
    const state = gtidStateAt('mariadb', '0-1-5');
    state.begin(binlog.gtid({ sequence: 6 }), 0, 42);
    expect(state.text()).toBe('0-1-5');
  });

  test('takes the last of several servers that a list names for a domain', () => {
    const state = gtidStateAt('mariadb', '5-5-5');
    load(
      state,
      binlog.gtidList([
        { domain: 0, server: 2, sequence: 100 },
        { domain: 0, server: 1, sequence: 90 },
        { domain: 3, server: 1, sequence: 4 },
      ]),
    );
    expect(state.text()).toBe('0-1-90,3-1-4');
  });

  test('keeps all 64 bits of a sequence number', () => {
    const sequence = (1n << 64n) - 2n;
    expect(see(start('mariadb'), binlog.gtid({ domain: 4294967295, server: 4294967295, sequence }))).toBe(
      `4294967295-4294967295-${sequence}`,
    );
    expect(gtidStateAt('mariadb', `0-1-${sequence}`).text()).toBe(`0-1-${sequence}`);
  });

  test('covers an ID when each of its domains has come that far', () => {
    const state = gtidStateOf('0-1-52,7-1-9');
    for (const id of ['0-1-52', '0-9-51', '7-1-9,0-1-1', '']) expect(state.covers(gtidStateOf(id))).toBe(true);
    for (const id of ['0-1-53', '1-1-1', '0-1-1,7-1-10', '0-1-9007199254740993', `${binlog.UUID}:1`]) {
      expect(state.covers(gtidStateOf(id))).toBe(false);
    }
  });
});

describe("MySQL's GTID sets", () => {
  test('grow by runs, join where they touch, and are ordered by source', () => {
    const state = start('mysql');
    const sequences = [1, 2, 3, 7, 5, 6, 4];
    expect(see(state, ...sequences.slice(0, 4).map((sequence) => binlog.mysqlGtid({ sequence })))).toBe(
      `${binlog.UUID}:1-3:7`,
    );
    expect(see(state, binlog.mysqlGtid({ uuid: OTHER_UUID, sequence: 2 }))).toBe(
      `${binlog.UUID}:1-3:7,${OTHER_UUID}:2`,
    );
    expect(see(state, ...sequences.slice(4).map((sequence) => binlog.mysqlGtid({ sequence })))).toBe(
      `${binlog.UUID}:1-7,${OTHER_UUID}:2`,
    );
  });

  test('are the same whatever the order of the transactions', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer({ min: 1, max: 40 }), { minLength: 1 }), (sequences) => {
        const inOrder = sequences.toSorted((a, b) => a - b);
        const gtids = (numbers: readonly number[]) => numbers.map((sequence) => binlog.mysqlGtid({ sequence }));
        expect(see(start('mysql'), ...gtids(sequences))).toBe(see(start('mysql'), ...gtids(inOrder)));
      }),
    );
  });

  test('are taken over from a list, with and without tags', () => {
    const state = start('mysql');
    load(
      state,
      binlog.previousGtids([
        {
          intervals: [
            [1, 5],
            [8, 8],
          ],
        },
        { uuid: OTHER_UUID, intervals: [[2, 3]] },
      ]),
    );
    expect(state.text()).toBe(`${binlog.UUID}:1-5:8,${OTHER_UUID}:2-3`);
    load(state, binlog.previousGtids([{ intervals: [[1, 5]] }, { tag: 'billing', intervals: [[1, 2]] }]));
    expect(state.text()).toBe(`${binlog.UUID}:1-5:billing:1-2`);
  });

  test('hold tagged GTIDs, numbers of any length', () => {
    for (const sequence of [1n, 63n, 64n, 8191n, 1n << 40n, (1n << 62n) + 1n]) {
      const state = start('mysql');
      expect(see(state, binlog.taggedGtid({ tag: 'a_tag', sequence }))).toBe(`${binlog.UUID}:a_tag:${sequence}`);
    }
  });

  test('variable integers are as MySQL documents them', () => {
    expect(binlog.variable(65_535)).toEqual(Buffer.from([0b11111011, 0b11111111, 0b00000111]));
    expect(binlog.variable(0xffff_ffff_ffff_ffffn)).toHaveLength(9);
  });

  test('anonymous transactions leave no trace', () => {
    const state = gtidStateAt('mysql', `${binlog.UUID}:1-3`);
    expect(see(state, binlog.anonymousGtid())).toBe(`${binlog.UUID}:1-3`);
  });

  test('are written as the server writes them, however they were given', () => {
    const text = ` ${binlog.UUID.toUpperCase()}:4:1-3:6-6,\n${OTHER_UUID}:1:tag:5-7`;
    expect(gtidStateOf(text).text()).toBe(`${binlog.UUID}:1-4:6,${OTHER_UUID}:1:tag:5-7`);
  });

  test('cover a set that lies within', () => {
    const state = gtidStateOf(`${binlog.UUID}:1-10:tag:1-2`);
    for (const id of [`${binlog.UUID}:3-10`, `${binlog.UUID}:tag:2`]) expect(state.covers(gtidStateOf(id))).toBe(true);
    for (const id of [`${binlog.UUID}:10-11`, `${OTHER_UUID}:1`, `${binlog.UUID}:tag:3`, '0-1-1']) {
      expect(state.covers(gtidStateOf(id))).toBe(false);
    }
  });
});

describe("an operator's ID", () => {
  const { parseId, covers } = mariadbFormat();

  test('is taken in any of the notations', () => {
    expect(parseId(' 7-1-3, 0-1-52 ')).toBe('0-1-52,7-1-3');
    expect(parseId(`${binlog.UUID}:1-3`)).toBe(`${binlog.UUID}:1-3`);
    expect(parseId('mysql-bin.000003:1500')).toBe('mysql-bin.000003:1500');
  });

  test('is refused with a hint where it is none', () => {
    for (const text of ['', '0-1', 'latest', '0-1-2;0-1-3', 'binlog.000003', `${binlog.UUID}:0`, `${binlog.UUID}`]) {
      expect(() => parseId(text)).toThrow(UsageError);
    }
  });

  test('of a place is compared by file, then offset', () => {
    expect(covers!('binlog.000010:4', 'binlog.000009:100')).toBe(true);
    expect(covers!('binlog.000009:100', 'binlog.000009:100')).toBe(true);
    expect(covers!('binlog.000009:99', 'binlog.000009:100')).toBe(false);
    expect(covers!('0-1-3', 'binlog.000001:4')).toBe(false);
    expect(covers!('0-1-3', '0-1-2')).toBe(true);
  });
});
