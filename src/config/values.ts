import { isAbsolute, normalize } from 'node:path';
import { z } from 'zod';
import { nearestHint } from '../core/nearest.ts';
import { DURATION, parseDuration, parseRate, parseSize, RATE, SIZE } from './units.ts';

/**
 * The kinds of values that a config file is made of. Each has a title, which says what may be written and within which
 * limits: with the key's description, that is what docs/configuration.md and the JSON schema tell.
 */

/** An object that refuses keys it does not know, naming the nearest that it does; the hint is below the message. */
export function object<T extends z.core.$ZodShape>(shape: T) {
  return z.strictObject(shape, {
    error: (issue) =>
      issue.code === 'unrecognized_keys'
        ? withHint('unknown key', nearestHint(issue.keys[0] ?? '', Object.keys(shape)))
        : undefined,
  });
}

const HINT = '\n';
export const withHint = (message: string, hint: string) => `${message}${HINT}${hint}`;
export function splitHint(text: string): { message: string; hint?: string } {
  const [message = '', hint] = text.split(HINT);
  return hint === undefined ? { message } : { message, hint };
}

export const name = z
  .string()
  .max(100)
  .regex(
    /^[a-z0-9][a-z0-9._-]*$/,
    withHint(
      'is not a valid name',
      'use lower-case letters, digits, "-", "_" and ".", and begin with a letter or digit',
    ),
  )
  .meta({ title: 'name' });

export const notEmpty = (all: object) => Object.keys(all).length > 0;

/** Hosts and clusters keep their capitals. */
export const hostLikeName = z
  .string()
  .max(200)
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9._-]*$/,
    withHint('is not a valid name', 'use letters, digits, "-", "_" and ".", and begin with a letter or digit'),
  )
  .meta({ title: 'name' });

/** For a URL that is told to everybody, and whose user nobody would ask for. */
export function namesNobody(url: string): boolean {
  const { username, password } = URL.parse(url) ?? {};
  return !username && !password;
}

// A relative path would mean another place in every working directory.
export const path = z
  .string()
  .refine(isAbsolute, 'must be an absolute path')
  .transform((given) => (given === '/' ? given : normalize(given).replace(/\/$/, '')))
  .meta({ title: 'absolute path' });

export function size({ min, max }: { min: string; max: string }) {
  return quantity(parseSize, {
    min,
    max,
    kind: 'size',
    pattern: SIZE,
    like: 'a size with its unit, such as 64KiB, 8MiB or 1GB',
  });
}

export function duration({ min, max }: { min: string; max: string }) {
  return quantity(parseDuration, {
    min,
    max,
    kind: 'time',
    pattern: DURATION,
    like: 'a time with its unit, such as 20ms, 5s or 15m',
  });
}

export const rate = () =>
  quantity(parseRate, {
    min: '1KiB/s',
    max: '1TB/s',
    kind: 'rate',
    pattern: RATE,
    like: 'a rate with its unit, such as 40MiB/s or 1Gbit/s',
  });

interface Quantity {
  min: string;
  max: string;
  kind: string;
  pattern: RegExp;
  like: string;
}

function quantity(parse: (text: string) => number | null, { min, max, kind, pattern, like }: Quantity) {
  const inRange = (text: string) => {
    const value = parse(text);
    return value !== null && value >= parse(min)! && value <= parse(max)!;
  };
  return z
    .string({ error: `must be ${like}` })
    .regex(pattern, { error: `must be ${like}`, abort: true })
    .refine(inRange, `must be from ${min} to ${max}`)
    .transform((text) => parse(text) ?? 0)
    .meta({ title: `${kind}, ${min} to ${max}` });
}
