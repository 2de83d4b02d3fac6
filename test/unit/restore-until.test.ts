import { describe, expect, test } from '@jest/globals';
import { UsageError } from '../../src/errors.ts';
import { parseUntil, untilText } from '../../src/restore/until.ts';
import { fakeFormat } from '../fakes/fake-format.ts';

const parse = (text: string) => parseUntil(text, fakeFormat());

describe('--until', () => {
  test.each([
    ['2026-11-22T13:05:00Z', '2026-11-22T13:05:00Z'],
    ['2026-11-22T15:05:00+02:00', '2026-11-22T13:05:00Z'],
    ['2026-11-22t13:05:00.25z', '2026-11-22T13:05:00.250Z'],
    ['2026-11-22 08:05:00-05:00', '2026-11-22T13:05:00Z'],
  ])('%s is a time', (text, utc) => {
    expect(parse(text)).toEqual({ kind: 'time', ms: Date.parse(utc) });
    expect(untilText(parse(text))).toBe(utc);
  });

  test.each(['2026-11-22T13:05:00', '2026-11-22 13:05:00'])('%s is refused: it has no zone', (text) => {
    expect(() => parse(text)).toThrow(UsageError);
    expect(() => parse(text)).toThrow(/has no zone/);
  });

  test.each([
    ...['2026-02-30T00:00:00Z', '2026-13-01T00:00:00Z', '2026-11-22T25:00:00Z'],
    ...['2026-11-22T13:05:00+0100', '2026-11-22T13:05Z', '2026-11-22 13:05:00 UTC'],
  ])('%s is no time', (text) => {
    expect(() => parse(text)).toThrow(/is not a time/);
  });

  test('anything else is an ID in the words of the log, or refused by them', () => {
    expect(parse('0-1-52')).toEqual({ kind: 'id', id: '0-1-52' });
    expect(parse('latest')).toEqual({ kind: 'latest' });
    expect(() => parse('yesterday')).toThrow(UsageError);
  });
});
