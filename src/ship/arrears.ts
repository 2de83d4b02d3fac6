import type { Archive } from '../archive/walk.ts';
import type { ChainEnd } from '../core/chain.ts';
import { comparePlaces, placeKey, placeOf, termsPrefix } from '../core/keys.ts';

/**
 * How many bytes of objects a copy lacks of the primary, due or not: listed once where it begins, then counted on by what
 * is shipped and what is copied. It errs by a few bytes an object until the copy has caught up once.
 */
export class Arrears {
  #listed: number | null = 0;
  #grown = 0;
  /** Of the listing that counts, the last one that was begun. */
  #counting = 0;
  #hasFailed = false;

  /** Whether nothing will tell it any more: to be counted again. */
  get isLost(): boolean {
    return this.#hasFailed;
  }

  /** Null while it is not known. */
  get bytes(): number | null {
    return this.#listed === null ? null : Math.max(0, this.#listed + this.#grown);
  }

  add(bytes: number): void {
    this.#grown += bytes;
  }

  take(bytes: number): void {
    this.#grown -= bytes;
  }

  /** The copy has all. */
  clear(): void {
    this.stop();
    this.#listed = 0;
    this.#grown = 0;
  }

  /** Begins to count what the primary holds from one place up to another; what is added and taken meanwhile counts too. */
  count(archive: Archive, from: ChainEnd, upTo: ChainEnd): void {
    this.stop();
    const counting = this.#counting;
    this.#listed = null;
    this.#grown = 0;
    const isOver = () => counting !== this.#counting;
    this.#list(archive, { from, upTo, isOver }).then(
      (bytes) => {
        if (!isOver()) this.#listed = bytes;
      },
      () => {
        this.#hasFailed = !isOver(); // the copier meets what is wrong itself
      },
    );
  }

  /** Nobody asks any more: a listing of millions ends. */
  stop(): void {
    this.#counting++;
    this.#hasFailed = false;
  }

  async #list({ store, info }: Archive, { from, upTo, isOver }: Extent): Promise<number> {
    const after = from.last ? placeKey(info.stream, from.last) : undefined;
    let bytes = 0;
    for await (const { key, size } of store.list(termsPrefix(info.stream), after === undefined ? {} : { after })) {
      const place = placeOf(key);
      if (isOver() || (place !== null && comparePlaces(place, upTo) >= 0)) break;
      bytes += size;
    }
    return bytes;
  }
}

interface Extent {
  readonly from: ChainEnd;
  readonly upTo: ChainEnd;
  readonly isOver: () => boolean;
}
