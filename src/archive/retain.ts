import { type PrunePlan, planCopyPrune, planPrune, prune, type Retention } from './prune.ts';
import { type Swept, sweep } from './sweep.ts';
import type { Archive } from './walk.ts';

export interface RetainOptions extends Retention {
  readonly primary: Archive;
  /** How much later than in the primary deletions reach each. */
  readonly copies: readonly { readonly archive: Archive; readonly delayMs: number }[];
  readonly dryRun: boolean;
  readonly signal: AbortSignal;
  /** Told which store's turn it is. */
  readonly onStore: (name: string) => void;
}

/** What was done in one store, or would be. */
export interface Retained extends Swept {
  readonly store: string;
  readonly role: 'primary' | 'copy';
  readonly floor: PrunePlan['floor'];
  /** Whether the floor rises with it. */
  readonly raised: boolean;
  /** The copy that keeps the primary from deleting more, since it has not come so far. */
  readonly heldBy: PrunePlan['heldBy'];
}

/** Prunes a stream's primary, then each copy as far as its delay allows. */
export async function* retain(options: RetainOptions): AsyncGenerator<Retained> {
  const { primary, copies, onStore } = options;
  onStore(primary.store.name);
  const archives = copies.map(({ archive }) => archive);
  yield carryOut(primary, 'primary', await planPrune(primary, options, archives), options);
  for (const { archive, delayMs } of copies) {
    onStore(archive.store.name);
    yield carryOut(archive, 'copy', await planCopyPrune(archive, primary, { ...options, delayMs }), options);
  }
}

async function carryOut(
  archive: Archive,
  role: Retained['role'],
  plan: PrunePlan,
  options: RetainOptions,
): Promise<Retained> {
  const swept = options.dryRun ? await sweep(archive, plan, options) : await prune(archive, plan, options);
  return {
    store: archive.store.name,
    role,
    floor: plan.floor,
    raised: plan.create !== null,
    heldBy: plan.heldBy,
    ...swept,
  };
}
