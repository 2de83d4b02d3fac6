import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { openTailer, type Tailer, type TailerOptions } from '../../src/source/tailer.ts';
import { withinLimit } from '../helpers/measured.ts';

const log = { debug() {}, info() {}, warn() {}, error() {} };
const NEVER_MS = 60_000;

describe('following files', () => {
  let dir: string;
  let tailer: Tailer;
  const { signal } = new AbortController();

  const open = (options: Partial<TailerOptions> = {}) => {
    tailer = openTailer({ busyPollMs: NEVER_MS, idlePollMs: NEVER_MS, log, ...options });
    return tailer;
  };
  /** Waits until the watcher has begun: changes are made until one is seen. */
  const untilWatching = async (path: string) => {
    const mark = tailer.mark();
    while (tailer.mark() === mark) {
      appendFileSync(path, '.');
      await delay(5);
    }
    await delay(20);
  };

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'shipmate-tailer-'));
  });
  afterEach(async () => {
    await tailer.close();
    rmSync(dir, { recursive: true, force: true });
  });

  test('every write wakes within milliseconds, however close to the one before', async () => {
    const path = join(dir, 'binlog.000001');
    writeFileSync(path, '');
    open().follow([path]);
    await untilWatching(path);
    const latenciesMs: number[] = [];
    for (let i = 0; i < 50; i++) {
      const mark = tailer.mark();
      const woken = tailer.changed(mark, signal);
      const wroteMs = performance.now();
      appendFileSync(path, 'bytes');
      await woken;
      latenciesMs.push(performance.now() - wroteMs);
      // What else the same write wakes must not pass for the next one.
      await delay(i % 3);
    }
    const median = latenciesMs.sort((a, b) => a - b)[25]!;
    expect(median).toBeLessThan(10);
  });

  test('a change between the mark and the wait is not lost', async () => {
    const path = join(dir, 'binlog.000001');
    writeFileSync(path, '');
    open().follow([path]);
    await untilWatching(path);
    const mark = tailer.mark();
    appendFileSync(path, 'bytes');
    while (tailer.mark() === mark) await delay(1);
    await tailer.changed(mark, signal);
  });

  test('wakes by the clock where the watcher is silent', async () => {
    open({ idlePollMs: 30 }).follow([join(dir, 'not there')]);
    for (let i = 0; i < 3; i++) await tailer.changed(tailer.mark(), signal);
  });

  test('looks often while the log is busy, seldom when it is idle', async () => {
    const path = join(dir, 'binlog.000001');
    writeFileSync(path, '');
    open({ busyPollMs: 5, idlePollMs: 1_500 }).follow([path]);
    const waitMs = async () => {
      const startMs = performance.now();
      await tailer.changed(tailer.mark(), signal);
      return performance.now() - startMs;
    };
    withinLimit('a look at a busy log', await waitMs(), 1_000);
    await delay(1_550);
    expect(await waitMs()).toBeGreaterThan(1_000);
  });

  test('in a directory only the named files count, those to come as well', async () => {
    const path = join(dir, 'audit-1.log');
    writeFileSync(path, '');
    open({ match: (name) => name.startsWith('audit-') }).follow([dir]);
    await untilWatching(path);
    const mark = tailer.mark();
    const woken = tailer.changed(mark, signal);
    writeFileSync(join(dir, 'audit-2.log'), 'bytes');
    await woken;
  });

  test('the signal ends a wait', async () => {
    const stop = new AbortController();
    const waiting = open().changed(tailer.mark(), stop.signal);
    stop.abort();
    await waiting;
    await tailer.changed(tailer.mark(), stop.signal);
  });
});
