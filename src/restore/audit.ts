import { provenBeyond, readToEnd } from '../archive/reader.ts';
import { type Archive, readPlace } from '../archive/walk.ts';
import { type ChainEnd, endAfter, type Met } from '../core/chain.ts';
import { type Chunk, placeIn, type Read } from '../core/header.ts';
import { type Place, placeKey, placeText } from '../core/keys.ts';
import type { Position } from '../core/position.ts';
import { LivingLog } from '../core/ranges.ts';
import { ShipmateError } from '../errors.ts';
import type { ChunkRef } from './chunks.ts';

/** What is wrong with an object, or with where none is. */
export interface Fault {
  /** Key below the store's prefix. */
  readonly object: string;
  readonly what: string;
}

export interface AuditedChunk extends ChunkRef {
  readonly storedBytes: number;
}

/** What a walk over the chain finds, and goes on after. */
export class Audit {
  readonly living: LivingLog;
  readonly faults: Fault[] = [];
  readonly warnings: Fault[] = [];
  readonly chunks: AuditedChunk[] = [];
  readonly seals: Place[] = [];
  readonly terms = new Set<number>();
  readonly #stream: string;
  readonly #onObject: () => void;
  readonly #accepted = new Set<number>();

  constructor(stream: string, from: Position | null, onObject: () => void) {
    this.#stream = stream;
    this.#onObject = onObject;
    this.living = new LivingLog(from);
  }

  /** At a place: a stranger's own header may say another one. `owner`: the claim that owns the term. */
  meet(met: Met, read: Read, { place, owner }: { readonly place: Place; readonly owner: string }): void {
    this.#onObject();
    const { header } = read;
    if (met === 'foreign') {
      const isOwners = header.claim === owner;
      this.warn(
        place,
        isOwners ? 'does not count: it, or one before it, is not as its owner wrote it' : notOwners(header.node),
      );
      return;
    }
    this.terms.add(header.term);
    this.living.add(read);
    if (header.kind === 'seal') this.seals.push(placeIn(header));
    if (header.kind === 'opening' && header.result === 'gap') this.#accepted.add(header.term);
    if (header.kind === 'chunk') this.#meetChunk(header, read.digest);
  }

  fault(place: Place, what: string): void {
    this.faults.push({ object: placeKey(this.#stream, place), what });
  }

  /** The fault that a read or the chain's check threw. */
  faultOf(place: Place, error: ShipmateError): void {
    const object = placeKey(this.#stream, place);
    const prefixes = [`object ${object} `, `the archive of stream ${this.#stream} is broken: ${placeText(place)} `];
    this.fault(
      place,
      prefixes.reduce((text, prefix) => text.replace(prefix, ''), error.message),
    );
  }

  warn(place: Place, what: string): void {
    this.warnings.push({ object: placeKey(this.#stream, place), what });
  }

  /** After the walk: terms that do not go on where the one before ended. */
  judgeBreaks(): void {
    const isChainWhole = this.faults.length === 0;
    for (const { result, place, before, at } of this.living.breaks) {
      if (result !== 'gap') continue;
      const where = `${before ? `${before.segment}:${before.offset}` : 'the start'} and ${at.segment}:${at.offset}`;
      if (this.#accepted.has(place.term)) this.warn(place, `goes on after a gap that was accepted, between ${where}`);
      // Behind a fault it would only repeat that something is missing.
      else if (isChainWhole) this.fault(place, `does not go on where the archive ended: nothing is between ${where}`);
    }
  }

  #meetChunk(chunk: Chunk, digest: string): void {
    const { from, to, length, stored } = chunk;
    const place = placeIn(chunk);
    this.chunks.push({ place, digest, chunkLength: length, storedBytes: stored.bytes });
    if (from.segment !== to.segment || from.incarnation !== to.incarnation || to.offset - from.offset !== length) {
      this.fault(
        place,
        `says that it has ${length} bytes, from ${from.segment}:${from.offset} to ${to.segment}:${to.offset}`,
      );
    }
  }
}

const notOwners = (node: string) => `was not written by the owner of its term, but by node ${node}`;

/**
 * Walks the chain to its present end. Behind whatever is broken it goes on with the next object that is there, so that
 * one fault hides no other.
 */
export async function walkThrough(archive: Archive, from: ChainEnd, audit: Audit): Promise<ChainEnd> {
  let end = from;
  for (;;) {
    const stopped = await walkToFault(archive, end, audit);
    const resumed = stopped.next && (await goOnAt(archive, stopped.end, stopped.next, audit));
    if (resumed === null) return stopped.end;
    end = resumed;
  }
}

/** Where the walk stopped, and where it may go on: null at the chain's end. */
async function walkToFault(
  archive: Archive,
  from: ChainEnd,
  audit: Audit,
): Promise<{ end: ChainEnd; next: Place | null }> {
  let at = from;
  try {
    const { end, hole } = await readToEnd(archive, from, (met, read, next) => {
      audit.meet(met, read, { place: at, owner: next.owner });
      at = next;
    });
    if (hole !== null) audit.fault(hole.at, `is missing, although ${placeText(hole.next)} is there`);
    return { end, next: hole === null ? null : hole.next };
  } catch (error) {
    if (!isDamage(error)) throw error;
    audit.faultOf(at, error);
    return { end: at, next: error.code === 'CHAIN_BROKEN' ? at : await nextBehind(archive, at, audit) };
  }
}

/** The walk's state after the object at a place that nothing before proves; null where no readable object follows. */
async function goOnAt(archive: Archive, end: ChainEnd, place: Place, audit: Audit): Promise<ChainEnd | null> {
  for (let at: Place | null = place; at !== null; at = await nextBehind(archive, { ...end, ...at }, audit)) {
    try {
      const read = await readPlace(archive, at);
      if (read === null) return null;
      audit.meet(read.header.kind, read, { place: at, owner: end.owner });
      const after = endAfter(read);
      return after.term === end.term ? { ...after, owner: end.owner } : after;
    } catch (error) {
      if (!isDamage(error)) throw error;
      audit.faultOf(at, error);
    }
  }
  return null;
}

/** The next object behind one that can't be read; null where the chain may end there. */
async function nextBehind(archive: Archive, bad: ChainEnd, audit: Audit): Promise<Place | null> {
  const behind = { ...bad, slot: bad.slot + 1 };
  const key = placeKey(archive.info.stream, behind);
  const isThere = async () => (await archive.store.head(key)) !== null;
  const place = { term: behind.term, slot: behind.slot };
  if (await isThere()) return place;
  const next = await provenBeyond(archive, behind);
  if (next === null) return null;
  // What was found may have been written since, and the place before it.
  if (await isThere()) return place;
  // If the next term begins, the one that can't be read was the seal.
  const wasSeal = next.term === bad.term + 1 && next.slot === 0;
  if (!wasSeal) audit.fault(behind, `is missing, although ${placeText(next)} is there`);
  return next;
}

function isDamage(error: unknown): error is ShipmateError {
  return error instanceof ShipmateError && (error.code === 'CHAIN_BROKEN' || error.code === 'BAD_OBJECT');
}
