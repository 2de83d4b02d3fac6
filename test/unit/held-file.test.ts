import { mkdtempSync, renameSync, rmSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { HeldFile, holdOnly } from '../../src/source/held-file.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'shipmate-held-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

/** A file, and what holds it; `move` says where it is looked for from then on. */
function hold() {
  let path = join(dir, 'log');
  writeFileSync(path, 'log');
  const { dev, ino } = statSync(path);
  const unreadable = (where: string, cause: unknown) => new Error(`${where} can't be read`, { cause });
  const held = new HeldFile({ identity: { dev, ino }, path: () => path, unreadable });
  return { held, path, move: (to: string) => (path = to) };
}
const text = (held: HeldFile) => held.use(async (handle) => (await handle.readFile()).toString());

describe('a held file', () => {
  test('is read while somebody holds it, though it is removed, and given back by the last one', async () => {
    const { held, path } = hold();
    expect(await Promise.all([held.retain(), held.retain()])).toEqual([true, true]);
    unlinkSync(path);
    await held.release();
    expect(await text(held)).toBe('log');
    await held.release();
    expect(held.isOpen).toBe(false);
    expect(await text(held)).toBeNull();
  });

  test('is gone where its path leads to another file', async () => {
    const { held, path } = hold();
    writeFileSync(join(dir, 'another'), 'another');
    renameSync(join(dir, 'another'), path);
    expect(await held.retain()).toBe(false);
    expect(held.isOpen).toBe(false);
  });

  test('is not held for ever by one who could not open it', async () => {
    const { held, path, move } = hold();
    move(join(path, 'below-a-file'));
    await expect(held.retain()).rejects.toThrow("can't be read");
    move(path);
    expect(await held.retain()).toBe(true);
    await held.release();
    expect(held.isOpen).toBe(false);
  });

  test('that could not be opened for a moment is held from the next time on: a purge must not take it', async () => {
    const { held, path, move } = hold();
    const [open, wanted] = [new Set<HeldFile>(), new Set([held])];
    move(join(path, 'below-a-file'));
    await expect(holdOnly(open, wanted)).rejects.toThrow("can't be read");
    move(path);
    await holdOnly(open, wanted);
    unlinkSync(path);
    expect(await text(held)).toBe('log');
    await holdOnly(open, new Set());
    expect(held.isOpen).toBe(false);
  });
});
