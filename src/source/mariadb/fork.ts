import { samePlace } from '../../core/position.ts';
import type { Head, Witness } from '../source.ts';
import { gtidsIn } from './archived.ts';
import type { Lineage } from './binlogs.ts';
import { type Gtid, gtidText, isPlace, MariadbGtidState } from './gtid.ts';
import { firstAt, holds, nextOf, type OwnLog } from './pair.ts';

/** Where an archive and this log went apart in a domain. */
export interface Divergence {
  /** The last transaction that both have; null: none in this domain. */
  readonly last: Gtid | null;
  /** What comes next in the archive, and what here. */
  readonly archived: Gtid;
  readonly here: Gtid;
}

/** How an archive's past compares with this log. */
export interface Comparison {
  /** Empty while nothing proves that they went apart. */
  readonly divergences: readonly Divergence[];
  /** Whether the archive is encrypted where they may have gone apart: then nothing can prove it here. */
  readonly isSealed: boolean;
}

/** The newest chunk that counts wholly here, and those after it, oldest first, as many as matter. */
interface Trunk {
  readonly lineage: Lineage;
  readonly newest: Witness;
  readonly common: Witness;
  readonly after: readonly Witness[];
}

export const UNPROVEN: Comparison = { divergences: [], isSealed: false };

/** Of the chunks after the common point so many are looked at: logs that went apart do so in the very next. */
const MAX_CHUNKS = 32;

/** Compares an archive's past with this log, and remembers what it found: only what is new is looked at again. */
export class Branches {
  #trunk: Trunk | null = null;
  #compared: { lineage: Lineage; trunk: Trunk; end: string; comparison: Comparison } | null = null;

  /** The newest chunk whose ID is wholly here, on a transaction boundary; null where there is none. Reads the store. */
  async commonOf(own: OwnLog, head: Head): Promise<Witness | null> {
    return (await this.#trunkOf(own, head))?.common ?? null;
  }

  /** Where this log and the archive went apart, by domain. Reads the store. */
  async compare(own: OwnLog, head: Head): Promise<Comparison> {
    const trunk = await this.#trunkOf(own, head);
    const end = (await own.index.end(own.lineage))?.state.text() ?? '';
    if (!trunk) return UNPROVEN;
    const known = this.#compared;
    if (known?.trunk === trunk && known.end === end) return known.comparison;
    const comparison = await compare(own, head, trunk);
    this.#compared = { lineage: own.lineage, trunk, end, comparison };
    return comparison;
  }

  /** The end of a log that the archive has left before and that goes on here; null: there is none. Reads the store. */
  async leftEndHere(own: OwnLog, head: Head, { last, here }: Divergence): Promise<Gtid | null> {
    for await (const state of leftStates(head)) {
      const end = state.lastOf(here.domain);
      if (!end || end.sequence <= (last?.sequence ?? 0n)) continue;
      const isPartOf = here.server === end.server && here.sequence <= end.sequence;
      if (isPartOf || (await firstAt(own, end))?.sequence === end.sequence) return end;
    }
    return null;
  }

  /**
   * The end of a log that the archive has left before and that is here beyond `id`: as long as the archive has come no
   * further than what both branches share, its ID alone does not tell them apart. Null: there is none. Reads the store.
   */
  async leftEndBeyond(own: OwnLog, head: Head, id: string): Promise<Gtid | null> {
    const shipped = new MariadbGtidState(id);
    for await (const end of leftStates(head)) {
      for (const gtid of end.last()) {
        const isBeyond = gtid.sequence > (shipped.highestOf(gtid.domain) ?? 0n);
        if (isBeyond && (await holds(own, gtidText(gtid)))) return gtid;
      }
    }
    return null;
  }

  /** What was found before, unless this log has come further meanwhile: then a newer chunk is the common one. */
  async #known(own: OwnLog): Promise<Trunk | null> {
    if (this.#trunk?.lineage !== own.lineage) return null;
    const next = this.#trunk.after.find(({ openTransaction }) => !openTransaction);
    return next && (await holds(own, next.to.id)) ? null : this.#trunk;
  }

  async #trunkOf(own: OwnLog, head: Head): Promise<Trunk | null> {
    const known = await this.#known(own);
    const fresh: Witness[] = [];
    let newest: Witness | null = null;
    for await (const witness of head.history()) {
      newest ??= witness;
      if (known && isSame(known.newest, witness)) {
        const after = [...known.after, ...fresh.toReversed()].slice(0, MAX_CHUNKS);
        this.#trunk = fresh.length === 0 ? known : { ...known, newest, after };
        return this.#trunk;
      }
      if (!witness.openTransaction && (await holds(own, witness.to.id))) {
        this.#trunk = { lineage: own.lineage, newest, common: witness, after: fresh.toReversed() };
        return this.#trunk;
      }
      fresh.push(witness);
      if (fresh.length > MAX_CHUNKS) fresh.shift();
    }
    return null;
  }
}

async function* leftStates(head: Head): AsyncIterable<MariadbGtidState> {
  for await (const { id } of head.left()) if (!isPlace(id) && !id.includes(':')) yield new MariadbGtidState(id);
}

const isSame = (a: Witness, b: Witness) => a.mark === b.mark && samePlace(a.to, b.to) && samePlace(a.from, b.from);

/** Goes along the archive from the common point, until a chunk has transactions that this log has others in place of. */
async function compare(own: OwnLog, head: Head, { common, after }: Trunk): Promise<Comparison> {
  const shipped = new MariadbGtidState(head.position?.id);
  const lastOf = new Map<number, Gtid | null>();
  for (const gtid of new MariadbGtidState(common.to.id).last()) lastOf.set(gtid.domain, gtid);
  const divergences: Divergence[] = [];
  const apart = new Set<number>();
  for await (const chunk of gtidsIn(head, after)) {
    if (chunk === null) return { divergences, isSealed: true };
    for (const [domain, gtids] of Map.groupBy(chunk, (gtid) => gtid.domain)) {
      const last = lastOf.get(domain) ?? null;
      // Not what the archive had before, nor that of which it has not the end.
      const isNew = ({ sequence }: Gtid) =>
        sequence > (last?.sequence ?? 0n) && sequence <= (shipped.highestOf(domain) ?? 0n);
      const fresh = gtids.filter(isNew);
      if (apart.has(domain) || fresh.length === 0) continue;
      const shared = await countShared(own, fresh);
      lastOf.set(domain, fresh[shared - 1] ?? last);
      if (shared === fresh.length) continue;
      apart.add(domain);
      const divergence = await divergenceAt(own, lastOf.get(domain) ?? null, fresh[shared]!);
      if (divergence) divergences.push(divergence);
    }
    if (divergences.length > 0) break;
  }
  return { divergences, isSealed: false };
}

/** How many of a domain's transactions, from the first on, are here too: logs that went apart never meet again. */
async function countShared(own: OwnLog, gtids: readonly Gtid[]): Promise<number> {
  let [low, high] = [0, gtids.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (await holds(own, gtidText(gtids[middle]!))) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Another number is no contradiction: what is between may have come here another way than through the log. */
async function divergenceAt(own: OwnLog, last: Gtid | null, archived: Gtid): Promise<Divergence | null> {
  const here = await nextOf(own, archived.domain, last?.sequence ?? 0n);
  return here?.sequence === archived.sequence ? { last, archived, here } : null;
}
