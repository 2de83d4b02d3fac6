import { ShipmateError, UsageError } from '../../errors.ts';
import type { Scanner } from './scan.ts';

/** A file of Redis's multi-part AOF, by its name: `appendonly.aof.1.base.rdb`, `appendonly.aof.7.incr.aof`. */
export interface AofName {
  /** `appendonly.aof`: the server's setting `appendfilename`. */
  readonly prefix: string;
  readonly seq: number;
  readonly kind: 'base' | 'incr';
}

const NAME = /^(.+)\.(\d{1,12})\.(?:(base)\.(?:rdb|aof)|(incr)\.aof)$/;
const MANIFEST = '.manifest';

export function parseAofName(name: string): AofName | null {
  const [, prefix, seq, base] = NAME.exec(name) ?? [];
  if (prefix === undefined || prefix.startsWith('temp-')) return null;
  return { prefix, seq: Number(seq), kind: base ? 'base' : 'incr' };
}

/** Bases first, then increments by their numbers. */
export function byAofOrder(a: string, b: string): number {
  const [left, right] = [parseAofName(a), parseAofName(b)];
  if (!left || !right) return Number(left === null) - Number(right === null);
  if (left.kind !== right.kind) return left.kind === 'base' ? -1 : 1;
  return left.seq - right.seq;
}

export const isManifest = (name: string) => name.endsWith(MANIFEST) && !name.startsWith('temp');

/** Later versions say more of a file behind these words, in pairs: Redis 8 its `startoffset`. */
const LINE = /^file (?:"([^"\\]+)"|(\S+)) seq (\d+) type ([bih])(?: \S+ \S+)*$/;

/**
 * The files that hold the data now, base first. Those of before the last rewrite, which Redis is about to delete, are left
 * out. Null where the text is not that of a manifest.
 */
export function parseManifest(text: string): string[] | null {
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  const files = lines.map((line) => LINE.exec(line));
  if (files.length === 0 || files.some((file) => file === null)) return null;
  const names = files.flatMap((file) => (file?.[4] === 'h' ? [] : [file?.[1] ?? file?.[2] ?? '']));
  return names.every((name) => parseAofName(name) !== null) ? names.sort(byAofOrder) : null;
}

/** A manifest for restored files. */
export function manifestOf(segments: readonly string[]): { name: string; content: string } | null {
  const files = segments.flatMap((name) => {
    const parsed = parseAofName(name);
    return parsed ? [{ name, ...parsed }] : [];
  });
  const [first] = files;
  if (!first) return null;
  const quoted = (name: string) => (/\s/.test(name) ? `"${name}"` : name);
  const lines = files.map(({ name, seq, kind }) => `file ${quoted(name)} seq ${seq} type ${kind[0]}\n`);
  return { name: `${first.prefix}${MANIFEST}`, content: lines.join('') };
}

const RDB_MAGIC = 'REDIS';
/** An RDB file's `ctime` among its first fields: a string of 5 bytes, then an integer of 32 bits, little-endian. */
const CTIME = Buffer.from([0xfa, 5, ...Buffer.from('ctime'), 0xc2]);
const FIELDS_BYTES = 512;

/** When an RDB file was written, in milliseconds since 1970; null for other files. */
export function rdbTimeMs(start: Uint8Array): number | null {
  const fields = Buffer.from(start.subarray(0, FIELDS_BYTES));
  const at = fields.indexOf(CTIME);
  const isThere = fields.toString('latin1', 0, RDB_MAGIC.length) === RDB_MAGIC && at > 0;
  return isThere && at + CTIME.length + 4 <= fields.length ? fields.readUInt32LE(at + CTIME.length) * 1000 : null;
}

const LINE_FEED = 0x0a;
const MAX_LINE_BYTES = 1024;
const TIME = /^#TS:(\d{1,12})\r?$/;
/** The longest name of a command that matters here is `multi`. */
const NAME_BYTES = 5;

/**
 * Commands of an increment, in Redis's protocol. A boundary is after a command, and after EXEC where MULTI has begun: what
 * Redis itself keeps when it cuts off a torn tail. With `untilMs` it stops before the first command after that time, which
 * only the server's setting `aof-timestamp-enabled` tells. Throws SOURCE_CORRUPT.
 */
export class AofScanner implements Scanner {
  boundary = 0;
  ms: number | null = null;
  readonly mayBeginInside = false;
  /** Whether a later time than `untilMs` was met: what comes then is not scanned. */
  stopped = false;
  readonly #untilMs: number;
  #fed = 0;
  /** An unfinished line. */
  #line = '';
  #argumentsLeft = 0;
  /** Of an argument, its line end included. */
  #bytesLeft = 0;
  /** The command's name as far as it was fed; null: a later argument is fed. */
  #name: string | null = null;
  #inTransaction = false;
  #metMs: number | null = null;

  constructor({ untilMs = Number.POSITIVE_INFINITY }: { untilMs?: number } = {}) {
    this.#untilMs = untilMs;
  }

  feed(given: Uint8Array): void {
    const bytes = Buffer.from(given.buffer, given.byteOffset, given.length);
    for (let at = 0; at < bytes.length && !this.stopped; ) {
      at = this.#bytesLeft > 0 ? this.#argument(bytes, at) : this.#lines(bytes, at);
    }
    this.#fed += bytes.length;
  }

  #argument(bytes: Buffer, at: number): number {
    const end = Math.min(bytes.length, at + this.#bytesLeft);
    if (this.#name !== null && this.#name.length < NAME_BYTES) {
      this.#name += bytes.toString('latin1', at, Math.min(end, at + NAME_BYTES - this.#name.length));
    }
    this.#bytesLeft -= end - at;
    if (this.#bytesLeft === 0) {
      this.#endOfArgument(this.#fed + end);
    }
    return end;
  }

  #endOfArgument(offset: number): void {
    this.#argumentsLeft--;
    if (this.#name !== null) {
      const name = this.#name.trim().toLowerCase();
      if (name === 'multi') this.#inTransaction = true;
      if (name === 'exec') this.#inTransaction = false;
      this.#name = null;
    }
    if (this.#argumentsLeft > 0 || this.#inTransaction) return;
    this.boundary = offset;
    this.ms = this.#metMs;
  }

  #lines(bytes: Buffer, at: number): number {
    const newline = bytes.indexOf(LINE_FEED, at);
    const end = newline < 0 ? bytes.length : newline;
    this.#line += bytes.toString('latin1', at, end);
    if (this.#line.length > MAX_LINE_BYTES) throw this.#corrupt(at);
    if (newline < 0) return end;
    const line = this.#line;
    this.#line = '';
    this.#take(line, at);
    return newline + 1;
  }

  #take(line: string, at: number): void {
    const count = /^[*$](\d{1,10})\r$/.exec(line)?.[1];
    if (this.#argumentsLeft === 0 && line.startsWith('#')) {
      const seconds = TIME.exec(line)?.[1];
      if (seconds !== undefined) this.#metMs = Number(seconds) * 1000;
      this.stopped = this.#metMs !== null && this.#metMs > this.#untilMs;
    } else if (this.#argumentsLeft === 0 && line.startsWith('*') && Number(count) > 0) {
      this.#argumentsLeft = Number(count);
      this.#name = '';
    } else if (this.#argumentsLeft > 0 && line.startsWith('$') && count !== undefined) {
      this.#bytesLeft = Number(count) + 2;
    } else throw this.#corrupt(at);
  }

  #corrupt(at: number): ShipmateError {
    return new ShipmateError(
      `a Redis increment is damaged ${this.#fed + at} bytes after the last place known to be whole`,
      {
        code: 'SOURCE_CORRUPT',
        hint: 'nothing from there on is shipped: look at it with redis-check-aof, and check the disk',
        verdict: 'retry',
      },
    );
  }
}

export const insideBase = (segment: string) =>
  new UsageError(
    `the target lies inside ${segment}, and Redis can't start from a part of it`,
    'give a place in an increment, or the end of the base file: "shipmate ls" shows what is there',
  );
