import { type Reading, readFromFloor } from '../archive/reader.ts';
import { type Range, seek } from '../archive/seek.ts';
import type { Archive } from '../archive/walk.ts';
import type { ChainEnd, Met } from '../core/chain.ts';
import type { Read } from '../core/header.ts';
import { LivingLog, type Run, type Segment } from '../core/ranges.ts';
import type { FilesByName } from '../source/source.ts';

/** The living log of a range of IDs, whole segments of it at its beginning. */
export async function readRange(archive: Archive, files: FilesByName, { from, until }: Range): Promise<RangeReading> {
  return readFromFloor(
    archive,
    (start) => new RangeReader(start),
    (floor) => seek({ archive, floor, range: { from, until }, format: files, marginChunks: 0 }),
  );
}

export type RangeReading = Reading<RangeReader>;

export class RangeReader {
  readonly living: LivingLog;

  constructor(from: ChainEnd) {
    this.living = new LivingLog(from.position);
  }

  meet(met: Met, read: Read): void {
    if (met !== 'foreign') this.living.add(read);
  }
}

export interface LivingSegment {
  readonly run: Run;
  readonly segment: Segment;
}

export function livingSegments({ reader }: Pick<RangeReading, 'reader'>): LivingSegment[] {
  return reader.living.runs.flatMap((run) => run.segments.map((segment) => ({ run, segment })));
}
