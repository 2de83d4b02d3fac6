import { getSystemErrorMap } from 'node:util';
import { expect, test } from '@jest/globals';
import { fileStoreError, isSystemError, noHardLinks } from '../../src/store/file-errors.ts';

const numbers = new Map([...getSystemErrorMap()].map(([errno, [code]]) => [code, errno]));
const systemError = (code: string) =>
  Object.assign(new Error(`${code}: as the kernel says, open '/mnt/x'`), {
    code,
    errno: numbers.get(code),
    syscall: 'open',
  });

test.each([
  ['ENOSPC', 'STORE_FULL', 'retry'],
  ['EDQUOT', 'STORE_FULL', 'retry'],
  ['EACCES', 'STORE_DENIED', 'fatal'],
  ['EPERM', 'STORE_DENIED', 'fatal'],
  ['EROFS', 'STORE_DENIED', 'fatal'],
  ['EIO', 'STORE_FAILED', 'retry'],
  ['EMFILE', 'STORE_FAILED', 'retry'],
  ['ESTALE', 'STORE_DOWN', 'retry'],
  ['ENOTCONN', 'STORE_DOWN', 'retry'],
  ['EXDEV', 'STORE_UNFIT', 'fatal'],
])('%s is %s: %s', (errno, code, verdict) => {
  const cause = systemError(errno);
  expect(isSystemError(cause)).toBe(true);
  expect(fileStoreError('nas', 'create orders/stream.json', cause)).toMatchObject({
    code,
    verdict,
    cause,
    message: `store nas: can't create orders/stream.json: ${cause.message}`,
    hint: expect.stringMatching(/\w/),
  });
});

test('a file system without hard links is named, and what to use instead', () => {
  expect(noHardLinks('nas', '/mnt/usb', systemError('EPERM'))).toMatchObject({
    code: 'STORE_UNFIT',
    verdict: 'fatal',
    message: expect.stringContaining('/mnt/usb has no hard links'),
    hint: expect.stringContaining('use a file system that has it'),
  });
});

test("a mistake in a program is not taken for the store's trouble", () => {
  for (const error of [new TypeError('x is not a function'), new RangeError('not a byte range'), 'text', undefined]) {
    expect(isSystemError(error)).toBe(false);
  }
});
