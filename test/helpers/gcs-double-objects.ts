import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { crc32c } from '@node-rs/crc32';

export interface StoredObject {
  readonly name: string;
  readonly size: number;
  readonly generation: number;
  readonly contentType: string;
  readonly storageClass: string;
  readonly created: string;
  /** Base64 of four bytes, big-endian, as Google writes it. */
  readonly crc32c: string;
  md5(): Promise<string>;
  bytes(): Promise<Buffer>;
}

export interface Page {
  readonly items: StoredObject[];
  readonly prefixes: string[];
  readonly nextPageToken?: string;
}

export interface ListQuery {
  readonly prefix: string;
  readonly delimiter: string | null;
  /** Inclusive. */
  readonly startOffset: string | null;
  readonly pageToken: string | null;
  readonly maxResults: number;
}

export const crc32cOf = (bytes: Uint8Array) => {
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(crc32c(bytes));
  return sum.toString('base64');
};

/** A bucket's objects: bytes in memory, or with `dir` in files there, below their own names, as a file store has them. */
export class Bucket {
  readonly #dir: string | null;
  readonly #objects = new Map<string, StoredObject>();
  /** In the order of their UTF-8 bytes. */
  readonly #names: string[] = [];
  #generation = Date.now() * 1_000;

  constructor(dir: string | null) {
    this.#dir = dir;
  }

  get(name: string): StoredObject | undefined {
    return this.#objects.get(name);
  }

  /** There, for everybody who asks, when this returns; resolves when its bytes are where they shall be. */
  async put(
    name: string,
    bytes: Buffer,
    { contentType = 'application/octet-stream', storageClass = 'STANDARD' },
  ): Promise<StoredObject> {
    let held: Buffer | null = bytes;
    const path = this.#dir === null ? null : join(this.#dir, name);
    const read = async () => held ?? (await readFile(path!));
    const object: StoredObject = {
      name,
      size: bytes.length,
      generation: this.#generation++,
      contentType,
      storageClass,
      created: new Date().toISOString(),
      crc32c: crc32cOf(bytes),
      bytes: read,
      md5: async () =>
        createHash('md5')
          .update(await read())
          .digest('base64'),
    };
    if (!this.#objects.has(name)) this.#names.splice(this.#firstFrom(name), 0, name);
    this.#objects.set(name, object);
    if (path !== null) {
      await mkdir(dirname(path), { recursive: true });
      const temporary = join(this.#dir!, `.shipmate-double-${randomBytes(6).toString('hex')}`);
      await writeFile(temporary, bytes);
      await rename(temporary, path);
      held = null;
    }
    return object;
  }

  delete(name: string): boolean {
    if (!this.#objects.delete(name)) return false;
    this.#names.splice(this.#firstFrom(name), 1);
    return true;
  }

  list({ prefix, delimiter, startOffset, pageToken, maxResults }: ListQuery): Page {
    const items: StoredObject[] = [];
    const prefixes: string[] = [];
    let at = Math.max(this.#firstFrom(prefix), startOffset === null ? 0 : this.#firstFrom(startOffset));
    if (pageToken !== null) at = Math.max(at, this.#firstFrom(Buffer.from(pageToken, 'base64url').toString()));
    while (at < this.#names.length && items.length + prefixes.length < maxResults) {
      const name = this.#names[at]!;
      if (!name.startsWith(prefix)) break;
      const cut = delimiter ? name.indexOf(delimiter, prefix.length) : -1;
      if (cut === -1) {
        items.push(this.#objects.get(name)!);
        at++;
      } else {
        const folded = name.slice(0, cut + delimiter!.length);
        prefixes.push(folded);
        at = this.#firstFrom(successorOf(folded));
      }
    }
    const next = this.#names[at];
    const more = next?.startsWith(prefix) ? { nextPageToken: Buffer.from(next).toString('base64url') } : {};
    return { items, prefixes, ...more };
  }

  /** Where a name is or would be. */
  #firstFrom(name: string): number {
    let low = 0;
    let high = this.#names.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (isBefore(this.#names[middle]!, name)) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** By UTF-8 bytes, of which JavaScript's own order is that of the UTF-16 units. */
function isBefore(a: string, b: string): boolean {
  const isPlain = !/[\ud800-\uffff]/.test(a) && !/[\ud800-\uffff]/.test(b);
  return isPlain ? a < b : Buffer.compare(Buffer.from(a), Buffer.from(b)) < 0;
}

/** The first name that is after all that begin so. */
const successorOf = (prefix: string) =>
  prefix.slice(0, -1) + String.fromCodePoint(prefix.codePointAt(prefix.length - 1)! + 1);
