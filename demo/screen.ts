import { stripVTControlCharacters, styleText } from 'node:util';

type Format = Parameters<typeof styleText>[0];

/**
 * Where the demo tells its story: lines that scroll by, and on a terminal a panel below them that is redrawn in place.
 * Without a terminal there is neither panel nor colour, and every line is plain.
 */
export class Screen {
  readonly #out: NodeJS.WriteStream;
  #panel: readonly string[] = [];

  constructor(out: NodeJS.WriteStream = process.stdout) {
    this.#out = out;
  }

  get live(): boolean {
    return this.#out.isTTY === true;
  }

  get #width(): number {
    return Math.min(this.#out.columns || 100, 100);
  }

  /** Colour on a terminal that has it (and NO_COLOR is not set); the text alone elsewhere. */
  paint(format: Format, text: string): string {
    return styleText(format, text, { stream: this.#out });
  }

  /** An act begins. */
  act(number: number, title: string): void {
    const rule = '─'.repeat(Math.max(0, this.#width - title.length - 8));
    this.#print(['', this.paint(['bold', 'cyan'], `── ${number}. ${title} ${rule}`)]);
  }

  say(text: string): void {
    this.#paragraph('', text);
  }

  /** Something that happened just now. */
  event(text: string): void {
    this.#paragraph(`${this.paint('yellow', '▸')} `, text);
  }

  good(text: string): void {
    this.#paragraph(`${this.paint(['bold', 'green'], '✔')} `, text);
  }

  bad(text: string): void {
    this.#paragraph(`${this.paint(['bold', 'red'], '✘')} `, text);
  }

  /** What an act has shown, in one sentence. */
  lesson(text: string): void {
    this.#print(['']);
    this.#paragraph(`${this.paint(['bold', 'yellow'], 'Lesson')}  `, text);
  }

  /** Lines as they are. */
  lines(...lines: string[]): void {
    this.#print(lines);
  }

  /** Replaces the panel; an empty one goes away. Nothing where there is no terminal. */
  panel(lines: readonly string[]): void {
    if (!this.live) return;
    // A line that the terminal wraps would take two, and the next redraw would miss one.
    const columns = (this.#out.columns || 100) - 1;
    this.#redraw(
      [],
      lines.map((line) => (lengthOf(line) > columns ? stripVTControlCharacters(line).slice(0, columns) : line)),
    );
  }

  /** Text wrapped beside its mark. */
  #paragraph(mark: string, text: string): void {
    const indent = MARGIN + lengthOf(mark);
    const width = this.#width - indent;
    const lines = lengthOf(text) > width ? wrap(text, width) : [text];
    this.#print(
      lines.map((line, n) => (n === 0 ? `${' '.repeat(MARGIN)}${mark}${line}` : `${' '.repeat(indent)}${line}`)),
    );
  }

  #print(lines: readonly string[]): void {
    if (this.live) this.#redraw(lines, this.#panel);
    else this.#out.write(`${lines.join('\n')}\n`);
  }

  /** Takes the old panel away, adds to what scrolls, draws the new panel: in one write, so that nothing flickers. */
  #redraw(lines: readonly string[], panel: readonly string[]): void {
    const up = this.#panel.length > 0 ? `\x1b[${this.#panel.length}A` : '';
    const all = [...lines, ...panel].map((line) => `${line}\x1b[K\n`).join('');
    this.#out.write(`${up}\r${all}\x1b[J`);
    this.#panel = panel;
  }
}

const MARGIN = 3;

/** Without what only colours it. */
const lengthOf = (text: string) => stripVTControlCharacters(text).length;

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/\s+/)) {
    if (line !== '' && lengthOf(line) + 1 + lengthOf(word) > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}
