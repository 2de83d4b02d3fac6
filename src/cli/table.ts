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

/** Rows (the first one is the heading) as aligned lines; what does not fit is cut, the widest columns first. */
export function table(rows: readonly (readonly Cell[])[], { width, colour }: TableOptions): string[] {
  const widths = squeezed(columnWidths(rows), width);
  return rows.map((row) => {
    const cells = row.map((cell, at) => {
      const padded = cut(textOf(cell), widths[at] ?? 0).padEnd(at < row.length - 1 ? widths[at]! : 0);
      const style = typeof cell === 'string' ? null : cell.style;
      return colour && style !== null ? styleText(style, padded, { validateStream: false }) : padded;
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

const cut = (text: string, width: number) => (text.length <= width ? text : `${text.slice(0, width - 1)}…`);
