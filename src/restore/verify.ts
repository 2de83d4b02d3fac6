import { countAbove } from '../archive/reader.ts';
import { type Archive, readFloor } from '../archive/walk.ts';
import type { ChainEnd } from '../core/chain.ts';
import { comparePlaces } from '../core/keys.ts';
import { runEnd } from '../core/ranges.ts';
import { Audit, type Fault, walkThrough } from './audit.ts';
import type { ChunkReader } from './chunks.ts';
import type { Progress } from './progress.ts';
import type { ProofNote } from './proof-note.ts';
import { provePayloads } from './prove.ts';

/** What was found; the archive is whole if there are no faults. */
export interface Verification {
  readonly stream: string;
  readonly store: string;
  readonly archive: string;
  /** Whether every payload was read and proven, not only the chain of headers. */
  readonly deep: boolean;
  /** Encrypted chunks that `deep` could not open: their stored bytes alone are proven. */
  readonly unopened: number;
  /** Chunks whose payloads an earlier run had proven, which was interrupted. */
  readonly provenBefore: number;
  readonly terms: number;
  readonly chunks: number;
  /** Of the log. */
  readonly bytes: number;
  readonly storedBytes: number;
  /** Up to where the log is in the archive. */
  readonly end: { readonly id: string | null; readonly timeMs: number | null };
  readonly open: boolean;
  /** Objects behind seals: what deposed masters wrote; harmless. */
  readonly orphans: number;
  readonly faults: readonly Fault[];
  /** Nothing is lost by them, but somebody should know. */
  readonly warnings: readonly Fault[];
}

export interface VerifyOptions {
  readonly deep: boolean;
  readonly progress: Progress;
  /** Where a deep look that was interrupted goes on; without it each begins anew. */
  readonly note?: ProofNote | undefined;
}

/** Checks the chain, and with `deep` every payload. Finds all faults that there are: none of them ends it. */
export async function verify(chunks: ChunkReader, { deep, progress, note }: VerifyOptions): Promise<Verification> {
  const { archive } = chunks;
  const { audit, end } = await auditFromFloor(archive, progress);
  const proven = deep ? await provePayloads(chunks, audit, { progress, note: note ?? null }) : NOTHING;
  const last = audit.living.runs.at(-1);
  const isOpen = end.slot > 0;
  return {
    stream: archive.info.stream,
    store: archive.store.name,
    archive: archive.info.archive,
    deep,
    unopened: proven.unopened,
    provenBefore: proven.before,
    terms: audit.terms.size,
    chunks: audit.chunks.length,
    bytes: audit.chunks.reduce((sum, { chunkLength }) => sum + chunkLength, 0),
    storedBytes: audit.chunks.reduce((sum, { storedBytes }) => sum + storedBytes, 0),
    end: last ? runEnd(last) : { id: null, timeMs: null },
    open: isOpen,
    orphans: await countOrphans(archive, audit),
    faults: audit.faults.toSorted(byObject),
    warnings: audit.warnings.toSorted(byObject),
  };
}

const NOTHING = { unopened: 0, before: 0 };

const byObject = (a: Fault, b: Fault) => (a.object < b.object ? -1 : Number(a.object > b.object));

/** Again where retention raised the floor meanwhile: what it deleted is no fault. */
async function auditFromFloor(archive: Archive, progress: Progress): Promise<{ audit: Audit; end: ChainEnd }> {
  for (;;) {
    const floor = await readFloor(archive);
    const audit = new Audit(archive.info.stream, floor.position, () => progress.advance(1));
    progress.stage('checking the chain', { unit: 'objects' });
    try {
      const end = await walkThrough(archive, floor, audit);
      if (comparePlaces(floor, await readFloor(archive)) < 0) continue;
      audit.judgeBreaks();
      return { audit, end };
    } finally {
      progress.end();
    }
  }
}

async function countOrphans(archive: Archive, { seals }: Audit): Promise<number> {
  let orphans = 0;
  for (const seal of seals) orphans += await countAbove(archive, seal);
  return orphans;
}
