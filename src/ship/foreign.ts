import type { OnObject } from '../archive/walk.ts';
import { comparePlaces, type Place, placeText } from '../core/keys.ts';
import type { Log } from '../core/log.ts';
import type { StreamMetrics } from '../metrics.ts';

/**
 * Correct daemons never leave a stranger's object in a term: whoever walks over one tells an operator, once for each object
 * however often the walks of one archive meet it.
 */
export function tellForeign({ metrics, log }: { metrics: Pick<StreamMetrics, 'alarm'>; log: Log }): OnObject {
  let told: Place | null = null;
  return (met, { header }, end) => {
    if (met !== 'foreign') return;
    metrics.alarm('foreign-object', true);
    const place = { term: end.term, slot: end.slot - 1 }; // its own header may say another one
    if (told !== null && comparePlaces(place, told) <= 0) return;
    told = place;
    log.error(`${placeText(place)} holds a ${header.kind} that is not its owner's (node ${header.node})`);
  };
}
