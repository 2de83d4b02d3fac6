import type { Log } from '../../core/log.ts';
import { Deposed, ShipmateError } from '../../errors.ts';
import type { ArchiveMemory, Cursor, CursorBoard, Leadership, Promotion, RememberedArchive } from '../coordination.ts';
import { readArchive, readCursor, readPromotion, readSecret, stands } from '../formats.ts';
import type { Client } from './client.ts';
import { follow } from './follow.ts';
import type { Keys } from './keys.ts';
import { isAbsent, list, transact, wasChangedAt, wasCreatedAt } from './kv.ts';
import { EtcdLeadership } from './leadership.ts';

export interface BoardOptions {
  readonly client: Client;
  readonly keys: Keys;
  readonly log: Log;
}

/**
 * A save may reach etcd twice, the second time late, and so put an older cursor over a newer one: readers take it for
 * a hint, and the next save mends it.
 */
export class EtcdCursors implements CursorBoard {
  readonly #options: BoardOptions;

  constructor(options: BoardOptions) {
    this.#options = options;
  }

  async load(stream: string): Promise<Cursor | null> {
    const [entry] = await list(this.#options.client, { key: this.#options.keys.cursor(stream) });
    return this.#read(stream, entry?.value ?? null);
  }

  async save(cursor: Cursor, by: Leadership): Promise<void> {
    if (!(by instanceof EtcdLeadership)) throw new TypeError('the leadership was not won in this etcd');
    // An etcd that was put back to an older state may hold the key of a leadership that has long ended.
    if (by.signal.aborted) throw deposed(cursor.stream, by.signal.reason);
    const key = Buffer.from(this.#options.keys.cursor(cursor.stream));
    const { succeeded } = await transact(this.#options.client, {
      compare: [wasCreatedAt(by.key, by.revision)],
      success: [{ request_put: { key, value: Buffer.from(JSON.stringify(cursor)) } }],
    });
    if (succeeded) return;
    const proof = deposed(cursor.stream);
    void by.end(proof);
    throw proof;
  }

  async *watch(stream: string, signal: AbortSignal): AsyncGenerator<Cursor, void, undefined> {
    const { client, keys, log } = this.#options;
    for await (const [entry] of follow({ client, range: { key: keys.cursor(stream) }, signal, log })) {
      const cursor = this.#read(stream, entry?.value ?? null);
      if (cursor) yield cursor;
    }
  }

  async forget(stream: string): Promise<void> {
    const key = Buffer.from(this.#options.keys.cursor(stream));
    await this.#options.client.call(({ etcd, options }) => etcd.kv.deleteRange({ key }, options));
  }

  #read(stream: string, text: string | null): Cursor | null {
    const cursor = readCursor(text);
    if (text !== null && !cursor)
      this.#options.log.warn('the cursor in etcd is unreadable, so it is ignored', { stream });
    return cursor;
  }
}

function deposed(stream: string, cause?: unknown): Deposed {
  return new Deposed(`this node does not lead stream "${stream}" any more`, cause);
}

export class EtcdArchives implements ArchiveMemory {
  readonly #options: BoardOptions;

  constructor(options: BoardOptions) {
    this.#options = options;
  }

  async load(stream: string): Promise<RememberedArchive | null> {
    const [entry] = await list(this.#options.client, { key: this.#options.keys.archive(stream) });
    return entry ? this.#read(stream, entry.value) : null;
  }

  async propose(stream: string, id: string): Promise<RememberedArchive> {
    const proposed: RememberedArchive = { id, state: 'proposed' };
    const before = await this.#putOnce(this.#options.keys.archive(stream), proposed);
    return before === null ? proposed : this.#read(stream, before);
  }

  async confirm(stream: string, id: string): Promise<void> {
    const created: RememberedArchive = { id, state: 'created' };
    const put = {
      key: Buffer.from(this.#options.keys.archive(stream)),
      value: Buffer.from(JSON.stringify(created)),
    };
    await this.#options.client.call(({ etcd, options }) => etcd.kv.put(put, options));
  }

  async generation(stream: string): Promise<Promotion | null> {
    const [entry] = await list(this.#options.client, { key: this.#options.keys.generation(stream) });
    return entry ? this.#readPromotion(stream, entry.value) : null;
  }

  async raise(stream: string, promotion: Promotion): Promise<Promotion> {
    const name = this.#options.keys.generation(stream);
    const put = { key: Buffer.from(name), value: Buffer.from(JSON.stringify(promotion)) };
    for (;;) {
      const [entry] = await list(this.#options.client, { key: name });
      const kept = entry ? this.#readPromotion(stream, entry.value) : null;
      if (stands(kept, promotion)) return kept;
      const { succeeded } = await transact(this.#options.client, {
        compare: [wasChangedAt(name, entry?.modRevision ?? 0n)],
        success: [{ request_put: put }],
      });
      if (succeeded) return promotion;
    }
  }

  #readPromotion(stream: string, text: string): Promotion {
    const promotion = readPromotion(text);
    if (promotion) return promotion;
    throw new ShipmateError(`which store is the primary of stream "${stream}" is unreadable in etcd`, {
      code: 'BAD_ARCHIVE_MEMORY',
      hint: `look at the etcd key ${this.#options.keys.generation(stream)}; "shipmate status" of each host tells more`,
    });
  }

  async secret(stream: string): Promise<string | null> {
    const [entry] = await list(this.#options.client, { key: this.#options.keys.secret(stream) });
    return entry ? this.#readSecret(stream, entry.value) : null;
  }

  async keepSecret(stream: string, offered: string): Promise<string> {
    const before = await this.#putOnce(this.#options.keys.secret(stream), { secret: offered });
    return before === null ? offered : this.#readSecret(stream, before);
  }

  /** What stands there already, and stays; null where the value was put. */
  async #putOnce(name: string, value: object): Promise<string | null> {
    const key = Buffer.from(name);
    const { succeeded, responses } = await transact(this.#options.client, {
      compare: [isAbsent(name)],
      success: [{ request_put: { key, value: Buffer.from(JSON.stringify(value)) } }],
      failure: [{ request_range: { key } }],
    });
    return succeeded ? null : responses[0]!.response_range.kvs[0]!.value.toString();
  }

  #readSecret(stream: string, text: string): string {
    const kept = readSecret(text);
    if (kept) return kept.secret;
    throw new ShipmateError(`the secret of stream "${stream}" in etcd is unreadable`, {
      code: 'BAD_ARCHIVE_MEMORY',
      hint: `take the etcd key ${this.#options.keys.secret(stream)} away: a daemon's stateDir has the secret too`,
    });
  }

  /** An id that can't be read must not pass for none: a second archive would begin. */
  #read(stream: string, text: string): RememberedArchive {
    const archive = readArchive(text);
    if (archive) return archive;
    throw new ShipmateError(`the archive id of stream "${stream}" in etcd is unreadable`, {
      code: 'BAD_ARCHIVE_MEMORY',
      hint: `look at the etcd key ${this.#options.keys.archive(stream)}; without it the store's stream.json decides`,
    });
  }
}
