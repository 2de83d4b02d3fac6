import type { Position } from '../../src/core/position.ts';
import { witnessDigest } from '../../src/core/witness.ts';
import type { Head, Witness } from '../../src/source/source.ts';

/** What proves these bytes, as an archive that is not encrypted keeps it. */
export function proofOf(bytes: Uint8Array): Pick<Witness, 'mark' | 'matches'> {
  const mark = witnessDigest(bytes);
  return { mark, matches: (digest) => digest === mark };
}

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
  bytesOf?: (witness: Witness) => Uint8Array | null;
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
