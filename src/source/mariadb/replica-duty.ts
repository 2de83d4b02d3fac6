import type { Log } from '../../core/log.ts';
import { redact } from '../../core/log.ts';
import { messageOf } from '../../errors.ts';
import type { Flavour } from './gtid.ts';
import { lackingLog } from './inspect-replication.ts';
import { askServer } from './server-facts.ts';
import { ANSWER_WITHIN_MS } from './sql.ts';

export interface ReplicaDutyOptions {
  readonly url: string;
  readonly flavour: Flavour;
  readonly log: Log;
}

/** Settings change seldom, and each look is a connection. */
const ASK_AGAIN_MS = 5_000;

/** Whether the server's binlogs hold all that a take-over would ship, as the server itself says. */
export class ReplicaDuty {
  readonly #options: ReplicaDutyOptions;
  #lacking: string | null = null;
  #asking: Promise<void> | null = null;
  #hasAsked = false;
  #isTold = false;
  #askedMs = Number.NEGATIVE_INFINITY;

  constructor(options: ReplicaDutyOptions) {
    this.#options = options;
  }

  /**
   * Why they do not; null where they do, or where the server refuses to answer: a database that is down must not keep its
   * twin from shipping what is left. One that is only slow may be one thing or the
   * other. Waits for the first question only.
   */
  async lacking(): Promise<string | null> {
    if (performance.now() - this.#askedMs >= ASK_AGAIN_MS) {
      this.#askedMs = performance.now();
      this.#asking ??= this.#ask().finally(() => {
        this.#asking = null;
        this.#hasAsked = true;
      });
    }
    if (!this.#hasAsked) await this.#asking;
    return this.#isTold ? this.#lacking : 'the server has not said yet whether its binlogs hold all that it replicates';
  }

  async #ask(): Promise<void> {
    const { url, flavour, log } = this.#options;
    const sinceMs = performance.now();
    try {
      const { variables, replication } = await askServer(url, flavour);
      this.#lacking = lackingLog(variables, replication ?? []);
      this.#isTold = true;
    } catch (error) {
      this.#isTold ||= performance.now() - sinceMs < ANSWER_WITHIN_MS;
      log.debug(`the server could not be asked what its binlogs hold: ${redact(messageOf(error))}`);
    }
  }
}
