import { describe, expect, test } from '@jest/globals';
import { type Output, progressText, showProgress } from '../../src/restore/progress.ts';

function recorded(terminal: Partial<Output> = {}): { output: Output; written: string[] } {
  const written: string[] = [];
  return { written, output: { ...terminal, write: (text) => written.push(text) } };
}

const GIB = 2 ** 30;

describe('progress', () => {
  test('tells share, amounts, rate and what is left', () => {
    const text = progressText({
      label: 'restoring',
      stage: { unit: 'bytes', total: 2 * GIB },
      done: GIB / 2,
      elapsedMs: 2000,
    });
    expect(text).toBe('restoring [###.........]  25 %, 512 MiB of 2.0 GiB, 256 MiB/s, 6.0 s left');
    expect(text.length).toBeLessThanOrEqual(80);
  });

  test('without a total tells amount and rate', () => {
    const stage = { unit: 'objects' as const };
    expect(progressText({ label: 'reading', stage, done: 500, elapsedMs: 1000 })).toBe('reading: 500, 500 objects/s');
  });

  test('on a terminal draws one line again and again, no wider than it is, and clears it', () => {
    let nowMs = 0;
    const { output, written } = recorded({ isTTY: true, columns: 40 });
    const progress = showProgress(output, () => nowMs);
    progress.stage('restoring', { unit: 'bytes', total: GIB });
    for (; nowMs < 1000; nowMs += 10) progress.advance(1 << 20);
    progress.end();
    expect(written.length).toBeLessThan(15);
    expect(written.join('')).not.toContain('\n');
    for (const text of written) expect(text.replace('\r\x1b[K', '').length).toBeLessThan(40);
    expect(written.at(-1)).toBe('\r\x1b[K');
  });

  test('elsewhere writes a line every few seconds, and none for what is short', () => {
    let nowMs = 0;
    const { output, written } = recorded();
    const progress = showProgress(output, () => nowMs);
    progress.stage('short', { unit: 'bytes', total: 10 });
    progress.advance(10);
    progress.end();
    expect(written).toEqual([]);
    progress.stage('restoring', { unit: 'bytes', total: 600 });
    for (; nowMs < 12_000; nowMs += 20) progress.advance(1);
    progress.end();
    expect(written).toHaveLength(2);
    expect(written[0]).toMatch(/^restoring \[.* 41 %.*\n$/);
  });
});
