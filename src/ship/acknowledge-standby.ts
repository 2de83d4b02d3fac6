import { comparePlaces, type Place } from '../core/keys.ts';
import type { Position } from '../core/position.ts';

/** More are thinned out: what is then acknowledged comes a little later, never too early. */
const MOST = 256;

/**
 * What a standby could acknowledge on its own server, were the archive's end held by enough stores: its own places,
 * beside those of the archive's end that they were worked out for. Only of one term: a later opening may take back where
 * an earlier one ended.
 */
export class Withheld {
  #pairs: { readonly end: Place; readonly at: Position }[] = [];

  add(end: Place, at: Position): void {
    const newest = this.#pairs.at(-1)?.end;
    if (newest && newest.term !== end.term) this.#pairs = [];
    else if (newest && comparePlaces(newest, end) >= 0) return;
    this.#pairs.push({ end, at });
    if (this.#pairs.length > MOST) this.#pairs = this.#pairs.filter((_, index) => index % 2 === 1);
  }

  /** The newest of them at or below that place, which with all before it is no longer withheld. */
  take(upTo: Place): Position | null {
    const reached = this.#pairs.findLastIndex(({ end }) => end.term === upTo.term && comparePlaces(end, upTo) <= 0);
    return reached === -1 ? null : this.#pairs.splice(0, reached + 1).at(-1)!.at;
  }
}
