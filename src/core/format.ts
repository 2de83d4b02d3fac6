const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** For people: `0 B`, `1.5 KiB`, `12 MiB`. */
export function bytesText(bytes: number): string {
  let value = bytes;
  let unit = 0;
  // 1023.5 would print as 1024.
  while (value >= 1023.5 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit > 0 && value < 9.95 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

/** For people: `0.3 s`, `42 s`, `5 min`, `3 h`, `2 d`. */
export function secondsText(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

/** `1 object`, `2 objects` */
export const countText = (number: number, what: string) => `${number} ${what}${number === 1 ? '' : 's'}`;

/** Bytes and age as one: `12 MiB, 42 s`; `-` where nobody knows. */
export function lagText({ lagBytes, lagSeconds }: { lagBytes: number | null; lagSeconds?: number | null }): string {
  if (lagBytes === null) return '-';
  return lagSeconds ? `${bytesText(lagBytes)}, ${secondsText(lagSeconds)}` : bytesText(lagBytes);
}
