import type { Cursor } from '../coordination/coordination.ts';
import type { ChainEnd } from '../core/chain.ts';
import type { Acknowledgement } from './acknowledge.ts';

/**
 * The last header in the chain, as the twins are told of it. Only for an end that has one in its own term. Where copies
 * count, with the place up to which the stores hold the chain that must.
 */
export function cursorOf(end: ChainEnd, acknowledgement?: Acknowledgement): Cursor {
  const last = end.last ?? { term: end.term, slot: 0 };
  return {
    archive: end.archive,
    stream: end.stream,
    ...last,
    digest: end.digest,
    position: end.position,
    ...(acknowledgement && acknowledgement.stores > 1 && { acknowledged: acknowledgement.end?.last ?? null }),
    time: new Date().toISOString(),
    ...(end.generation > 0 && { generation: end.generation }),
  };
}
