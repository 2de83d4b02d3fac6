import { Readable } from 'node:stream';
import { abortReason } from '../../src/errors.ts';
import { checkKey, checkPrefix, clip, compareKeys, listedAs, notFound } from '../../src/store/keys.ts';
import type { ByteRange, Capacity, ObjectInfo, ObjectStore } from '../../src/store/store.ts';

/** A whole store in memory: passes the stores' contract. Every operation gives way once, so that others come between. */
export class MemoryStore implements ObjectStore {
  readonly name: string;
  readonly #objects = new Map<string, Buffer>();

  constructor(name = 'memory') {
    this.name = name;
  }

  async create(key: string, body: Uint8Array | (() => Readable), signal: AbortSignal): Promise<'created' | 'exists'> {
    checkKey(key);
    const bytes = await collect(body, signal);
    await turn();
    if (signal.aborted) throw abortReason(signal);
    if (this.#objects.has(key)) return 'exists';
    this.#objects.set(key, bytes);
    return 'created';
  }

  async read(key: string, range: ByteRange = { start: 0 }): Promise<Readable> {
    await turn();
    const bytes = this.peek(key);
    const { start, end } = clip(range, bytes.length);
    return Readable.from(start === end ? [] : [Buffer.from(bytes.subarray(start, end))], { objectMode: false });
  }

  async readStart(key: string, maxBytes: number): Promise<Buffer> {
    await turn();
    return Buffer.from(this.peek(key).subarray(0, maxBytes));
  }

  async head(key: string): Promise<ObjectInfo | null> {
    checkKey(key);
    await turn();
    const bytes = this.#objects.get(key);
    return bytes === undefined ? null : { key, size: bytes.length };
  }

  async *list(
    prefix: string,
    { after, delimiter }: { after?: string; delimiter?: '/' } = {},
  ): AsyncIterable<ObjectInfo> {
    checkPrefix(prefix);
    await turn();
    let last: string | undefined;
    for (const key of this.keys(prefix)) {
      const listed = listedAs(key, prefix, delimiter);
      if (listed === last || (after !== undefined && compareKeys(listed, after) <= 0)) continue;
      last = listed;
      const size = listed === key ? this.#objects.get(key)?.length : 0;
      if (size !== undefined) yield { key: listed, size };
    }
  }

  async delete(keys: readonly string[]): Promise<void> {
    for (const key of keys) checkKey(key);
    await turn();
    for (const key of keys) this.#objects.delete(key);
  }

  async capacity(): Promise<Capacity | null> {
    return null;
  }

  /** All names below a prefix, in order. */
  keys(prefix = ''): string[] {
    return [...this.#objects.keys()].filter((key) => key.startsWith(prefix)).sort(compareKeys);
  }

  /** An object's bytes, at once; throws NOT_FOUND. */
  peek(key: string): Buffer {
    checkKey(key);
    const bytes = this.#objects.get(key);
    if (bytes === undefined) throw notFound(this.name, key);
    return bytes;
  }

  /** Puts bytes in place whatever was there: damage, a stranger's object, a store gone back in time. */
  overwrite(key: string, bytes: Uint8Array): void {
    this.#objects.set(key, Buffer.from(bytes));
  }

  /** Another store with the same objects, as after a restore from a backup. */
  copy(name = this.name): MemoryStore {
    const twin = new MemoryStore(name);
    for (const [key, bytes] of this.#objects) twin.#objects.set(key, bytes);
    return twin;
  }
}

/** A microtask only, so that property tests stay fast and in order. */
const turn = () => Promise.resolve();

/** The whole body, copied: the caller may use its buffer again. */
export async function collect(body: Uint8Array | (() => Readable), signal: AbortSignal): Promise<Buffer> {
  if (signal.aborted) throw abortReason(signal);
  if (body instanceof Uint8Array) return Buffer.from(body);
  const pieces: Buffer[] = [];
  for await (const piece of body()) {
    if (signal.aborted) throw abortReason(signal);
    pieces.push(Buffer.from(piece));
  }
  return Buffer.concat(pieces);
}
