import { type Run, runEnd, type Segment } from '../core/ranges.ts';
import { UsageError } from '../errors.ts';
import type { LogFormat } from '../source/source.ts';

/** A run, and what the log has at its ends: more than its own server's files tell, where the runs before it had more. */
export interface StatedRun {
  readonly run: Run;
  /** What is not to be applied again from it; empty where the log begins with it. */
  readonly before: string;
  readonly end: string;
}

/**
 * What the log has before the first byte of the first of these runs, which go on from each other, if it had `before` at the
 * end of the run before.
 */
export function stateBefore(runs: readonly Run[], before: string, format: LogFormat): string {
  const run = runs[0]!;
  const isBeginning = run.anew || before === '';
  return isBeginning ? beginOf(runs, format) : union(format, before, run.segments[0]?.fromId ?? '');
}

/** Where the log begins, if it begins with these runs: the ID of a segment's companion is no place in the log. */
export function beginOf(runs: readonly Run[], format: LogFormat): string {
  const segments = runs.flatMap((run) => run.segments);
  const first = segments.find(({ name }) => format.companion?.(name) !== name) ?? segments[0];
  return first?.fromId ?? '';
}

export function stated(run: Run, before: string, format: LogFormat): StatedRun {
  return { run, before, end: union(format, before, runEnd(run).id ?? '') };
}

/** The runs in groups: in each the same ID names the same transactions. */
function livesOf(runs: readonly StatedRun[]): StatedRun[][] {
  const lives: StatedRun[][] = [];
  for (const each of runs) {
    const life = lives.at(-1);
    if (life === undefined || each.run.anew) lives.push([each]);
    else life.push(each);
  }
  return lives;
}

/**
 * What is needed to go on from an ID: the runs without the segments of which it has everything. Null where they do not
 * have the ID, or begin after it; throws UsageError where it may name two places.
 */
export function startAfter(runs: readonly StatedRun[], id: string, format: LogFormat): StatedRun[] | null {
  const covers = (a: string, b: string) => format.covers?.(a, b) ?? false;
  const lives = livesOf(runs);
  const holding = lives.filter((life) => covers(life.at(-1)!.end, id) && covers(id, life[0]!.before));
  const [life, another] = holding;
  if (life === undefined) return null;
  if (another !== undefined) {
    throw new UsageError(
      `${id} names two places: the log began anew (RESET MASTER) and gave its IDs again`,
      'restore without --from, and replay by hand the directories that follow your base backup',
    );
  }
  const needed = newPart(life, (each, segment) => covers(id, stateAt(each, segment, format)));
  const later = lives.slice(lives.indexOf(life) + 1).flat();
  return [...needed.map((each) => ({ ...each, before: union(format, each.before, id) })), ...later];
}

function newPart(life: readonly StatedRun[], isKnown: (each: StatedRun, segment: Segment) => boolean): StatedRun[] {
  for (let index = life.length - 1; index >= 0; index--) {
    const each = life[index]!;
    const first = each.run.segments.findLastIndex((segment) => isKnown(each, segment));
    if (first < 0) continue;
    const run = { ...each.run, segments: each.run.segments.slice(first) };
    return [{ ...each, run }, ...life.slice(index + 1)];
  }
  return [...life];
}

const stateAt = ({ before }: StatedRun, { fromId }: Segment, format: LogFormat) => union(format, before, fromId);

/** A format that knows no union has IDs in one order: the later one has all. */
const union = (format: LogFormat, a: string, b: string) => format.union?.(a, b) ?? (b || a);
