import type { Cursor } from '../coordination/coordination.ts';
import type { ChainEnd } from '../core/chain.ts';

/** The last header in the chain, as the twins are told of it. Only for an end that has one in its own term. */
export function cursorOf(end: ChainEnd): Cursor {
  const last = end.last ?? { term: end.term, slot: 0 };
  return {
    archive: end.archive,
    stream: end.stream,
    ...last,
    digest: end.digest,
    position: end.position,
    time: new Date().toISOString(),
    ...(end.generation > 0 && { generation: end.generation }),
  };
}
