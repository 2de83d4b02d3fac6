import { answerOf, within } from '../archive/retry.ts';
import type { Log } from '../core/log.ts';
import type { Position } from '../core/position.ts';
import type { Backlog, LogSource } from '../source/source.ts';

export interface MeasureOptions {
  readonly source: Pick<LogSource, 'backlog'>;
  readonly log: Log;
  /** Told while the log does not answer: who reads it waits as for one that nobody writes to, and would not tell. */
  readonly onHang: (error: Error) => void;
  /** It has answered again, and all of it is read. */
  readonly onRecovered: () => void;
  /** Ends what is waited for. */
  readonly signal: AbortSignal;
  /** Without an answer for so long it hangs, milliseconds; for tests. */
  readonly slowMs?: number;
}

const WITHIN_MS = 1_000;

/** How far the archive is behind this twin's log. */
export class Measure {
  readonly #options: MeasureOptions;
  #asked: { readonly backlog: Promise<Backlog>; readonly sinceMs: number } | null = null;

  constructor(options: MeasureOptions) {
    this.#options = options;
  }

  /** Null where it can't be measured, or hangs: the twins must hear of the rest all the same, and soon. */
  async from(position: Position | null): Promise<Backlog | null> {
    this.#asked ??= {
      backlog: this.#ask(position).finally(() => {
        this.#asked = null;
      }),
      sinceMs: performance.now(),
    };
    const { backlog, sinceMs } = this.#asked;
    return within(Math.max(0, sinceMs + WITHIN_MS - performance.now()), backlog).catch((error) => {
      this.#options.log.debug('the backlog could not be measured', { error });
      return null;
    });
  }

  async #ask(position: Position | null): Promise<Backlog> {
    const { source, onHang, onRecovered, signal, slowMs } = this.#options;
    let hung = false;
    const onSlow = (error: Error) => {
      hung = true;
      onHang(error);
    };
    const backlog = await answerOf(source.backlog(position), { signal, onSlow, ...(slowMs && { slowMs }) });
    if (hung && backlog.bytes === 0) onRecovered();
    return backlog;
  }
}
