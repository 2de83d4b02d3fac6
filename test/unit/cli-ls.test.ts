import { expect, test } from '@jest/globals';
import { listingText } from '../../src/cli/ls.ts';
import type { Position } from '../../src/core/position.ts';
import type { Listing } from '../../src/restore/listing.ts';

const GTIDS = '0-1-5230441,1-1-777123,2-2-99812231,3-1-12';
const at = (segment: string, offset: number, id = GTIDS): Position => ({
  ...{ origin: 'mariadb-1', incarnation: 'i', segment, offset, id },
});
const TIME = '2026-11-22T13:05:00.123Z';
const opened = {
  node: 'db-1.eu-central.example.com',
  time: TIME,
  chunks: 1234,
  bytes: 12_345_678_901,
  storedBytes: 2_345_678_901,
};
const dead = { node: 'db-2', time: TIME, before: at('binlog.000012', 4711), at: at('binlog.000020', 4) };

const listing: Listing = {
  stream: 'orders',
  store: 'main',
  archive: 'f55e8885-267b-4ff8-96a9-0ddfdb2c5975',
  recoverable: [
    { from: { id: '', timeMs: null }, to: { id: GTIDS, timeMs: 1.79e12 }, segments: 12, bytes: 12_345_678_901 },
    { from: { id: GTIDS, timeMs: 1.79e12 }, to: { id: GTIDS, timeMs: 1.795e12 }, segments: 1, bytes: 1234 },
  ],
  terms: [
    { ...opened, term: 1, result: 'resume', state: 'sealed', from: at('binlog.000001', 0, ''), to: dead.before },
    { ...opened, term: 2, result: null, state: 'sealed', from: dead.before, to: dead.before, chunks: 0, bytes: 0 },
    { ...opened, term: 3, result: 'gap', state: 'open', from: dead.at, to: at('binlog.000021', 47_111) },
  ],
  breaks: [
    { ...dead, result: 'gap', place: { term: 3, slot: 0 }, deadBytes: 0 },
    { ...dead, result: 'fork', place: { term: 4, slot: 0 }, deadBytes: 81_234 },
  ],
  hole: { at: { term: 4, slot: 7 }, next: { term: 4, slot: 9 } },
};

const words = (text: string) => text.replaceAll(/\s+/g, ' ');

test.each([60, 80, 120])('nothing of it is cut at %d columns but names, and no line is longer', (width) => {
  const text = listingText(listing, { width, colour: false });
  for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(width);
  expect(text).not.toContain('\x1b');
  const told = words(text);
  expect(told).toContain(`the beginning to 2026-09-21T14:13:20Z (${GTIDS}), 12 segments, 11 GiB`);
  expect(told).toContain(`from binlog.000012:4711 (${GTIDS}) to binlog.000020:4 (${GTIDS})`);
  expect(told).toContain('79 KiB that were shipped do not count');
  expect(told).toContain('MISSING: the object at term 4, slot 7');
  expect(told).toContain(`2 db-1`);
  expect(told).toContain(`nothing, at ${GTIDS}`);
});

test('what can be restored comes first, then what breaks it, then each term', () => {
  const text = listingText(listing, { width: 80, colour: false });
  const places = ['recoverable:', 'gap in term 3', 'fork in term 4', 'MISSING', 'TERM '].map((what) =>
    text.indexOf(what),
  );
  expect(places).toEqual([...places].sort((a, b) => a - b));
  expect(Math.min(...places)).toBeGreaterThan(0);
});

test('a gap and what is missing are red where colour is wanted', () => {
  const text = listingText(listing, { width: 200, colour: true });
  expect(text).toContain('\x1b[31mgap in term 3');
  expect(text).toContain('\x1b[31mMISSING');
});
