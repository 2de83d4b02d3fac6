import { countAbove } from '../archive/reader.ts';
import { type Archive, readFloor } from '../archive/walk.ts';
import type { ChainEnd } from '../core/chain.ts';
import { comparePlaces, type Place } from '../core/keys.ts';
import { runEnd } from '../core/ranges.ts';
import type { ArchiveNotWhole } from '../errors.ts';
import { Audit, type Fault, walkThrough } from './audit.ts';
import type { ChunkReader } from './chunks.ts';
import type { Progress } from './progress.ts';

/** What was found; the archive is whole if there are no faults. */
export interface Verification {
  readonly stream: string;
  readonly store: string;
  readonly archive: string;
  /** Whether every payload was read and proven, not only the chain of headers. */
  readonly deep: boolean;
  /** Encrypted chunks that `deep` could not open: their stored bytes alone are proven. */
  readonly unopened: number;
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
}

/** Checks the chain, and with `deep` every payload. Finds all faults that there are: none of them ends it. */
export async function verify(chunks: ChunkReader, { deep, progress }: VerifyOptions): Promise<Verification> {
  const { archive } = chunks;
  const { audit, end } = await auditFromFloor(archive, progress);
  const unopened = deep ? await auditPayloads(chunks, audit, progress) : 0;
  const last = audit.living.runs.at(-1);
  const isOpen = end.slot > 0;
  return {
    stream: archive.info.stream,
    store: archive.store.name,
    archive: archive.info.archive,
    deep,
    unopened,
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

/** Returns how many chunks could not be opened. */
async function auditPayloads(chunks: ChunkReader, audit: Audit, progress: Progress): Promise<number> {
  progress.stage('checking payloads', {
    unit: 'bytes',
    total: audit.chunks.reduce((sum, { storedBytes }) => sum + storedBytes, 0),
  });
  const damaged: { place: Place; error: ArchiveNotWhole }[] = [];
  let unopened = 0;
  try {
    unopened = await chunks.proveEach(audit.chunks, ({ place, storedBytes }, error) => {
      if (error !== null) damaged.push({ place, error });
      progress.advance(storedBytes);
    });
  } finally {
    progress.end();
  }
  const floor = await readFloor(chunks.archive);
  for (const { place, error } of damaged) if (comparePlaces(place, floor) >= 0) audit.faultOf(place, error);
  return unopened;
}

async function countOrphans(archive: Archive, { seals }: Audit): Promise<number> {
  let orphans = 0;
  for (const seal of seals) orphans += await countAbove(archive, seal);
  return orphans;
}
