import type { Override } from '../../core/limits.ts';
import type { LimitsBoard } from '../coordination.ts';
import { readOverride } from '../formats.ts';
import type { BoardOptions } from './boards.ts';
import { follow } from './follow.ts';
import { type Entry, list } from './kv.ts';

export class EtcdLimits implements LimitsBoard {
  readonly #options: BoardOptions;

  constructor(options: BoardOptions) {
    this.#options = options;
  }

  async list(): Promise<Override[]> {
    const { client, keys } = this.#options;
    return this.#read(await list(client, { prefix: keys.limits }));
  }

  async add(override: Override): Promise<void> {
    const { client, keys } = this.#options;
    const put = { key: Buffer.from(keys.limit(override.id)), value: Buffer.from(JSON.stringify(override)) };
    await client.call(({ etcd, options }) => etcd.kv.put(put, options));
  }

  async remove(ids: readonly string[]): Promise<void> {
    const { client, keys } = this.#options;
    for (const id of ids) {
      const key = Buffer.from(keys.limit(id));
      await client.call(({ etcd, options }) => etcd.kv.deleteRange({ key }, options));
    }
  }

  async *watch(signal: AbortSignal): AsyncGenerator<readonly Override[], void, undefined> {
    const { client, keys, log } = this.#options;
    for await (const entries of follow({ client, range: { prefix: keys.limits }, signal, log })) {
      yield this.#read(entries);
    }
  }

  #read(entries: readonly Entry[]): Override[] {
    return entries.flatMap(({ key, value }) => {
      const override = readOverride(value);
      if (!override) this.#options.log.warn('bandwidth limits in etcd are unreadable, so they are ignored', { key });
      return override ?? [];
    });
  }
}
