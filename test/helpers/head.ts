import type { Position } from '../../src/core/position.ts';
import type { Head, Witness } from '../../src/source/source.ts';

/** An archive's end as a test makes it up: `chunks` newest first. Of chunks without bytes only the digests are known. */
export function headWith({
  position,
  chunks = [],
  left = [],
  anew = null,
  bytesOf,
}: {
  position: Position | null;
  chunks?: Iterable<Witness>;
  left?: readonly Position[];
  anew?: Position | null;
  bytesOf?: (witness: Witness) => Uint8Array;
}): Head {
  const [witness = null] = Array.isArray(chunks) ? chunks : [];
  return {
    position,
    witness,
    async *history() {
      yield* chunks;
    },
    async *left() {
      yield* left;
    },
    anew: async () => anew,
    async bytes(of) {
      if (!bytesOf) throw new Error('this test knows no bytes of its chunks');
      return bytesOf(of);
    },
  };
}
