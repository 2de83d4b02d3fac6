import { ShipmateError } from '../errors.ts';
import type { ByteRange } from './store.ts';

/** Names that a file store gives to its own files; no part of a key may start like them. */
export const RESERVED = '.shipmate-';

/**
 * Throws for a name that some store could not hold, or would read as a way out of its prefix: keys are parts joined with
 * `/`, none of them empty, `.` or `..`, without control characters, 1,024 bytes at most in UTF-8 (255 a part).
 */
export function checkKey(key: string): void {
  const parts = key.split('/');
  const bad =
    parts.some((part) => part === '' || part === '.' || part === '..' || part.startsWith(RESERVED)) ||
    parts.some((part) => Buffer.byteLength(part) > 255) ||
    /[\p{Cc}\p{Cs}\\]/u.test(key) ||
    Buffer.byteLength(key) > 1024;
  if (bad) {
    throw new ShipmateError(`${JSON.stringify(key)} can't be an object's name`, {
      code: 'BAD_KEY',
      hint: 'stream and segment names must be plain: no empty part, no "..", no control character or backslash',
    });
  }
}

/** The same for what a listing asks for, which may be empty, end with `/`, or end amid a part. */
export function checkPrefix(prefix: string): void {
  const part = prefix.endsWith('/') ? prefix.slice(0, -1) : prefix;
  if (part !== '') checkKey(part);
}

/** Order of keys by their UTF-8 bytes, as every object store lists them. */
export function compareKeys(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) return utf8Rank(x) - utf8Rank(y);
  }
  return a.length - b.length;
}

/** Of such keys, JavaScript's own order of strings is that of their bytes. */
export const isPlain = (key: string) => !/[\ud800-\uffff]/.test(key);

/** UTF-16 puts the halves of characters above U+FFFF before U+E000 to U+FFFF, UTF-8 puts those characters after them. */
function utf8Rank(unit: number): number {
  if (unit >= 0xe000) return unit - 0x800;
  return unit >= 0xd800 ? unit + 0x2000 : unit;
}

/** What a listing shows for a key: itself, or with a delimiter the part up to the first one after the prefix. */
export function listedAs(key: string, prefix: string, delimiter: '/' | undefined): string {
  const cut = delimiter === undefined ? -1 : key.indexOf(delimiter, prefix.length);
  return cut === -1 ? key : key.slice(0, cut + 1);
}

/** The range cut to an object's size; `end` is exclusive. Throws RangeError for one that is no range. */
export function clip(
  { start, end = Number.POSITIVE_INFINITY }: ByteRange,
  size: number,
): { start: number; end: number } {
  if (!(Number.isSafeInteger(start) && start >= 0 && end >= start))
    throw new RangeError(`not a byte range: ${start}-${end}`);
  return { start: Math.min(start, size), end: Math.min(end, size) };
}

export function notFound(store: string, key: string): ShipmateError {
  return new ShipmateError(`store ${store} has no object ${key}`, {
    code: 'NOT_FOUND',
    hint: 'the store may be another one than the archive was written to, or retention or a person removed the object',
  });
}
