import type { ArchiveMemory, Promotion } from '../coordination/coordination.ts';
import type { ChainEnd } from '../core/chain.ts';
import { comparePlaces } from '../core/keys.ts';
import { messageOf, ShipmateError } from '../errors.ts';
import type { ObjectStore } from '../store/store.ts';
import { readArchive } from './identity.ts';
import { within } from './retry.ts';
import { type Archive, findEnd, readPlace } from './walk.ts';

/** Where a stream may go, and everywhere that promotions are remembered. */
export interface Candidates {
  readonly stream: string;
  /** The config's primary. */
  readonly primary: string;
  /** All stores of the plan. */
  readonly stores: readonly string[];
  readonly openStore: (name: string) => Promise<ObjectStore>;
  readonly memories: readonly [shared: ArchiveMemory, local: ArchiveMemory];
}

/** The effective primary (protocol rule 19). */
export interface Primary {
  readonly store: string;
  /** What the store's chain must have reached at least. */
  readonly generation: number;
  /** Stores that were to be looked at, and did not answer. */
  readonly unanswered: readonly string[];
}

/** A store that hangs must not hold up those that answer. */
const LOOK_MS = 5_000;

/** How often copies were promoted, as the chain's end says. */
export async function generationOf(archive: Archive): Promise<number> {
  try {
    return (await findEnd(archive, null)).generation;
  } catch (cause) {
    const { store, info } = archive;
    throw new ShipmateError(
      `which generation of stream ${info.stream} store ${store.name} holds can't be told: ${messageOf(cause)}`,
      {
        code: 'GENERATION_UNKNOWN',
        hint:
          (cause instanceof ShipmateError && cause.hint) || `run: shipmate verify ${info.stream} --store ${store.name}`,
        verdict: 'retry',
        cause,
      },
    );
  }
}

/** The promotion that stands by what etcd and this host remember, the higher of both; etcd's where they are of one height. */
export async function standingPromotion(stream: string, memories: Candidates['memories']): Promise<Promotion | null> {
  const [ids, promotions] = await Promise.all([
    Promise.all(memories.map((memory) => memory.load(stream))),
    Promise.all(memories.map((memory) => memory.generation(stream))),
  ]);
  // One of another archive went with it when an operator adopted this one.
  const ofThis = promotions.filter(
    (promotion) => promotion !== null && ids.every((known) => known === null || known.id === promotion.archive),
  );
  return ofThis.reduce((best, one) => (best && one && best.generation >= one.generation ? best : one), null);
}

/**
 * Chooses the store that is the primary: the one that was promoted last, else the config's. Where the twins remember nothing
 * of the archive, a promotion may be forgotten with it: then the stores tell. Throws what memories or stores say.
 */
export async function choosePrimary(candidates: Candidates): Promise<Primary> {
  const { stream, primary, stores, memories } = candidates;
  const promotion = await standingPromotion(stream, memories);
  if (promotion) return { ...promotion, unanswered: [] };
  const known = await memories[0].load(stream);
  if (known?.state === 'created' || stores.length === 1) return { store: primary, generation: 0, unanswered: [] };
  return highestOf(candidates);
}

/** What a store was found to hold. */
interface Look {
  readonly store: string;
  readonly archive: Archive;
  readonly end: ChainEnd;
}

/** The highest generation wins, and of that the store whose chain goes furthest: the others are its copies. */
async function highestOf({ stream, primary, stores, openStore }: Candidates): Promise<Primary> {
  const looks = await Promise.all(
    stores.map((store) =>
      within(
        LOOK_MS,
        openStore(store).then((opened) => look(opened, stream)),
      ).catch(() => null),
    ),
  );
  const unanswered = stores.filter((_, index) => looks[index] === null);
  const found = looks.filter((one) => one !== null && one !== 'empty').sort((a, b) => compareEnds(b.end, a.end));
  const generation = found[0]?.end.generation ?? 0;
  const [best, ...others] = found.filter(({ end }) => end.generation === generation);
  if (generation === 0 || !best) return { store: primary, generation: 0, unanswered };
  for (const other of others) {
    if (!(await isCopyOf(other, best))) throw ambiguous(stream, generation, [best.store, other.store]);
  }
  return { store: best.store, generation, unanswered };
}

const compareEnds = (a: ChainEnd, b: ChainEnd) => a.generation - b.generation || comparePlaces(a, b);

/** One at a time at each store: what hangs on a dead mount takes a thread of this process with it. */
const looking = new WeakMap<ObjectStore, Promise<Look | 'empty'>>();

function look(store: ObjectStore, stream: string): Promise<Look | 'empty'> {
  const begun = looking.get(store);
  if (begun) return begun;
  const looked = (async () => {
    const archive = await readArchive(store, stream);
    return archive ? { store: store.name, archive, end: await findEnd(archive, null) } : ('empty' as const);
  })().finally(() => looking.delete(store));
  looking.set(store, looked);
  return looked;
}

/** Whether the chain that goes further holds the other's end. */
async function isCopyOf({ end }: Look, { archive }: Look): Promise<boolean> {
  if (end.last === null) return true;
  return (await readPlace(archive, end.last))?.digest === end.digest;
}

function ambiguous(stream: string, generation: number, stores: readonly string[]): ShipmateError {
  return new ShipmateError(
    `stream ${stream}: stores ${stores.join(' and ')} both hold generation ${generation}, and neither is a copy of the other: ` +
      'nobody remembers which was promoted last',
    {
      code: 'PRIMARY_AMBIGUOUS',
      hint: `"shipmate ls ${stream} --store NAME" shows what each holds; then: shipmate promote ${stream} --to NAME`,
      verdict: 'retry',
    },
  );
}

/** Refuses what a promotion has left behind: the old primary that came back, or an older state of the promoted one. */
export function demandGeneration({ store, info }: Archive, generation: number, atLeast: number): void {
  if (generation >= atLeast) return;
  throw new ShipmateError(
    `store ${store.name} holds generation ${generation} of stream ${info.stream}, but generation ${atLeast} was promoted: ` +
      'it is not the primary any more, or an older state of it',
    {
      code: 'PRIMARY_OUTDATED',
      hint:
        `put the store back that was promoted. To go on from what ${store.name} holds, and leave what was shipped since: ` +
        `shipmate promote ${info.stream} --to ${store.name}`,
      verdict: 'retry',
    },
  );
}

/** Everybody who can remember it learns of the promotion. */
export async function remember(
  { info, store }: Archive,
  generation: number,
  memories: readonly ArchiveMemory[],
): Promise<void> {
  if (generation === 0) return;
  const promotion = { archive: info.archive, generation, store: store.name };
  for (const memory of memories) await memory.raise(info.stream, promotion);
}
