import { mkdtempSync, renameSync, rmSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { HeldFile, HeldFiles } from '../../src/source/held-file.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'shipmate-held-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

/** A file, and what holds it; `move` says where it is looked for from then on. */
function hold(name = 'log') {
  let path = join(dir, name);
  writeFileSync(path, name);
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
});

describe('files that are held', () => {
  test('are let go of when they are wanted no more, also while they are being opened', async () => {
    const [one, other] = [hold('1'), hold('2')];
    const files = new HeldFiles<HeldFile>();
    await Promise.all([[one, other], [other]].map((wanted) => files.keep(new Set(wanted.map(({ held }) => held)))));
    expect([one.held.isOpen, other.held.isOpen]).toEqual([false, true]);
    await files.letGo();
    expect(other.held.isOpen).toBe(false);
  });

  test('keep each that can be opened, and one that could not be opened at first', async () => {
    const [one, other] = [hold('1'), hold('2')];
    const files = new HeldFiles<HeldFile>();
    one.move(join(one.path, 'below-a-file'));
    await expect(files.keep(new Set([one.held, other.held]))).rejects.toThrow("can't be read");
    one.move(one.path);
    unlinkSync(other.path);
    await files.keep(new Set([one.held, other.held]));
    unlinkSync(one.path);
    expect([await text(one.held), await text(other.held)]).toEqual(['1', '2']);
    await files.letGo();
    expect([one.held.isOpen, other.held.isOpen]).toEqual([false, false]);
  });
});
