import type { ChainEnd } from '../../src/core/chain.ts';
import { Copier, type CopierOptions } from '../../src/ship/copier.ts';
import type { ObjectStore } from '../../src/store/store.ts';
import type { HandMadePrimary } from './copying.ts';
import { until } from './wait.ts';

const log = { debug() {}, info() {}, warn() {}, error() {} };

/** A copier that runs until it is stopped, and what it says that its copy holds. */
export class Running {
  readonly copier: Copier;
  held: ChainEnd | null = null;
  readonly #ending = new AbortController();
  readonly #ended: Promise<void>;

  constructor(primary: HandMadePrimary, store: ObjectStore, options: Partial<CopierOptions> = {}) {
    const known = () => primary.end;
    this.copier = new Copier({
      ...{ archive: primary.archive, store, delayMs: 0, end: known, log, nowMs: () => primary.nowMs, retryMs: 2 },
      ...{ onState() {}, ...options },
      onHeld: (end) => {
        this.held = end;
      },
    });
    this.#ended = this.copier.run(this.#ending.signal).catch(() => {});
  }

  async stop(): Promise<void> {
    this.#ending.abort(new Error('stopped'));
    await this.#ended;
  }
}

export async function reached(primary: HandMadePrimary, running: Running): Promise<void> {
  const isThere = () => {
    running.copier.grown(0);
    return running.held?.digest === primary.end.digest && running.copier.status.state === 'ok';
  };
  await until('the copy holds all', isThere, { everyMs: 2, describe: () => text(running) });
}

export const text = ({ copier, held }: Running) => `${JSON.stringify(copier.status)} holds ${JSON.stringify(held)}`;

export async function copied(primary: HandMadePrimary, store: ObjectStore): Promise<void> {
  const running = new Running(primary, store);
  await reached(primary, running);
  await running.stop();
}
