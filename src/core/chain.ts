import { ShipmateError } from '../errors.ts';
import { generationIn, type Header, type Read } from './header.ts';
import { type Place, placeText } from './keys.ts';
import { follows, type Position } from './position.ts';

/**
 * Where a walk over the chain stands: everything before `term`/`slot` is known and verified, that place is looked at
 * next. A value, never changed: `step` makes the next one.
 */
export interface ChainEnd {
  readonly archive: string;
  readonly stream: string;
  readonly term: number;
  readonly slot: number;
  /** The claim that owns the term: it wrote the seal of the term before (of term 0: stream.json). */
  readonly owner: string;
  /** Digest of the last header in the chain; before the first one that of stream.json. */
  readonly digest: string;
  /** Up to where the log is in the archive; null while nothing was shipped. */
  readonly position: Position | null;
  /** Where the last header in the chain is; null before the first one. */
  readonly last: Place | null;
  /** Store generation of the last header in the chain: only a seal raises it, `promote`'s. */
  readonly generation: number;
  /** A stranger's object was met in this term: of the rest of it only a seal counts (protocol rule 5). */
  readonly foreign: boolean;
}

export type Met = 'opening' | 'chunk' | 'seal' | 'foreign';

/** The walk after the object at `end`'s place was read. Throws CHAIN_BROKEN where an object contradicts the chain. */
export function step(end: ChainEnd, read: Read): { end: ChainEnd; met: Met } {
  const { header } = read;
  // Of a lower generation: what a copier was still bringing when the copy was promoted.
  if (!standsAt(end, header) || generationIn(header) < end.generation) return { end: pass(end), met: 'foreign' };
  if (header.kind === 'seal') {
    demandLinked(end, header);
    return { end: afterSeal(end, read), met: 'seal' };
  }
  const owners = header.claim === end.owner && !end.foreign;
  if (!owners) return { end: pass(end), met: 'foreign' };
  if ((header.kind === 'opening') !== (end.slot === 0)) {
    throw broken(end, `holds the wrong kind of object (${header.kind})`);
  }
  demandLinked(end, header);
  if (generationIn(header) > end.generation) throw broken(end, 'raises the generation, which only a seal may');
  if (header.kind === 'chunk' && end.position !== null && !follows(header.from, end.position)) {
    throw broken(
      end,
      `starts at ${header.from.segment}:${header.from.offset}, but the chunk before ended at ` +
        `${end.position.segment}:${end.position.offset}`,
    );
  }
  return { end: after(end, read), met: header.kind };
}

/** The walk that begins right after an object that is known to belong to its term's owner (a cursor's, a floor's). */
export function endAfter(read: Read): ChainEnd {
  const { archive, stream, term, slot, claim } = read.header;
  const start = { archive, stream, term, slot, owner: claim, digest: '', position: null, last: null };
  const end = { ...start, generation: generationIn(read.header), foreign: false };
  return read.header.kind === 'seal' ? afterSeal(end, read) : after(end, read);
}

function after(end: ChainEnd, { header, digest }: Read): ChainEnd {
  return {
    ...end,
    slot: end.slot + 1,
    digest,
    position: header.kind === 'chunk' ? header.to : 'at' in header ? header.at : null,
    last: { term: end.term, slot: end.slot },
  };
}

function afterSeal(end: ChainEnd, { header, digest }: Read): ChainEnd {
  return {
    ...end,
    term: end.term + 1,
    slot: 0,
    owner: header.claim,
    digest,
    position: 'at' in header ? header.at : end.position,
    last: { term: end.term, slot: end.slot },
    generation: generationIn(header),
    foreign: false,
  };
}

const pass = (end: ChainEnd): ChainEnd => ({ ...end, slot: end.slot + 1, foreign: true });

function standsAt(end: ChainEnd, header: Header): boolean {
  return (
    header.archive === end.archive &&
    header.stream === end.stream &&
    header.term === end.term &&
    header.slot === end.slot
  );
}

function demandLinked(end: ChainEnd, header: Header): void {
  if (header.prev !== end.digest) throw broken(end, 'does not name the digest of the header before it');
}

function broken(end: ChainEnd, why: string): ShipmateError {
  return new ShipmateError(`the archive of stream ${end.stream} is broken: ${placeText(end)} ${why}`, {
    code: 'CHAIN_BROKEN',
    hint: 'an object was damaged, removed or replaced in the store: run "shipmate verify --deep" and compare with a copy',
  });
}
