import type { Override } from '../../core/limits.ts';
import type { LimitsBoard } from '../coordination.ts';
import { readOverride } from '../formats.ts';
import type { Folder } from './folder.ts';
import { poll } from './poll.ts';

const DIR = 'limits';

export class SoloLimits implements LimitsBoard {
  readonly #folder: Folder;

  constructor(folder: Folder) {
    this.#folder = folder;
  }

  async list(): Promise<Override[]> {
    const names = await this.#folder.list(DIR);
    const texts = await Promise.all(names.map((name) => this.#folder.read(name)));
    return texts.flatMap((text) => readOverride(text) ?? []);
  }

  async add(override: Override): Promise<void> {
    await this.#folder.write(`${DIR}/${override.id}`, override, { durable: true });
  }

  async remove(ids: readonly string[]): Promise<void> {
    for (const id of ids) await this.#folder.remove(`${DIR}/${id}`);
  }

  watch(signal: AbortSignal): AsyncGenerator<readonly Override[], void, undefined> {
    return poll(() => this.list(), signal);
  }
}
