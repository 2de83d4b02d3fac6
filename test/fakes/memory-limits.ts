import type { LimitsBoard } from '../../src/coordination/coordination.ts';
import type { Override } from '../../src/core/limits.ts';
import type { MemoryCoordination } from './memory-coordination.ts';

export class MemoryLimits implements LimitsBoard {
  readonly #client: MemoryCoordination;

  constructor(client: MemoryCoordination) {
    this.#client = client;
  }

  async list(): Promise<Override[]> {
    this.#client.reach();
    return [...this.#client.hub.limits.values()];
  }

  async add(override: Override): Promise<void> {
    this.#client.reach();
    this.#client.hub.limits.set(override.id, override);
    this.#client.hub.changed();
  }

  async remove(ids: readonly string[]): Promise<void> {
    this.#client.reach();
    for (const id of ids) this.#client.hub.limits.delete(id);
    this.#client.hub.changed();
  }

  watch(signal: AbortSignal): AsyncGenerator<readonly Override[], void, undefined> {
    return this.#client.follow(() => [...this.#client.hub.limits.values()], signal);
  }
}
