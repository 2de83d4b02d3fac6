import type { OnObject } from '../archive/walk.ts';
import { placeText } from '../core/keys.ts';
import type { Log } from '../core/log.ts';
import type { StreamMetrics } from '../metrics.ts';

/** Correct daemons never leave a stranger's object in a term: whoever walks over one tells an operator. */
export function tellForeign({ metrics, log }: { metrics: Pick<StreamMetrics, 'alarm'>; log: Log }): OnObject {
  return (met, { header }) => {
    if (met !== 'foreign') return;
    metrics.alarm('foreign-object', true);
    log.error(`${placeText(header)} holds a ${header.kind} that is not its owner's (node ${header.node})`);
  };
}
