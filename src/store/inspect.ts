import { ShipmateError } from '../errors.ts';
import type { ObjectStore } from './store.ts';

/** In the words of `shipmate check`. */
export interface StoreFinding {
  readonly level: 'ok' | 'warning' | 'error';
  readonly message: string;
  readonly hint?: string;
}

/** No key of an archive is called so. */
const ABSENT = 'shipmate-check';

/** What a daemon, or a restore, could not read in a store. Throws for a store that is down, or not there. */
export async function inspectReading(store: ObjectStore): Promise<StoreFinding[]> {
  // Tried, not asked for: rights may be bound with a condition on names, and emulators know none.
  const refusals = [
    await refusalBy(() => store.head(ABSENT)),
    await refusalBy(async () => {
      for await (const _ of store.list('')) break;
    }),
  ];
  const denied = refusals.filter((refusal) => refusal !== null);
  return denied.length > 0 ? denied : [{ level: 'ok', message: 'it can be read and listed' }];
}

async function refusalBy(attempt: () => Promise<unknown>): Promise<StoreFinding | null> {
  try {
    await attempt();
    return null;
  } catch (error) {
    if (!(error instanceof ShipmateError && error.code === 'STORE_DENIED')) throw error;
    const { message, hint } = error;
    return { level: 'error', message, ...(hint !== undefined && { hint }) };
  }
}
