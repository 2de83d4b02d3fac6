import { choosePrimary, demandGeneration, generationOf, remember } from '../archive/generation.ts';
import { type Opener, openArchive } from '../archive/identity.ts';
import { type Archive, findEnd, readPlace } from '../archive/walk.ts';
import type { ArchiveMemory, Coordination } from '../coordination/coordination.ts';
import type { Log } from '../core/log.ts';
import { ShipmateError, UsageError } from '../errors.ts';
import type { StreamMetrics } from '../metrics.ts';
import type { LogSource } from '../source/source.ts';
import type { ObjectStore } from '../store/store.ts';
import type { Agreement } from './agreement.ts';

export interface PrimaryOptions {
  readonly name: string;
  readonly node: string;
  readonly cluster: string;
  readonly source: LogSource;
  /** Names of the plan's stores, as the config has them. */
  readonly plan: { readonly primary: string; readonly copies: readonly string[] };
  /** A store of the config by its name. */
  readonly openStore: (name: string) => Promise<ObjectStore>;
  readonly coordination: Coordination;
  /** What this host remembers: archive ids, promotions. */
  readonly memory: ArchiveMemory;
  readonly metrics: StreamMetrics;
  readonly log: Log;
  /** Digest of the config that must agree between twins, with this store as the primary. */
  readonly config: (primary: string) => string;
  /** Whether its chunks are encrypted; by default they are not. */
  readonly encrypts?: boolean;
  readonly init: boolean;
  /** Solo: seal a term of another node. */
  readonly force: boolean;
}

/** The effective primary, opened. */
export interface OpenedPrimary {
  readonly archive: Archive;
  /** Names of the stores that are its copies. */
  readonly copies: readonly string[];
  readonly generation: number;
  /** The claim that owns term 1, where the archive was created just now. */
  readonly claim: string | null;
  readonly config: string;
}

/**
 * Chooses the store that is the stream's primary, and opens the archive there. Throws with verdict `retry` what may pass: a
 * store, source or etcd that is away, a primary that a promotion has left behind.
 */
export async function openPrimary(
  options: PrimaryOptions,
  agreement: Agreement,
  signal: AbortSignal,
): Promise<OpenedPrimary> {
  const { name, node, cluster, source, plan, coordination, memory, log, init, encrypts = false } = options;
  const memories: Opener['memories'] = [coordination.archives, memory];
  const stores = [plan.primary, ...plan.copies];
  const openStore = storeOpener(options);
  const chosen = await choosePrimary({ stream: name, primary: plan.primary, stores, openStore, memories });
  const store = await openStore(chosen.store);
  const config = options.config(chosen.store);
  await agreement.demand({ config, generation: chosen.generation });
  if (chosen.unanswered.length > 0) {
    log.warn(`nobody remembers whether a copy was promoted, and ${chosen.unanswered.join(', ')} can't be asked`);
  }
  const identity = await source.identity();
  const { archive, claim } = await openArchive(
    { store, stream: name, cluster, node, identity, memories, encrypts, signal },
    init,
  );
  const generation = chosen.generation > 0 ? await generationOf(archive) : 0;
  demandGeneration(archive, generation, chosen.generation);
  await remember(archive, generation, memories);
  if (coordination.kind === 'solo') await demandOwnArchive(options, archive, claim);
  tellPromoted(options, chosen.store, generation);
  return { archive, copies: copiesOf(plan, chosen.store), generation, claim, config };
}

/** The old primary is no copy until the config says so: what it holds beyond the promoted copy's end is left. */
export function copiesOf({ primary, copies }: PrimaryOptions['plan'], store: string): string[] {
  return copies.filter((copy) => copy !== store && copy !== primary);
}

/** A store that only the twins' configs have is waited for: this host's other streams go on. */
function storeOpener({ name, openStore, plan }: PrimaryOptions): PrimaryOptions['openStore'] {
  return async (store) => {
    try {
      return await openStore(store);
    } catch (cause) {
      if (!(cause instanceof UsageError) || store === plan.primary) throw cause;
      throw new ShipmateError(`stream ${name}: its primary is store ${store} now: ${cause.message}`, {
        code: 'PRIMARY_NOT_IN_CONFIG',
        hint: `correct the store in this config, and restart. To make another store the primary: shipmate promote ${name}`,
        verdict: 'retry',
        cause,
      });
    }
  };
}

function tellPromoted({ name, plan, metrics, log }: PrimaryOptions, store: string, generation: number): void {
  const isPromoted = store !== plan.primary;
  metrics.alarm('promoted', isPromoted);
  if (!isPromoted) return;
  log.warn(`store ${store} was promoted (generation ${generation}), but the config says primary: ${plan.primary}`, {
    hint:
      `correct the plan of stream ${name} in the configs of all hosts: until then fetch, restore, ls and verify look into ` +
      `${plan.primary} unless told --store ${store}`,
  });
}

/** Rule 15: two solo daemons that restart for ever must not seal each other for ever. */
async function demandOwnArchive(
  { node, name, force }: PrimaryOptions,
  archive: Archive,
  created: string | null,
): Promise<void> {
  if (created !== null || force) return;
  const { last } = await findEnd(archive, null);
  const owner = last && (await readPlace(archive, last))?.header.node;
  if (!owner || owner === node) return;
  throw new ShipmateError(`stream ${name}: the archive was last written by node ${owner}, this is ${node}`, {
    code: 'SOLO_OTHER_NODE',
    hint: `make sure that no daemon runs on ${owner} any more, then start once with: shipmate run --force`,
  });
}
