import type { Log } from '../../core/log.ts';
import { redact } from '../../core/log.ts';
import { messageOf } from '../../errors.ts';
import type { Flavour } from './gtid.ts';
import { lackingLog } from './inspect-replication.ts';
import { askServer } from './server-facts.ts';

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
  #answered = false;
  #askedMs = Number.NEGATIVE_INFINITY;

  constructor(options: ReplicaDutyOptions) {
    this.#options = options;
  }

  /**
   * Why they do not; null where they do, or where the server never answered: a database that is down must not keep its
   * twin from shipping what is left. Waits for the first answer only.
   */
  async lacking(): Promise<string | null> {
    if (performance.now() - this.#askedMs >= ASK_AGAIN_MS) {
      this.#askedMs = performance.now();
      this.#asking ??= this.#ask().finally(() => {
        this.#asking = null;
        this.#answered = true;
      });
    }
    if (!this.#answered) await this.#asking;
    return this.#lacking;
  }

  async #ask(): Promise<void> {
    const { url, flavour, log } = this.#options;
    try {
      const { variables, replication } = await askServer(url, flavour);
      this.#lacking = lackingLog(variables, replication ?? []);
    } catch (error) {
      log.debug(`the server could not be asked what its binlogs hold: ${redact(messageOf(error))}`);
    }
  }
}
