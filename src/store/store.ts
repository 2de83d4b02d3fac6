import type { Readable } from 'node:stream';

/** Half open: bytes from `start` up to, not including, `end`; to the object's end without it. */
export interface ByteRange {
  readonly start: number;
  readonly end?: number;
}

export interface ObjectInfo {
  /** Full key below the store's prefix; with a delimiter also common prefixes, which end with it (and have size 0). */
  readonly key: string;
  readonly size: number;
}

export interface Capacity {
  readonly freeBytes: number;
  readonly totalBytes: number;
}

/**
 * Where an archive lies. Keys are relative to the store's configured prefix and use `/`. Every failure is a
 * ShipmateError: code `NOT_FOUND` for an absent object, `STORE_…` with verdict `retry` for what may pass, `fatal` for
 * what needs an operator (rights). No retries inside: the loops retry.
 */
export interface ObjectStore {
  /** The store's name in the config. */
  readonly name: string;
  /**
   * Creates the object if, and only if, its name is free; when it says `created` the object is durable and whole, and
   * visible to every reader. Concurrent creators of one name: exactly one gets `created`. A failure leaves open whether
   * the object exists.
   */
  create(key: string, body: Uint8Array | (() => Readable), signal: AbortSignal): Promise<'created' | 'exists'>;
  read(key: string, range?: ByteRange): Promise<Readable>;
  /** The first `maxBytes` (or fewer, if the object is smaller): one small request, for headers. */
  readStart(key: string, maxBytes: number): Promise<Buffer>;
  head(key: string): Promise<ObjectInfo | null>;
  /** In key order (bytewise), strictly after `after`; with a delimiter, what lies below it is folded into one entry. */
  list(prefix: string, from?: { after?: string; delimiter?: '/' }): AsyncIterable<ObjectInfo>;
  /** Absent is success. */
  delete(keys: readonly string[]): Promise<void>;
  capacity(): Promise<Capacity | null>;
}
