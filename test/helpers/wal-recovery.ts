import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Ancestor, parseHistory } from '../../src/source/postgres/history.ts';
import { parseLsn } from '../../src/source/postgres/lsn.ts';
import { historyName, parseWalName, segmentNameAt, segmentStart } from '../../src/source/postgres/wal-name.ts';
import { readPageHeader } from '../../src/source/postgres/wal-page.ts';
import { type WalEvent, WalScanner } from '../../src/source/postgres/wal-records.ts';

export interface Recovered {
  readonly timeline: number;
  /** Commits that were replayed. */
  readonly commits: readonly WalEvent[];
}

/**
 * Recovers from a restored directory as PostgreSQL does by its settings file: segment after segment by name, of each the
 * newest timeline that leads to the target's. Throws where PostgreSQL would.
 */
export function recover(directory: string): Recovered {
  const settings = readSettings(directory);
  const timeline = Number(settings.get('recovery_target_timeline'));
  const commits = new Map<bigint, WalEvent>();
  const scanner = new WalScanner((event) => event.kind === 'commit' && commits.set(event.start, event));
  for (const { lsn, bytes } of pathOf(directory, timeline)) scanner.feed(lsn, bytes);
  const all = [...commits.values()];

  const lsn = settings.get('recovery_target_lsn');
  const time = settings.get('recovery_target_time');
  if (lsn !== undefined) {
    if (scanner.lastStart === null || scanner.lastStart < parseLsn(lsn)) throw notReached();
    return { timeline, commits: all.filter(({ start }) => start <= parseLsn(lsn)) };
  }
  if (time === undefined) return { timeline, commits: all };
  const stop = all.findIndex(({ micros }) => micros > Date.parse(`${time.replace(' ', 'T')}:00`) * 1000);
  if (stop === -1) throw notReached();
  return { timeline, commits: all.slice(0, stop) };
}

const notReached = () => new Error('recovery ended before configured recovery target was reached');

function readSettings(directory: string): Map<string, string> {
  const lines = readFileSync(join(directory, 'recovery-settings.conf'), 'utf8').split('\n');
  return new Map(
    lines.flatMap((line) => {
      const [, name, value] = /^(\w+) = '?(.*?)'?$/.exec(line) ?? [];
      return name === undefined || value === undefined ? [] : [[name, value] as const];
    }),
  );
}

/** The segments' files in the order in which they are read. */
function* pathOf(directory: string, timeline: number): Iterable<{ lsn: bigint; bytes: Buffer }> {
  const names = readdirSync(directory).map(parseWalName);
  const segments = names.filter((name) => name?.kind === 'segment');
  const [some] = segments;
  if (some === undefined) return;
  const { segmentBytes } = readPageHeader(readFileSync(join(directory, nameOf(some))))!.long!;
  const history = historyPath(directory, timeline);
  let current = 0;
  const [start] = segments.map((name) => segmentStart(name, segmentBytes)).toSorted(byNumber);
  for (let lsn = start!; ; lsn += BigInt(segmentBytes)) {
    const line = history.findLast(
      (each) => each.timeline >= current && each.begin < lsn + BigInt(segmentBytes) && has(each.timeline),
    );
    if (line === undefined) return;
    const bytes = readFileSync(join(directory, segmentNameAt(line.timeline, lsn, segmentBytes)));
    if (bytes.length !== segmentBytes) throw new Error(`archive file has wrong size: ${bytes.length}`);
    current = line.timeline;
    yield { lsn, bytes };

    function has(each: number): boolean {
      return existsSync(join(directory, segmentNameAt(each, lsn, segmentBytes)));
    }
  }
}

const byNumber = (a: bigint, b: bigint) => Number(a - b);

const nameOf = ({ timeline, log, index }: { timeline: number; log: number; index: number }) =>
  [timeline, log, index].map((part) => part.toString(16).toUpperCase().padStart(8, '0')).join('');

/** The timelines that lead to one, and where each begins. */
function historyPath(directory: string, timeline: number): { timeline: number; begin: bigint }[] {
  const path = join(directory, historyName(timeline));
  if (timeline > 1 && !existsSync(path)) throw new Error(`recovery target timeline ${timeline} does not exist`);
  const ancestors: Ancestor[] = timeline > 1 ? parseHistory(readFileSync(path)) : [];
  const begins = [0n, ...ancestors.map(({ switchLsn }) => switchLsn)];
  return [...ancestors.map((each) => each.timeline), timeline].map((each, index) => ({
    timeline: each,
    begin: begins[index]!,
  }));
}
