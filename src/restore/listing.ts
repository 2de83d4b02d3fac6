import type { Hole } from '../archive/reader.ts';
import type { Archive } from '../archive/walk.ts';
import { type Break, type Run, runBytes, runEnd, runStart, stretchesOf } from '../core/ranges.ts';
import type { Progress } from './progress.ts';
import { readSummary, type TermSummary } from './reading.ts';

/** What is in an archive, by its headers alone. */
export interface Listing {
  readonly stream: string;
  readonly store: string;
  readonly archive: string;
  readonly terms: readonly TermSummary[];
  /** What can be restored, in order; between two of them is a gap. */
  readonly recoverable: readonly Recoverable[];
  /** Where the log did not simply go on: gaps, forks, truncations, resets. */
  readonly breaks: readonly Break[];
  /** Set where objects are missing: nothing behind them was read. */
  readonly hole: Hole | null;
}

export interface Recoverable {
  readonly from: PointInLog;
  readonly to: PointInLog;
  readonly segments: number;
  readonly bytes: number;
}

export interface PointInLog {
  readonly id: string | null;
  readonly timeMs: number | null;
}

/** Throws ArchiveNotWhole where headers contradict each other. */
export async function listArchive(archive: Archive, progress: Progress): Promise<Listing> {
  const { reader, hole } = await readSummary(archive, progress);
  return {
    stream: archive.info.stream,
    store: archive.store.name,
    archive: archive.info.archive,
    terms: reader.terms,
    recoverable: stretchesOf(reader.living.runs).map(recoverable),
    breaks: reader.living.breaks,
    hole,
  };
}

function recoverable(runs: readonly Run[]): Recoverable {
  return {
    from: runStart(runs[0]!),
    to: runEnd(runs.at(-1)!),
    segments: runs.reduce((sum, { segments }) => sum + segments.length, 0),
    bytes: runs.reduce((sum, run) => sum + runBytes(run), 0),
  };
}
