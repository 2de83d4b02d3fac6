import { fstatSync } from 'node:fs';
import { PassThrough } from 'node:stream';
import { stripVTControlCharacters } from 'node:util';
import { describe, expect, test } from '@jest/globals';
import type { LogLevel } from '../../src/core/log.ts';
import { redact } from '../../src/core/log.ts';
import { ShipmateError } from '../../src/errors.ts';
import { createLog, type LogStyle, logLevel, logStyle } from '../../src/log.ts';

function logTo({ level = 'info', style = 'json' }: { level?: LogLevel; style?: LogStyle } = {}) {
  const out = new PassThrough({ encoding: 'utf8' });
  const text = () => String(out.read() ?? '');
  return { log: createLog({ node: 'db-1', level, style, out }), text };
}

describe('JSON lines', () => {
  test('a line holds time, level and message first, then node, stream and what varies', () => {
    const { log, text } = logTo();
    log.child({ stream: 'orders' }).warn('the store is slow', { waitedMs: 12, revision: 7n });
    const line = JSON.parse(text());
    expect(Object.keys(line)).toEqual(['time', 'level', 'message', 'node', 'stream', 'waitedMs', 'revision']);
    expect(line).toMatchObject({
      level: 'warn',
      message: 'the store is slow',
      node: 'db-1',
      stream: 'orders',
      revision: '7',
    });
    expect(new Date(line.time).toISOString()).toBe(line.time);
  });

  test('an error shows what happened, its code, hint and cause, and its stack for debugging only', () => {
    const error = new ShipmateError('no answer', {
      code: 'STORE_UNREACHABLE',
      hint: 'look',
      cause: new Error('reset'),
    });
    const { log, text } = logTo();
    log.error('upload failed', { error });
    expect(JSON.parse(text()).error).toEqual({
      message: 'no answer',
      code: 'STORE_UNREACHABLE',
      hint: 'look',
      cause: { message: 'reset' },
    });
    const debugging = logTo({ level: 'debug' });
    debugging.log.error('upload failed', { error });
    expect(JSON.parse(debugging.text()).error.stack).toContain('log.test.ts');
  });

  test('no field can pass itself off as the level or the message', () => {
    const { log, text } = logTo();
    log.info('real', { level: 'error', message: 'forged', time: 'never' });
    expect(JSON.parse(text())).toMatchObject({ level: 'info', message: 'real' });
  });

  test('what is below the level is left out', () => {
    const { log, text } = logTo({ level: 'warn' });
    log.info('chatter');
    log.error('matters');
    expect(text().split('\n')).toEqual([expect.stringContaining('matters'), '']);
  });

  test('a message of several lines stays one line', () => {
    const { log, text } = logTo();
    log.info('a\nb', { note: 'c\nd' });
    expect(text().split('\n')).toHaveLength(2);
  });
});

test('on a terminal a line reads level, stream, message, facts', () => {
  const { log, text } = logTo({ style: 'text' });
  log.child({ stream: 'orders' }).info('master of term 3', { result: 'resume', reason: 'same bytes' });
  const plain = stripVTControlCharacters(text());
  expect(plain).toMatch(/^\d\d:\d\d:\d\d\.\d{3} info {2}orders master of term 3 result=resume reason="same bytes"\n$/);
});

describe('for the journal', () => {
  test('a line begins with its priority, and reads stream, message, facts', () => {
    const { log, text } = logTo({ style: 'journal', level: 'debug' });
    log.info('shipmate runs', { url: 'http://127.0.0.1:9187' });
    const orders = log.child({ stream: 'orders' });
    orders.warn('store: no answer\nfor 30 s', { code: 'NO_ANSWER', hint: 'look at the link' });
    orders.error('it has stopped');
    orders.debug('asked', { revision: 7n });
    expect(text().split('\n')).toEqual([
      '<6>shipmate runs url=http://127.0.0.1:9187',
      '<4>orders: store: no answer for 30 s code=NO_ANSWER hint="look at the link"',
      '<3>orders: it has stopped',
      '<7>orders: asked revision=7',
      '',
    ]);
  });

  test('is written where stderr is the very stream that systemd names, and where it is asked for', () => {
    const { dev, ino } = fstatSync(2, { bigint: true });
    expect(logStyle(false, { JOURNAL_STREAM: `${dev}:${ino}` })).toBe('journal');
    expect(logStyle(false, { JOURNAL_STREAM: `${dev}:${ino + 1n}` })).toBe('json');
    expect(logStyle(true, {})).toBe('text');
    expect(logStyle(false, {})).toBe('json');
    expect(logStyle(true, { JOURNAL_STREAM: `${dev}:${ino}`, SHIPMATE_LOG_FORMAT: 'json' })).toBe('json');
    expect(() => logStyle(true, { SHIPMATE_LOG_FORMAT: 'xml' })).toThrow('SHIPMATE_LOG_FORMAT is "xml"');
  });
});

test('the level can change while the log is written, for all who have it', () => {
  const { log, text } = logTo({ level: 'info' });
  const child = log.child({ stream: 'orders' });
  child.debug('unheard');
  log.setLevel('debug');
  child.debug('heard');
  log.setLevel('error');
  child.warn('unheard');
  expect(text()).toMatch(/^[^\n]*"heard"[^\n]*\n$/);
});

describe('secrets', () => {
  test.each([
    ['mysql://me:secret@host/db', 'mysql://me:***@host/db'],
    [
      'could not reach postgresql://me:se:cr@et@/x?host=/run now',
      'could not reach postgresql://me:***@/x?host=/run now',
    ],
    ['https://h/x?a=1&token=secret&b=2', 'https://h/x?a=1&token=***&b=2'],
    ['http://127.0.0.1:2379/a@b', 'http://127.0.0.1:2379/a@b'],
    ['binlog.000001:4 at 0-1-52', 'binlog.000001:4 at 0-1-52'],
  ])('%s', (text, expected) => expect(redact(text)).toBe(expected));

  test('never reach the log, wherever they stand', () => {
    const { log, text } = logTo({ level: 'debug' });
    log.info('at mysql://me:secret@h', {
      url: 'mysql://me:secret@h',
      password: 'secret',
      nested: { accessToken: 'secret', list: ['mysql://me:secret@h'] },
      error: new Error('denied mysql://me:secret@h', { cause: new Error('mysql://me:secret@h') }),
    });
    const line = text();
    expect(line).toContain('denied');
    expect(line).not.toContain('secret');
  });
});

test('the level comes from SHIPMATE_LOG_LEVEL, and a wrong one is told', () => {
  expect(logLevel({})).toBe('info');
  expect(logLevel({}, 'warn')).toBe('warn');
  expect(logLevel({ SHIPMATE_LOG_LEVEL: 'error' }, 'warn')).toBe('error');
  expect(logLevel({ SHIPMATE_LOG_LEVEL: 'debug' })).toBe('debug');
  expect(() => logLevel({ SHIPMATE_LOG_LEVEL: 'loud' })).toThrow('SHIPMATE_LOG_LEVEL is "loud"');
});
