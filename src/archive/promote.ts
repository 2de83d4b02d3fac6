import type { ArchiveMemory, Promotion } from '../coordination/coordination.ts';
import type { ChainEnd } from '../core/chain.ts';
import { placeText } from '../core/keys.ts';
import { ArchiveNotWhole, ShipmateError } from '../errors.ts';
import type { ObjectStore } from '../store/store.ts';
import { raceProbe, readArchive } from './identity.ts';
import { isJoined } from './lineage.ts';
import { readToEnd } from './reader.ts';
import { retry } from './retry.ts';
import { newClaim, sealOpenTerm } from './takeover.ts';
import { type Archive, findEnd, readPlace } from './walk.ts';

/** What a store holds of a stream. */
export interface Holding {
  readonly archive: Archive;
  readonly end: ChainEnd;
  /** When its newest object was written, milliseconds since 1970; null where it holds none. */
  readonly writtenMs: number | null;
}

/** Null where the store holds no archive of the stream. Throws ArchiveNotWhole where objects are missing before others. */
export async function holdingOf(store: ObjectStore, stream: string): Promise<Holding | null> {
  const archive = await readArchive(store, stream);
  if (archive === null) return null;
  // A copier may still be at work.
  const { end, hole } = await readToEnd(archive, await findEnd(archive, null), () => {});
  if (hole !== null) {
    throw new ArchiveNotWhole(
      `store ${store.name} lacks the object at ${placeText(hole.at)} of stream ${stream}, though ${placeText(hole.next)} is there`,
      `run: shipmate verify ${stream} --store ${store.name}`,
    );
  }
  if (!(await isJoined(archive, end))) {
    throw new ArchiveNotWhole(
      `store ${store.name} holds openings and seals of stream ${stream}, and not yet the log that they are of`,
      'making this copy was interrupted where it began: it can be read once a daemon has gone on with it',
    );
  }
  const newest = end.last && (await readPlace(archive, end.last));
  return { archive, end, writtenMs: newest ? Date.parse(newest.header.time) : null };
}

export interface PromoteOptions extends Holding {
  /** Higher than any that is known. */
  readonly generation: number;
  readonly node: string;
  /** What the twins share; it decides between two promotions at once. */
  readonly shared: ArchiveMemory;
  readonly signal: AbortSignal;
  /** Told of each attempt that failed. */
  readonly onFailure?: (error: unknown) => void;
}

/**
 * Makes a copy the primary (protocol rule 19). Its open term is sealed first, with the raised generation: from then on neither
 * a late copier nor an old master's copy of its own chain gets on there. Then the twins are told, and follow.
 */
export async function promote(options: PromoteOptions): Promise<{ promotion: Promotion; end: ChainEnd }> {
  const { archive, generation, node, shared, signal, onFailure } = options;
  const { stream, archive: id } = archive.info;
  const retries = { signal, ...(onFailure && { onFailure }) };
  const again = (error: unknown) => error instanceof ShipmateError && error.verdict === 'retry';
  await retry(() => raceProbe(archive.store, stream, signal), { ...retries, again });
  const writer = { claim: newClaim(), node, now: () => new Date(), generation };
  const end = await sealOpenTerm(archive, options.end, writer, retries);
  const promotion = { archive: id, generation, store: archive.store.name };
  const remembered = await shared.raise(stream, promotion);
  if (remembered.store === promotion.store && remembered.generation === generation) return { promotion, end };
  throw new ShipmateError(
    `stream ${stream}: store ${remembered.store} was promoted at the same time (generation ${remembered.generation})`,
    {
      code: 'PROMOTE_LOST',
      hint:
        `that stands. Store ${promotion.store} was sealed here and can't be a copy any more: ` +
        `promote it now if it is the better one, or repair it: "shipmate repair ${stream} --help"`,
    },
  );
}
