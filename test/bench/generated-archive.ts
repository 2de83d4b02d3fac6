import { Readable } from 'node:stream';
import type { Archive } from '../../src/archive/walk.ts';
import { encodePayload } from '../../src/codec/encode.ts';
import { objectBytes } from '../../src/codec/object.ts';
import { decodeArchiveFile, encodeArchiveFile } from '../../src/core/archive.ts';
import { encodeHeader, type Header } from '../../src/core/header.ts';
import { type Place, placeKey, placeOf, streamKey, termPrefix, termsPrefix } from '../../src/core/keys.ts';
import type { Position } from '../../src/core/position.ts';
import { ShipmateError } from '../../src/errors.ts';
import type { ByteRange, ObjectInfo, ObjectStore } from '../../src/store/store.ts';
import { writeMs } from '../fakes/fake-format.ts';

export const STREAM = 'orders';
const DIGEST_BYTES = 32;
const TRANSACTION_BYTES = 400;

export interface Shape {
  /** Chunks, one a second, of one transaction each. */
  readonly chunks: number;
  readonly terms: number;
  readonly chunksPerSegment: number;
}

/**
 * A week's archive that takes no room: its objects are made when they are read, alike each time, and only the digests by
 * which each names the one before are kept. A `FakeLog`'s bytes, for `fakeFormat`.
 */
export class GeneratedArchive implements ObjectStore {
  readonly name = 'generated';
  readonly archive: Archive;
  readonly chunksPerTerm: number;
  readonly #shape: Shape;
  readonly #streamFile: Buffer;
  /** Of each header, term after term; a term holds an opening, its chunks, and but for the last a seal. */
  readonly #digests: Buffer;

  constructor(shape: Shape) {
    this.#shape = shape;
    this.chunksPerTerm = Math.ceil(shape.chunks / shape.terms);
    this.#streamFile = encodeArchiveFile({
      v: 1,
      archive: 'generated',
      stream: STREAM,
      cluster: 'bench',
      owner: claimOf(1),
      node: 'a',
      identity: { type: 'fake', name: null },
      window: 8,
      created: new Date(0).toISOString(),
    });
    const info = decodeArchiveFile(this.#streamFile, 'bench');
    this.archive = { store: this, info };
    this.#digests = Buffer.alloc(shape.terms * (this.chunksPerTerm + 2) * DIGEST_BYTES);
    let digest = info.digest;
    for (let term = 1; term <= shape.terms; term++) {
      for (let slot = 0; slot <= this.#lastSlot(term); slot++) {
        digest = encodeHeader(this.#header({ term, slot }, digest)).digest;
        this.#digests.write(digest, this.#indexOf({ term, slot }) * DIGEST_BYTES, 'hex');
      }
    }
  }

  /** The log's transactions count from 1. */
  static idOf(transaction: number): string {
    return transaction === 0 ? '' : `0-1-${transaction}`;
  }

  #lastSlot(term: number): number {
    return this.chunksPerTerm + (term < this.#shape.terms ? 1 : 0);
  }

  #indexOf({ term, slot }: Place): number {
    return (term - 1) * (this.chunksPerTerm + 2) + slot;
  }

  #position(transaction: number): Position {
    const { chunksPerSegment } = this.#shape;
    return this.#positionIn(Math.floor(transaction / chunksPerSegment), transaction);
  }

  #positionIn(segment: number, transaction: number): Position {
    const offset = (transaction - segment * this.#shape.chunksPerSegment) * TRANSACTION_BYTES;
    const name = segmentName(segment);
    return {
      origin: 'fake-1',
      incarnation: `life1-${segment}`,
      segment: name,
      offset,
      id: GeneratedArchive.idOf(transaction),
    };
  }

  /** Where the log is after a transaction: at its file's end where it is the last one. */
  #endAfter(transaction: number): Position {
    const segment = Math.floor(Math.max(0, transaction - 1) / this.#shape.chunksPerSegment);
    return this.#positionIn(segment, transaction);
  }

  #transactionAt({ term, slot }: Place): number {
    return (term - 1) * this.chunksPerTerm + slot;
  }

  #header(place: Place, prev: string): Header {
    const { term, slot } = place;
    const time = new Date(0).toISOString();
    const base = { v: 1, archive: 'generated', stream: STREAM, term, slot, prev, node: 'a', time } as const;
    const claim = claimOf(term);
    const before = this.#endAfter((term - 1) * this.chunksPerTerm);
    if (slot === 0) {
      const previous = term === 1 ? null : { term: term - 1, slot: this.#lastSlot(term - 1) };
      return {
        ...base,
        claim,
        kind: 'opening',
        at: before,
        result: term === 1 ? 'start' : 'resume',
        evidence: {},
        previous,
      };
    }
    if (slot > this.chunksPerTerm) {
      const at = this.#endAfter(term * this.chunksPerTerm);
      return { ...base, claim: claimOf(term + 1), kind: 'seal', at, previous: { term, slot: slot - 1 } };
    }
    const transaction = this.#transactionAt(place);
    const payload = encodePayload(this.#plain(transaction), 1);
    const ms = writeMs(transaction);
    return {
      ...base,
      claim,
      kind: 'chunk',
      from: this.#position(transaction - 1),
      to: this.#endAfter(transaction),
      length: TRANSACTION_BYTES,
      endsSegment: transaction % this.#shape.chunksPerSegment === 0,
      openTransaction: false,
      firstEventMs: ms,
      lastEventMs: ms,
      witness: payload.witness,
      codec: 'zstd',
      stored: { bytes: payload.bytes.length, sha256: payload.sha256 },
    };
  }

  #plain(transaction: number): Buffer {
    const segment = Math.floor((transaction - 1) / this.#shape.chunksPerSegment);
    const line = `${segmentName(segment)} life1-${segment} 0-1-${transaction} write ${transaction}\n`;
    return Buffer.alloc(TRANSACTION_BYTES, line);
  }

  #digestBefore({ term, slot }: Place): string {
    if (term === 1 && slot === 0) return this.archive.info.digest;
    const before = slot > 0 ? { term, slot: slot - 1 } : { term: term - 1, slot: this.#lastSlot(term - 1) };
    const at = this.#indexOf(before) * DIGEST_BYTES;
    return this.#digests.toString('hex', at, at + DIGEST_BYTES);
  }

  #object(key: string): Uint8Array | null {
    if (key === streamKey(STREAM)) return this.#streamFile;
    const place = placeOf(key);
    if (place === null || !this.#holds(place)) return null;
    const { frame } = encodeHeader(this.#header(place, this.#digestBefore(place)));
    const isChunk = place.slot > 0 && place.slot <= this.chunksPerTerm;
    return objectBytes(frame, isChunk ? encodePayload(this.#plain(this.#transactionAt(place)), 1) : undefined);
  }

  #holds({ term, slot }: Place): boolean {
    return term >= 1 && term <= this.#shape.terms && slot <= this.#lastSlot(term);
  }

  #demand(key: string): Uint8Array {
    const object = this.#object(key);
    if (object) return object;
    throw new ShipmateError(`there is no ${key}`, { code: 'NOT_FOUND', hint: 'generate more' });
  }

  async read(key: string, { start, end }: ByteRange = { start: 0 }): Promise<Readable> {
    return Readable.from([this.#demand(key).subarray(start, end)], { objectMode: false });
  }

  async readStart(key: string, maxBytes: number): Promise<Buffer> {
    return Buffer.from(this.#demand(key).subarray(0, maxBytes));
  }

  async head(key: string): Promise<ObjectInfo | null> {
    const place = placeOf(key);
    return place && this.#holds(place) ? { key, size: 1 } : null;
  }

  async *list(prefix: string, { after = '', delimiter }: { after?: string; delimiter?: '/' } = {}) {
    for (let term = 1; term <= this.#shape.terms; term++) {
      const key = termPrefix(STREAM, term);
      if (prefix === termsPrefix(STREAM) && delimiter && key > after) yield { key, size: 0 };
      if (prefix !== key) continue;
      const first = placeOf(after)?.term === term ? placeOf(after)!.slot + 1 : 0;
      for (let slot = first; slot <= this.#lastSlot(term); slot++)
        yield { key: placeKey(STREAM, { term, slot }), size: 1 };
    }
  }

  async create(): Promise<'exists'> {
    throw new Error('a generated archive is read only');
  }

  async delete(): Promise<void> {
    throw new Error('a generated archive is read only');
  }

  async capacity(): Promise<null> {
    return null;
  }
}

const claimOf = (term: number) => `claim-${term}`;
const segmentName = (segment: number) => `log.${String(segment + 1).padStart(6, '0')}`;
