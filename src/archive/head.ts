import type { ChainEnd } from '../core/chain.ts';
import type { Chunk, Header } from '../core/header.ts';
import { comparePlaces, type Place, placeText } from '../core/keys.ts';
import type { Position } from '../core/position.ts';
import { ShipmateError } from '../errors.ts';
import type { Head, Witness } from '../source/source.ts';
import { type Archive, readFloor, readPlace } from './walk.ts';

/** The archive's end in the shape in which a source finds its place; null while nothing was shipped. */
export async function headOf(archive: Archive, end: ChainEnd): Promise<Head | null> {
  if (end.position === null) return null;
  const history = () => livingChunks(archive, end);
  let witness: Witness | null = null;
  for await (witness of history()) break;
  return { position: end.position, witness, history };
}

export const witnessOf = (chunk: Chunk): Witness => ({
  from: chunk.from,
  to: chunk.to,
  length: chunk.length,
  digest: chunk.witness,
  openTransaction: chunk.openTransaction,
});

/** The chain's chunks, newest first, without those that a later opening cut off (truncate, fork). */
async function* livingChunks(archive: Archive, end: ChainEnd): AsyncIterable<Witness> {
  let cut: Position | null = null;
  for await (const header of backwards(archive, end)) {
    if (header.kind === 'opening') {
      if (cut === null && (header.result === 'truncate' || header.result === 'fork')) cut = header.at;
    } else if (header.kind === 'chunk') {
      if (cut !== null && !endsBy(header, cut)) continue;
      cut = null;
      yield witnessOf(header);
    }
  }
}

const endsBy = ({ to }: Chunk, cut: Position) =>
  to.segment === cut.segment && to.incarnation === cut.incarnation && to.offset <= cut.offset;

/** The chain's headers from the end back to the floor, each proven by the digest that its successor names. */
async function* backwards(archive: Archive, end: ChainEnd): AsyncIterable<Header> {
  const floor = await readFloor(archive);
  let place = end.last;
  let { digest } = end;
  while (place !== null && comparePlaces(place, floor) >= 0) {
    const read = await readPlace(archive, place);
    if (read?.digest !== digest) throw brokenAt(archive, place);
    const { header } = read;
    yield header;
    digest = header.prev;
    place = header.kind === 'chunk' ? { term: header.term, slot: header.slot - 1 } : header.previous;
  }
}

function brokenAt({ store, info }: Archive, place: Place): ShipmateError {
  return new ShipmateError(
    `the archive of stream ${info.stream} in store ${store.name} is broken: ${placeText(place)} is not what its successor names`,
    { code: 'CHAIN_BROKEN', hint: 'an object was damaged, removed or replaced in the store: run "shipmate verify"' },
  );
}
