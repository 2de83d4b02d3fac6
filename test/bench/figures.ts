import { styleText } from 'node:util';

export const MIB = 1024 * 1024;

export interface Figure {
  readonly what: string;
  readonly value: number;
  readonly unit: string;
  /** The aim, where there is one. */
  readonly atMost?: number;
  readonly atLeast?: number;
}

/** What a bench has measured. */
export interface Report {
  readonly title: string;
  readonly figures: readonly Figure[];
  /** For programs: every measurement and what it was made with. */
  readonly data: Readonly<Record<string, unknown>>;
}

export const median = (values: readonly number[]) => percentile(values, 50);

/** The smallest of the values that `percent` of them do not exceed. */
export function percentile(values: readonly number[], percent: number): number {
  if (values.length === 0) throw new RangeError('nothing was measured');
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)]!;
}

export const round = (value: number, digits = 2) => Math.round(value * 10 ** digits) / 10 ** digits;

export function table({ title, figures }: Report): string {
  const width = Math.max(...figures.map(({ what }) => what.length));
  const lines = figures.map((figure) => {
    const { what, value, unit } = figure;
    return `  ${what.padEnd(width)}  ${String(value).padStart(9)} ${unit.padEnd(5)} ${aim(figure)}`.trimEnd();
  });
  return [styleText('bold', title), ...lines].join('\n');
}

function aim({ value, unit, atMost, atLeast }: Figure): string {
  if (atMost === undefined && atLeast === undefined) return '';
  const isMet = (atMost === undefined || value <= atMost) && (atLeast === undefined || value >= atLeast);
  const wanted = atMost === undefined ? `at least ${atLeast}` : `at most ${atMost}`;
  return styleText(isMet ? 'green' : 'red', `${isMet ? 'aim met' : 'aim missed'}: ${wanted} ${unit}`.trimEnd());
}
