const KIB = 1024;
const BYTES = {
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: KIB,
  MiB: KIB ** 2,
  GiB: KIB ** 3,
  TiB: KIB ** 4,
} as const;
const MILLISECONDS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

const BITS_PER_SECOND = { 'kbit/s': 1e3, 'Mbit/s': 1e6, 'Gbit/s': 1e9 } as const;
const BYTES_PER_SECOND: Readonly<Record<string, number>> = {
  ...Object.fromEntries(Object.entries(BYTES).map(([unit, bytes]) => [`${unit}/s`, bytes])),
  ...Object.fromEntries(Object.entries(BITS_PER_SECOND).map(([unit, bits]) => [unit, bits / 8])),
};

const patternOf = (units: object) => new RegExp(`^(\\d+(?:\\.\\d+)?) ?(${Object.keys(units).join('|')})$`);

export const SIZE = patternOf(BYTES);
export const DURATION = patternOf(MILLISECONDS);
export const RATE = patternOf(BYTES_PER_SECOND);

/** `8MiB` in bytes; null if it isn't a number and a unit (B, KB … TB, KiB … TiB), or no whole number of bytes. */
export const parseSize = (text: string) => parse(text, SIZE, BYTES);

/** `1.5s` in milliseconds; null if it isn't a number and a unit (ms, s, m, h, d), or no whole number of milliseconds. */
export const parseDuration = (text: string) => parse(text, DURATION, MILLISECONDS);

/** `40MiB/s` or `1Gbit/s` in bytes a second; null if it isn't a number and a unit, or no whole number of bytes a second. */
export const parseRate = (text: string) => parse(text, RATE, BYTES_PER_SECOND);

function parse(text: string, pattern: RegExp, units: Readonly<Record<string, number>>): number | null {
  const [, amount, unit] = pattern.exec(text) ?? [];
  if (amount === undefined || unit === undefined) return null;
  const value = Number(amount) * units[unit]!;
  return Number.isSafeInteger(value) ? value : null;
}
