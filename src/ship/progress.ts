/** With work, without an excuse, and with nothing to show for so long a loop is stuck: only a new start helps. */
const STUCK_MS = 300_000;
/** Who looks less often than this can't tell. */
const LOOK_MS = 60_000;

/**
 * Whether a loop still gets on. What waits for others, as for a store that is away, says so and is excused; what has got
 * stuck without a known reason has a fault of this program's own.
 */
export class Progress {
  readonly #nowMs: () => number;
  #mark = '';
  #sinceMs = 0;
  #lookedAtMs = Number.NEGATIVE_INFINITY;

  /** `nowMs`: monotonic, milliseconds. */
  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** To be asked a few times a minute. `mark` is another whenever the loop got on. */
  isStuck({ mark, excused }: { readonly mark: string; readonly excused: boolean }): boolean {
    const nowMs = this.#nowMs();
    if (excused || mark !== this.#mark || nowMs - this.#lookedAtMs > LOOK_MS) this.#sinceMs = nowMs;
    this.#mark = mark;
    this.#lookedAtMs = nowMs;
    return nowMs - this.#sinceMs >= STUCK_MS;
  }
}
