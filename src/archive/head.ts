import { buffer } from 'node:stream/consumers';
import { decodePayload } from '../codec/decode.ts';
import type { ChainEnd } from '../core/chain.ts';
import { type Chunk, decodeHeader, type Opening, placeIn, type Read } from '../core/header.ts';
import { comparePlaces, type Place, placeKey, placeText } from '../core/keys.ts';
import type { Position } from '../core/position.ts';
import { keyedWitness } from '../core/witness.ts';
import { ShipmateError } from '../errors.ts';
import type { Head, Witness } from '../source/source.ts';
import { type Archive, readFloor, readPlace } from './walk.ts';

/** The archive's end in the shape in which a source finds its place; null while nothing was shipped. */
export async function headOf(archive: Archive, end: ChainEnd): Promise<Head | null> {
  if (end.position === null) return null;
  const history = () => livingChunks(archive, end);
  let witness: Witness | null = null;
  for await (witness of history()) break;
  return {
    position: end.position,
    witness,
    history,
    async *left() {
      yield* (await pastOf(archive, end)).left;
    },
    anew: async () => (await pastOf(archive, end)).anew,
    bytes: (of) => bytesOf(archive, of),
  };
}

/** Whether the newest chunk that counts is encrypted. */
export async function endsEncrypted(archive: Archive, end: ChainEnd): Promise<boolean> {
  for await (const { header } of livingHeaders(archive, end)) return header.recipients !== undefined;
  return false;
}

/** Sources compare digests of plain bytes, and never learn whether the archive keeps those or keyed ones. */
async function witnessOf({ secret, info }: Archive, chunk: Chunk): Promise<Witness> {
  const { from, to, length, openTransaction, witness: mark, recipients } = chunk;
  const facts = { from, to, length, openTransaction, mark };
  if (!recipients) return { ...facts, matches: (digest) => digest === mark };
  if (!secret) throw new TypeError(`nobody said where the secret of stream ${info.stream} is remembered`);
  const key = await secret.read();
  return { ...facts, matches: (digest) => digest !== null && keyedWitness(digest, key) === mark };
}

/** Which object a witness is of. */
const objects = new WeakMap<Witness, { place: Place; digest: string }>();

async function bytesOf(archive: Archive, witness: Witness): Promise<Uint8Array | null> {
  const object = objects.get(witness);
  if (!object) throw new TypeError('this witness is of no chunk of the archive');
  const key = placeKey(archive.info.stream, object.place);
  const bytes = await buffer(await archive.store.read(key));
  const { header, digest, payloadOffset } = decodeHeader(bytes, key);
  if (digest !== object.digest || header.kind !== 'chunk') throw brokenAt(archive, object.place);
  return header.recipients ? null : decodePayload(bytes.subarray(payloadOffset), header, key);
}

/** The chain's chunks, newest first, without those that a later opening cut off (truncate, fork). */
async function* livingChunks(archive: Archive, end: ChainEnd): AsyncIterable<Witness> {
  for await (const { header, digest } of livingHeaders(archive, end)) {
    const witness = await witnessOf(archive, header);
    objects.set(witness, { place: placeIn(header), digest });
    yield witness;
  }
}

async function* livingHeaders(archive: Archive, end: ChainEnd): AsyncIterable<Read<Chunk>> {
  let cut: Position | null = null;
  for await (const read of backwards(archive, end)) {
    const { header } = read;
    if (header.kind === 'opening') cut ??= cutBy(header);
    else if (header.kind === 'chunk') {
      if (cut !== null && !endsBy(header, cut)) continue;
      cut = null;
      yield { ...read, header };
    }
  }
}

/** Where the log before this opening stops to count; null: at its end. */
function cutBy({ result, at, common }: Opening): Position | null {
  return result === 'truncate' || result === 'fork' ? (common ?? at) : null;
}

const endsBy = ({ to }: Chunk, cut: Position) =>
  to.origin === cut.origin &&
  to.segment === cut.segment &&
  to.incarnation === cut.incarnation &&
  to.offset <= cut.offset;

/** What the openings of an archive tell of its past. */
interface Past {
  /** Where the terms ended that a fork came after, newest first. */
  readonly left: readonly Position[];
  /** Where the log began anew the last time. */
  readonly anew: Position | null;
}

/** Up to the newest term that was asked for: that never changes. */
const pasts = new WeakMap<Archive, Past & { readonly term: number }>();

/**
 * Of a term only its opening and its seal are read, once. Retention never deletes them, so that a branch that was left long
 * ago is still known; a copy that was begun at a floor holds those above it alone.
 */
async function pastOf(archive: Archive, { last: newest }: ChainEnd): Promise<Past> {
  const known = pasts.get(archive);
  const left: Position[] = [];
  let anew: Position | null = null;
  const floor = await readFloor(archive);
  for (let last = newest; last !== null; ) {
    if (last.term === known?.term) {
      left.push(...known.left);
      anew ??= known.anew;
      break;
    }
    const opening = await openingOf(archive, last, floor);
    if (opening === null) break;
    const { previous, prev, result, at } = opening.header;
    if (result === 'reset') anew ??= at;
    if (previous === null) break;
    const seal = await readPlace(archive, previous);
    if (seal === null && comparePlaces(previous, floor) < 0) break;
    if (seal?.digest !== prev) throw brokenAt(archive, previous);
    if (seal.header.kind !== 'seal') break;
    if (result === 'fork' && seal.header.at !== null) left.push(seal.header.at);
    last = previous;
  }
  if (newest !== null) pasts.set(archive, { term: newest.term, left, anew });
  return { left, anew };
}

/** The opening of a place's term, or of the one before if that was never opened. */
async function openingOf(archive: Archive, { term }: Place, floor: Place): Promise<Read<Opening> | null> {
  for (let place: Place | null = { term, slot: 0 }; place !== null; ) {
    const read = await readPlace(archive, place);
    if (!read && comparePlaces(place, floor) < 0) return null;
    if (!read) throw brokenAt(archive, place);
    const { header } = read;
    if (header.kind === 'opening') return { ...read, header };
    // A seal at slot 0.
    place = header.kind === 'seal' && header.previous ? { term: header.previous.term, slot: 0 } : null;
  }
  return null;
}

/** So many headers are read at once, at most, going back. */
const MOST_AT_ONCE = 32;

/** The chain's headers from the end back to the floor, each proven by the digest that its successor names. */
async function* backwards(archive: Archive, end: ChainEnd): AsyncIterable<Read> {
  let place = end.last;
  let { digest } = end;
  let atOnce = 1;
  // Asked for beside the floor, which hardly ever lies above it: a round trip less where the store is far away.
  let ahead = place === null ? [] : readBack(archive, place, atOnce);
  const floor = await readFloor(archive);
  while (place !== null && comparePlaces(place, floor) >= 0) {
    if (ahead.length === 0) {
      atOnce = Math.min(2 * atOnce, MOST_AT_ONCE);
      ahead = readBack(archive, place, atOnce);
    }
    const read = await ahead.shift();
    if (read?.digest !== digest) {
      // Retention may have passed this place meanwhile: what it deletes ends the history, and is no damage.
      if (comparePlaces(place, await readFloor(archive)) < 0) return;
      throw brokenAt(archive, place);
    }
    const { header } = read;
    yield read;
    digest = header.prev;
    if (header.kind === 'chunk') place = { term: header.term, slot: header.slot - 1 };
    else {
      place = header.previous;
      ahead = [];
    }
  }
}

/** The objects of one term at a place and before it, newest first. */
function readBack(archive: Archive, { term, slot }: Place, count: number): Promise<Read | null>[] {
  return Array.from({ length: Math.min(count, slot + 1) }, (_, n) => {
    const reading = readPlace(archive, { term, slot: slot - n });
    reading.catch(() => {}); // thrown when its turn comes, if it does
    return reading;
  });
}

function brokenAt({ store, info }: Archive, place: Place): ShipmateError {
  return new ShipmateError(
    `the archive of stream ${info.stream} in store ${store.name} is broken: ${placeText(place)} is not what its successor names`,
    { code: 'CHAIN_BROKEN', hint: 'an object was damaged, removed or replaced in the store: run "shipmate verify"' },
  );
}
