import { remember, standingPromotion } from '../archive/generation.ts';
import { pause } from '../archive/retry.ts';
import type { Archive } from '../archive/walk.ts';
import type { PrimaryOptions } from './primary.ts';

export interface RememberedOptions
  extends Pick<PrimaryOptions, 'name' | 'coordination' | 'memory' | 'metrics' | 'log'> {
  readonly archive: Archive;
  /** Store generation of the archive as it was opened. */
  readonly generation: number;
  /** How often it is looked for a promotion, milliseconds. */
  readonly rememberMs: number;
  /** Told when another store has become the primary. */
  readonly leave: (why: Error) => void;
}

export const REMEMBER_MS = 5_000;

/**
 * An etcd that was wiped under a running daemon learns again which archive it has (rule 1), and which store was promoted;
 * one that knows of a later promotion ends this daemon's time in the store that it has open (rule 19).
 */
export async function keepRemembered(options: RememberedOptions, signal: AbortSignal): Promise<never> {
  const { archive, generation, coordination, memory, name, log, metrics, rememberMs, leave } = options;
  const { info, store, secret } = archive;
  const memories = [coordination.archives, memory] as const;
  let told: string | null = null;
  for (;;) {
    await pause(rememberMs, signal);
    try {
      const known = await coordination.archives.load(name);
      const other = known?.state === 'created' && known.id !== info.archive ? known.id : null;
      metrics.alarm('archive-id', other !== null);
      if (other !== null && other !== told) tellOther(options, other);
      told = other;
      if (other !== null) continue;
      if (known?.state !== 'created') {
        // A proposal is a newcomer's, which found etcd empty.
        await coordination.archives.confirm(name, info.archive);
        log.warn('etcd had forgotten which archive this stream has; it was told again', { archive: info.archive });
      }
      await secret?.remind();
      await remember({ info, store }, generation, [coordination.archives]);
      const promotion = await standingPromotion(name, memories);
      if (promotion === null || promotion.archive !== info.archive) continue;
      if (promotion.generation <= generation && promotion.store === store.name) continue;
      log.warn(`store ${promotion.store} was promoted (generation ${promotion.generation}): ${store.name} is left`);
      leave(new Error(`store ${promotion.store} was promoted`));
    } catch (error) {
      log.debug('etcd could not be asked for the archive id', { error });
    }
  }
}

function tellOther({ name, log, archive: { info } }: RememberedOptions, other: string): void {
  log.error(`etcd remembers archive ${other}, but this daemon ships to ${info.archive}: no daemon will start again`, {
    hint: `find out who changed it; if ${info.archive} is this database's archive: shipmate adopt ${name}`,
  });
}
