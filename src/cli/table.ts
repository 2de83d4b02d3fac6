import { styleText } from 'node:util';

export type Style = Parameters<typeof styleText>[0];
/** A cell's text, and how it looks where colour is allowed. */
export type Cell = string | { readonly text: string; readonly style: Style };

export interface TableOptions {
  /** Columns of the terminal: no line is longer. */
  readonly width: number;
  readonly colour: boolean;
}

const GAP = 2;
const NARROWEST = 4;

const textOf = (cell: Cell) => (typeof cell === 'string' ? cell : cell.text);

/** Text in a style, where colour is allowed. */
export const styled = (style: Style, text: string, { colour }: Pick<TableOptions, 'colour'>) =>
  colour ? styleText(style, text, { validateStream: false }) : text;

/**
 * Rows (the first one is the heading) as aligned lines. What does not fit is cut, the widest columns first: the last column at
 * its end, names in the middle, since those of a family begin alike.
 */
export function table(rows: readonly (readonly Cell[])[], options: TableOptions): string[] {
  const widths = squeezed(columnWidths(rows), options.width);
  return rows.map((row, line) => {
    const cells = row.map((cell, at) => {
      const isLast = at === row.length - 1;
      const shown = (isLast ? cutEnd : cutMiddle)(textOf(cell), widths[at] ?? 0);
      const padded = isLast ? shown : shown.padEnd(widths[at]!);
      const style = line === 0 ? 'dim' : typeof cell === 'string' ? null : cell.style;
      return style === null ? padded : styled(style, padded, options);
    });
    return cells.join(' '.repeat(GAP)).trimEnd();
  });
}

function columnWidths(rows: readonly (readonly Cell[])[]): number[] {
  const columns = Math.max(0, ...rows.map((row) => row.length));
  return Array.from({ length: columns }, (_, at) => Math.max(...rows.map((row) => textOf(row[at] ?? '').length)));
}

function squeezed(wanted: readonly number[], width: number): number[] {
  const widths = [...wanted];
  const excess = () => widths.reduce((sum, column) => sum + column + GAP, -GAP) - width;
  while (excess() > 0) {
    const widest = Math.max(...widths);
    if (widest <= NARROWEST) break;
    widths[widths.lastIndexOf(widest)] = widest - 1;
  }
  return widths;
}

const cutEnd = (text: string, width: number) => (text.length <= width ? text : `${text.slice(0, width - 1)}…`);

function cutMiddle(text: string, width: number): string {
  if (text.length <= width) return text;
  const tail = Math.floor((width - 1) / 2);
  return `${text.slice(0, width - 1 - tail)}…${text.slice(text.length - tail)}`;
}
