import { answerOf, pause, within } from '../archive/retry.ts';
import type { Log } from '../core/log.ts';
import type { Position } from '../core/position.ts';
import { messageOf } from '../errors.ts';
import type { StreamMetrics } from '../metrics.ts';
import type { Finding, LogSource } from '../source/source.ts';

export interface InspectionOptions {
  readonly source: LogSource;
  /** Where this twin would go on; null while that is not known. */
  readonly at: () => Position | null;
  readonly metrics: StreamMetrics;
  readonly log: Log;
}

const INSPECT_EVERY_MS = 60_000;
const INSPECT_WITHIN_MS = 30_000;

/** What `check` would say of the source, looked at again and again: settings change while a daemon runs. */
export class Inspection {
  readonly #options: InspectionOptions;
  #standing: readonly Finding[] = [];

  constructor(options: InspectionOptions) {
    this.#options = options;
  }

  /** Warnings and errors of the last look, in a few words; empty when there are none. */
  get summary(): string {
    const count = this.#standing.length;
    return count === 0 ? '' : `${count} thing${count === 1 ? '' : 's'} to mend: see "shipmate check"`;
  }

  /** Logs each warning and error when it begins to stand, and when it no longer does, until the signal aborts. */
  async keep(signal: AbortSignal): Promise<never> {
    const { source, at, metrics, log } = this.#options;
    // Whoever leaves waits for this, and can't wait for a server that hangs.
    const answer = <T>(asked: Promise<T>) => within(INSPECT_WITHIN_MS, answerOf(asked, { signal, onSlow() {} }));
    for (;;) {
      try {
        this.#tell(await answer(source.inspect(at() ?? undefined)));
        if (source.retention) metrics.retention(await answer(source.retention()));
      } catch (error) {
        log.debug(`the source could not be inspected: ${messageOf(error)}`, { error });
      }
      await pause(INSPECT_EVERY_MS, signal);
    }
  }

  #tell(findings: readonly Finding[]): void {
    const { metrics, log } = this.#options;
    const wrong = findings.filter(({ level }) => level !== 'ok');
    const known = new Set(this.#standing.map(kindOf));
    const standing = new Set(wrong.map(kindOf));
    for (const finding of wrong) {
      const { message, hint } = finding;
      if (!known.has(kindOf(finding))) log.warn(`check: ${message}`, hint === undefined ? {} : { hint });
    }
    for (const finding of this.#standing) {
      if (!standing.has(kindOf(finding))) log.info(`check: no longer so: ${finding.message}`);
    }
    metrics.findings({
      warnings: wrong.filter(({ level }) => level === 'warning').length,
      errors: wrong.filter(({ level }) => level === 'error').length,
    });
    this.#standing = wrong;
  }
}

/** Figures in a message change while the finding stays the same. */
const kindOf = ({ message }: Finding) => message.replaceAll(/\d+/g, '0');
