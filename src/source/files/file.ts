import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { digestRange, type FileIdentity, HeldFile } from '../held-file.ts';
import { unreadable } from './errors.ts';

/** What a look at the directory tells of one of its files. */
export interface Found {
  readonly name: string;
  readonly identity: FileIdentity;
  readonly size: number;
  readonly modifiedMs: number;
}

const FINGERPRINT_BYTES = 1024;
const FINGERPRINT_DIGITS = 16;
const INCARNATION = /^(\d{1,4})-([0-9a-f]{16})$/;
const MAX_GROWTHS = 64;

/** One file, by its descriptor once opened: what is read is the same file, whatever happens to its name. */
export class LogFile {
  /** As last seen. */
  name: string;
  size: number;
  modifiedMs: number;
  /** Whether it is in the directory; otherwise it was removed, and only a descriptor may keep it. */
  listed = true;
  /** The segment that it is in the archive, and of which incarnation; null while nothing is known to be shipped of it. */
  bound: { readonly segment: string; readonly incarnation: string } | null = null;
  /** Where it ended when the file after it was begun; null before. */
  endedAt: number | null = null;
  readonly identity: FileIdentity;
  readonly #dir: string;
  /** Its name may have changed since it was seen: then it is looked for again at the next look. */
  readonly #file: HeldFile;
  #syncedBytes = 0;
  /** When its size was first seen to be so large. */
  #growths: { size: number; ms: number }[] = [];

  constructor(dir: string, { name, identity, size, modifiedMs }: Found) {
    this.#dir = dir;
    this.name = name;
    this.identity = identity;
    this.#file = new HeldFile({ identity, path: () => this.path, unreadable });
    this.size = size;
    this.modifiedMs = modifiedMs;
    this.#growths.push({ size, ms: modifiedMs });
  }

  get path(): string {
    return join(this.#dir, this.name);
  }

  /** Whether our descriptor keeps the file, even if it is removed. */
  get isOpen(): boolean {
    return this.#file.isOpen;
  }

  seen({ name, size, modifiedMs }: Found): void {
    this.name = name;
    this.listed = true;
    this.#grew(size, modifiedMs);
  }

  /** Keeps the file open until a `release` for each `retain`. False when it is gone (then nothing is retained). */
  retain(): Promise<boolean> {
    return this.#file.retain();
  }

  release(): Promise<void> {
    return this.#file.release();
  }

  /** Looks at the file's size. Null: it is gone. */
  async measure(): Promise<number | null> {
    const found = await this.#file.use((handle) => handle.stat());
    if (found) this.#grew(found.size, found.mtimeMs);
    return found?.size ?? null;
  }

  /** Makes everything before `size` durable, whoever wrote it. */
  async sync(size: number): Promise<void> {
    if (size <= this.#syncedBytes) return;
    await this.#file.use((handle) => handle.datasync());
    this.#syncedBytes = size;
  }

  /** Reads into buffer[at, at + length) from `offset`. Returns bytes read. */
  async read(buffer: Buffer, at: number, length: number, offset: number): Promise<number> {
    const read = await this.#file.use((handle) => handle.read(buffer, at, length, offset));
    return read?.bytesRead ?? 0;
  }

  /** The witness of a range; null when the file does not reach that far. */
  digest(offset: number, length: number): Promise<string | null> {
    return digestRange((buffer, count, from) => this.read(buffer, 0, count, from), offset, length);
  }

  /**
   * A name for this life of the file, by its content alone: how many of its first bytes (1 KiB, or what there is), and
   * their digest. Whoever meets it later digests as many.
   */
  async incarnation(): Promise<string> {
    return this.bound?.incarnation ?? (await this.#fingerprint(Math.min(this.size, FINGERPRINT_BYTES)));
  }

  /** Whether the file begins as that incarnation does. */
  async begins(incarnation: string): Promise<boolean> {
    const count = Number(INCARNATION.exec(incarnation)?.[1] ?? Number.NaN);
    return count <= FINGERPRINT_BYTES && (await this.#fingerprint(count)) === incarnation;
  }

  /** When the bytes at `offset` were first seen, or earlier than that. */
  writtenMs(offset: number): number {
    return this.#growths.find(({ size }) => size > offset)?.ms ?? this.modifiedMs;
  }

  async #fingerprint(count: number): Promise<string> {
    const start = Buffer.alloc(count);
    const read = await this.read(start, 0, count, 0);
    const digest = createHash('sha256').update(start.subarray(0, read)).digest('hex');
    return `${read}-${digest.slice(0, FINGERPRINT_DIGITS)}`;
  }

  #grew(size: number, modifiedMs: number): void {
    this.modifiedMs = modifiedMs;
    this.size = size;
    const last = this.#growths.at(-1);
    if (last && last.size >= size) return;
    if (this.#growths.length >= MAX_GROWTHS) this.#growths = this.#growths.filter((_, i) => i % 2 === 0);
    this.#growths.push({ size, ms: modifiedMs });
  }
}
