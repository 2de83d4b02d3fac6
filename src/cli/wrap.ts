import { printable } from './terminal.ts';

export interface Margins {
  /** Columns; no line is longer. */
  readonly width: number;
  /** What the first line begins with, and what the others do. */
  readonly first?: string;
  readonly rest?: string;
}

/** Breaks lines at spaces. A word that is longer than a line is broken too. */
export function wrap(text: string, { width, first = '', rest = '' }: Margins): string[] {
  const lines: string[] = [];
  let line = first;
  for (const word of printable(text).split(' ')) {
    const isFirst = line.trim() === '';
    if (!isFirst && line.length + 1 + word.length > width) {
      lines.push(line);
      line = rest + word;
    } else {
      line += isFirst ? word : ` ${word}`;
    }
    for (; line.length > width; line = rest + line.slice(width)) lines.push(line.slice(0, width));
  }
  return [...lines, line];
}
