/** Where a picture is drawn again and again, in place. */
export interface Screen {
  /** Aborts when whoever looks has had enough: q, Ctrl-C, or a signal that ends a program. */
  readonly signal: AbortSignal;
  /** `draw` gives lines of at most so many columns; what is below the last row is left out. Drawn anew when the size changes. */
  show(draw: (columns: number) => string): void;
  /** Gives the terminal back as it was. Safe to repeat. */
  close(): void;
}

interface Terminal {
  readonly input: NodeJS.ReadStream;
  readonly output: NodeJS.WriteStream;
}

// The alternate screen keeps what was on the terminal; the cursor would run to and fro over the picture.
const ENTER = '\x1b[?1049h\x1b[?25l\x1b[2J';
const LEAVE = '\x1b[?25h\x1b[?1049l';
const [HOME, CLEAR_LINE, CLEAR_BELOW] = ['\x1b[H', '\x1b[K', '\x1b[J'];
const ENDING: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];
const [CTRL_C, CTRL_Z] = ['\x03', '\x1a'];

/** Takes the terminal over. */
export function openScreen({ input, output }: Terminal): Screen {
  const ending = new AbortController();
  let isOpen = false;
  let drawn: ((columns: number) => string) | null = null;

  const redraw = () => {
    if (isOpen && drawn) output.write(frameOf(drawn(output.columns), output.rows));
  };
  const enter = () => {
    isOpen = true;
    if (input.isTTY) input.setRawMode(true); // what is typed must not show in the picture
    input.resume();
    output.write(ENTER);
    redraw();
  };
  const leave = () => {
    if (!isOpen) return;
    isOpen = false;
    output.write(LEAVE);
    if (input.isTTY) input.setRawMode(false);
    input.pause();
  };
  const end = () => ending.abort(new Error('the operator has seen enough'));
  const onKey = (typed: Buffer) => {
    const keys = typed.toString('latin1');
    if (keys.includes('q') || keys.includes(CTRL_C)) end();
    else if (keys.includes(CTRL_Z)) suspend();
  };
  // In raw mode the terminal sends no signals of its own.
  const suspend = () => {
    leave();
    process.once('SIGCONT', enter);
    process.kill(process.pid, 'SIGTSTP');
  };
  input.on('data', onKey);
  output.on('resize', redraw);
  for (const signal of ENDING) process.on(signal, end);
  process.on('exit', leave);
  enter();

  return {
    signal: ending.signal,
    show(draw) {
      drawn = draw;
      redraw();
    },
    close() {
      leave();
      input.off('data', onKey);
      output.off('resize', redraw);
      for (const signal of ENDING) process.off(signal, end);
      process.off('exit', leave);
    },
  };
}

/** One write a picture, each line over the one that was there: nothing is blank in between, so nothing flickers. */
function frameOf(text: string, rows: number): string {
  const lines = text.split('\n');
  const hidden = lines.length - rows;
  const shown =
    hidden > 0 ? [...lines.slice(0, rows - 1), `… ${hidden + 1} more lines: make the window higher`] : lines;
  return `${HOME}${shown.map((line) => line + CLEAR_LINE).join('\r\n')}${CLEAR_BELOW}`;
}
