import { buffer } from 'node:stream/consumers';
import { type ChainEnd, type Met, step } from '../core/chain.ts';
import { decodeHeader, digestOf, type Read } from '../core/header.ts';
import { comparePlaces, type Place, placeKey, placeText } from '../core/keys.ts';
import { ShipmateError } from '../errors.ts';
import type { ObjectStore } from '../store/store.ts';
import { mapAtOnce } from './search.ts';
import type { Archive } from './walk.ts';

/** What is wrong with an object of the store that is mended. */
export interface Flaw {
  readonly key: string;
  /** `foreign`: another object stands in its place; `stray`: one that a promotion left behind, beyond where the chain goes. */
  readonly what: 'missing' | 'damaged' | 'foreign' | 'stray';
  /** Of the header that the chain demands; null for what is no part of it. */
  readonly digest: string | null;
}

export interface Comparing {
  /** The archive that is whole. */
  readonly from: Archive;
  readonly to: ObjectStore;
  readonly signal: AbortSignal;
  /** Told of each object that was compared, or written. */
  readonly onObject?: () => void;
}

/** An object of the source's chain, at the place where the walk before it stands. */
interface Link {
  readonly before: ChainEnd;
  readonly met: Met;
  readonly digest: string;
}

const AT_ONCE = 8;
/** So many objects are walked before they are compared. */
const GATHERED = 1000;

interface Compared {
  readonly floor: ChainEnd;
  /** What lies below it is not wanted there. */
  readonly toFloor: ChainEnd;
  readonly generation: { readonly from: number; readonly to: number };
}

/** Holds the source's chain against the other store, so much at a time: there may be more than a process can keep in mind. */
export class Comparison {
  readonly flaws: Flaw[] = [];
  objects = 0;
  readonly #options: Comparing;
  readonly #compared: Compared;
  #before: ChainEnd;
  #links: Link[] = [];

  constructor(options: Comparing, compared: Compared) {
    this.#options = options;
    this.#compared = compared;
    this.#before = compared.floor;
  }

  /** The next object of the walk. */
  readonly meet = async (met: Met, { digest }: Read, next: ChainEnd): Promise<void> => {
    const before = this.#before;
    this.#demandCommon(before);
    if (comparePlaces(before, this.#compared.toFloor) >= 0) this.#links.push({ before, met, digest });
    this.#before = next;
    if (this.#links.length >= GATHERED) await this.#compareGathered();
  };

  async finish(): Promise<void> {
    this.#demandCommon(this.#before);
    await this.#compareGathered();
  }

  /** The other's floor must be a place of this chain, if that goes so far. */
  #demandCommon(at: ChainEnd): void {
    const { toFloor } = this.#compared;
    if (comparePlaces(at, toFloor) === 0 && at.digest !== toFloor.digest) throw bothGoOn(this.#options.from, at);
  }

  async #compareGathered(): Promise<void> {
    const { signal, onObject } = this.#options;
    const links = this.#links;
    this.#links = [];
    this.objects += links.length;
    const found = await mapAtOnce(links, AT_ONCE, async (link) => {
      signal.throwIfAborted();
      const flaw = await this.#flawOf(link);
      onObject?.();
      return flaw;
    });
    this.flaws.push(...found.filter((flaw) => flaw !== null));
  }

  async #flawOf({ before, met, digest }: Link): Promise<Flaw | null> {
    const { to, from } = this.#options;
    const { generation } = this.#compared;
    const key = placeKey(from.info.stream, before); // a stranger's own header may say another place
    const { what, there } = await lookAt(to, key, digest);
    const mayGoOn = what === 'foreign' && met !== 'foreign' && generation.from === generation.to;
    if (mayGoOn && there && isRightful(before, there)) {
      throw bothGoOn({ store: to, info: from.info }, before);
    }
    return what && { key, what, digest };
  }
}

/** What is wrong with an object whose header must have this digest, and what is there if it can be read. */
export async function lookAt(
  to: ObjectStore,
  key: string,
  digest: string,
): Promise<{ what: Exclude<Flaw['what'], 'stray'> | null; there: Read | null }> {
  try {
    const bytes = await buffer(await to.read(key));
    const there = decodeHeader(bytes, key);
    const isRight = there.digest === digest;
    return { what: !isRight ? 'foreign' : isIntact(bytes, there) ? null : 'damaged', there };
  } catch (error) {
    if (!isUnreadable(error)) throw error;
    return { what: error.code === 'NOT_FOUND' ? 'missing' : 'damaged', there: null };
  }
}

/** Whether an object would be the chain's next one, if the source had none there. */
function isRightful(before: ChainEnd, there: Read): boolean {
  try {
    return step(before, there).met !== 'foreign';
  } catch (error) {
    if (error instanceof ShipmateError && error.code === 'CHAIN_BROKEN') return false;
    throw error;
  }
}

/** Whether all behind the header is what that says. */
export function isIntact(bytes: Buffer, { header, payloadOffset }: Read): boolean {
  const payload = bytes.subarray(payloadOffset);
  if (header.kind !== 'chunk') return payload.length === 0;
  return payload.length === header.stored.bytes && digestOf(payload) === header.stored.sha256;
}

const UNREADABLE = new Set(['NOT_FOUND', 'BAD_OBJECT', 'CHAIN_BROKEN']);
export const isUnreadable = (error: unknown): error is ShipmateError =>
  error instanceof ShipmateError && UNREADABLE.has(error.code);

/** Null where what is read is not there, or damaged. */
export async function orNull<T>(read: () => Promise<T>): Promise<T | null> {
  try {
    return await read();
  } catch (error) {
    if (isUnreadable(error)) return null;
    throw error;
  }
}

function bothGoOn({ info, store }: Archive, at: Place): ShipmateError {
  return new ShipmateError(
    `the two archives of stream ${info.stream} go on in different ways, each in its own right, from ${placeText(at)} on ` +
      `(store ${store.name})`,
    {
      code: 'COPY_DIVERGED',
      hint: 'neither is damaged there: find out which one the daemons ship to, and give the other one an empty place',
    },
  );
}
