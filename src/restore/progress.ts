import { bytesText, secondsText } from '../core/format.ts';

export interface Stage {
  readonly unit: 'bytes' | 'objects';
  /** Left out where nobody knows. */
  readonly total?: number;
}

/** How far a command is; for people only. */
export interface Progress {
  stage(label: string, stage: Stage): void;
  advance(amount: number): void;
  /** The stage is over, however it ended. */
  end(): void;
}

export const silent: Progress = { stage() {}, advance() {}, end() {} };

export interface Output {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

const REDRAW_MS = 100;
const LINE_MS = 5_000;
const BAR_CELLS = 12;
const CLEAR_LINE = '\r\x1b[K';

/** One line that is drawn again and again on a terminal; elsewhere a line every few seconds. */
export function showProgress(output: Output, nowMs: () => number = () => performance.now()): Progress {
  const everyMs = output.isTTY ? REDRAW_MS : LINE_MS;
  let label = '';
  let stage: Stage = { unit: 'objects' };
  let begunMs = 0;
  let drawnMs = 0;
  let done = 0;
  let isDrawn = false;

  return {
    stage(newLabel, newStage) {
      label = newLabel;
      stage = newStage;
      begunMs = nowMs();
      // What takes no longer than this needs no line.
      drawnMs = begunMs;
      done = 0;
    },
    advance(amount) {
      done += amount;
      const now = nowMs();
      if (now - drawnMs < everyMs) return;
      drawnMs = now;
      const text = progressText({ label, stage, done, elapsedMs: now - begunMs });
      if (output.isTTY) output.write(`${CLEAR_LINE}${text.slice(0, (output.columns ?? 80) - 1)}`);
      else output.write(`${text}\n`);
      isDrawn = true;
    },
    end() {
      if (isDrawn && output.isTTY) output.write(CLEAR_LINE);
      isDrawn = false;
    },
  };
}

interface State {
  readonly label: string;
  readonly stage: Stage;
  readonly done: number;
  readonly elapsedMs: number;
}

/** `restoring [###.........]  25 %, 512 MiB of 2.0 GiB, 310 MiB/s, 5.1 s left` */
export function progressText({ label, stage: { unit, total }, done, elapsedMs }: State): string {
  const amount = (value: number) => (unit === 'bytes' ? bytesText(value) : String(Math.round(value)));
  const perSecond = done / Math.max(elapsedMs / 1000, 0.001);
  const rate = `${amount(perSecond)}${unit === 'bytes' ? '' : ' objects'}/s`;
  if (total === undefined || total <= 0) return `${label}: ${amount(done)}, ${rate}`;
  const share = Math.min(done / total, 1);
  const cells = Math.round(share * BAR_CELLS);
  const bar = `[${'#'.repeat(cells)}${'.'.repeat(BAR_CELLS - cells)}]`;
  const left = secondsText(Math.max(total - done, 0) / Math.max(perSecond, 1e-9));
  const percent = `${String(Math.floor(share * 100)).padStart(3)} %`;
  return `${label} ${bar} ${percent}, ${amount(done)} of ${amount(total)}, ${rate}, ${left} left`;
}
