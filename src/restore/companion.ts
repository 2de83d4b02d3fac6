import { openingsBelow, readOutline } from '../archive/outline.ts';
import { type Archive, readFloor, readPlace } from '../archive/walk.ts';
import type { Read } from '../core/header.ts';
import { LivingLog, type Run, type Segment } from '../core/ranges.ts';
import { ArchiveNotWhole } from '../errors.ts';
import type { LogFormat } from '../source/source.ts';
import { notWhole } from './chunks.ts';
import type { StatedRun } from './states.ts';

export interface CompanionOptions {
  readonly archive: Archive;
  readonly format: LogFormat;
  /** What was read of the archive. */
  readonly living: readonly Run[];
}

/**
 * The runs, the first one with the file without which its segments are of no use, where what is needed begins behind it.
 * Throws ArchiveNotWhole where the archive does not hold it.
 */
export async function withCompanion(
  runs: readonly StatedRun[],
  { archive, format, living }: CompanionOptions,
): Promise<readonly StatedRun[]> {
  const [first, ...others] = runs;
  const segment = first?.run.segments[0];
  const name = segment && format.companion?.(segment.name);
  if (!first || !segment || !name || name === segment.name) return runs;
  const wanted = { ...segment, name };
  const read = living.flatMap(({ segments }) => segments).find((each) => isSame(each, wanted));
  const companion = read ?? (await find(archive, wanted));
  if (companion === null) {
    throw new ArchiveNotWhole(
      `stream ${archive.info.stream}: ${name}, which ${segment.name} needs, is not in the archive`,
      'every server of the cluster has a copy: "shipmate verify" tells whether more is missing here, and in which stores',
    );
  }
  const run = { ...first.run, segments: [companion, ...first.run.segments] };
  return [{ ...first, run }, ...others];
}

const isSame = (a: Segment, b: Segment) =>
  a.name === b.name && a.origin === b.origin && a.incarnation === b.incarnation && a.offset === 0;

/**
 * The file in the life of its server's log that the segment names: it stands at the beginning of a term. Below the floor too:
 * retention leaves it there.
 */
async function find(archive: Archive, wanted: Segment): Promise<Segment | null> {
  try {
    const floor = await readFloor(archive);
    const outlines = (await readOutline(archive, floor)) ?? [];
    for (const { term, opening, firstSlot, endSlot } of outlines.toReversed()) {
      if (opening?.at?.segment !== wanted.name || firstSlot === endSlot) continue;
      const found = segmentIn(await readPlace(archive, { term, slot: firstSlot }));
      if (found && isSame(found, wanted)) return found;
    }
    for await (const { header, digest } of openingsBelow(archive, floor)) {
      if (header.at?.segment !== wanted.name) continue;
      const read = await readPlace(archive, { term: header.term, slot: 1 });
      const found = read?.header.prev === digest ? segmentIn(read) : null;
      if (found && isSame(found, wanted)) return found;
    }
    return null;
  } catch (error) {
    throw notWhole(error);
  }
}

/** The segment that a chunk begins. */
function segmentIn(read: Read | null): Segment | null {
  const log = new LivingLog(null);
  if (read !== null) log.add(read);
  return log.runs[0]?.segments[0] ?? null;
}
