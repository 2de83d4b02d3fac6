import { type Command, InvalidArgumentError } from 'commander';
import type { Retained } from '../archive/retain.ts';
import type { Archive } from '../archive/walk.ts';
import { parseDuration } from '../config/units.ts';
import type { StreamConfig } from '../config.ts';
import { bytesText, countText } from '../core/format.ts';
import { nearestHint } from '../core/nearest.ts';
import { positionText } from '../core/position.ts';
import type { Keep } from '../core/retention.ts';
import { messageOf, ShipmateError, UsageError } from '../errors.ts';
import { type Archives, readArchives } from './archives.ts';
import { conclude } from './conclude.ts';
import { addHelp } from './help.ts';
import { print, printable, printJson } from './terminal.ts';

interface Options {
  keepAge?: number;
  keepSegments?: number;
  keepDaily?: number;
  keepWeekly?: number;
  keepMonthly?: number;
  withoutCopy?: string[];
  dryRun?: boolean;
  yes?: boolean;
  json?: boolean;
}

export function definePrune(command: Command): void {
  addHelp(command, {
    notes: [
      'What a store keeps by a retention policy, object lock or hold stays, and is no failure; a missing right to delete is (exit code 1).',
    ],
    examples: [
      'shipmate prune --dry-run',
      'shipmate prune --yes                      # for cron: goes by "keep" of the config',
      'shipmate prune orders --keep-age 30d --yes',
    ],
  });
  command
    .argument('[stream]', 'by default every stream of the config that has a "keep"')
    .option(
      '--keep-age <time>',
      'the log of so long, such as 30d; any of these replaces "keep" of the config',
      parseAge,
    )
    .option('--keep-segments <n>', 'so many of the newest segments', parseCount)
    .option('--keep-daily <n>', 'the log back to the oldest of so many days that have any', parseCount)
    .option('--keep-weekly <n>', 'the same in weeks', parseCount)
    .option('--keep-monthly <n>', 'the same in months', parseCount)
    .option('--without-copy <store>', 'leave out a copy that does not answer; may be repeated', collect)
    .option('--dry-run', 'tell what would be deleted, and delete nothing; so on a terminal without --yes')
    .option('--yes', 'delete')
    .option('--json', 'print JSON')
    .action((stream: string | undefined, options: Options) => carryOut(command, stream, options));
}

function parseAge(text: string): number {
  const ms = parseDuration(text);
  if (ms !== null && ms > 0) return ms;
  throw new InvalidArgumentError('a time with its unit, such as 12h or 30d');
}

function parseCount(text: string): number {
  if (/^[1-9]\d{0,5}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('a number from 1 on');
}

const collect = (name: string, before: string[] = []) => [...before, name];

interface Report {
  readonly stream: string;
  readonly dryRun: boolean;
  readonly stores: Retained[];
}

async function carryOut(command: Command, name: string | undefined, options: Options): Promise<void> {
  const { yes = false, json = false } = options;
  const isLook = options.dryRun === true || (process.stdin.isTTY === true && !yes); // undefined where there is none
  const archives = await readArchives(command);
  const streams = streamsToPrune(archives, name, options);
  demandCopies(streams, options.withoutCopy ?? []);
  const reports: Report[] = [];
  const failures: unknown[] = [];
  for (const { stream, keep } of streams) {
    const report: Report = { stream: stream.name, dryRun: isLook, stores: [] };
    reports.push(report);
    try {
      await pruneStream(archives, stream, { keep, options, report });
    } catch (error) {
      failures.push(error); // the other streams are pruned all the same
    }
    if (!json && report.stores.length > 0) print(reportText(report));
  }
  if (json) printJson({ streams: reports.map(reportJson) });
  else if (isLook && !options.dryRun) print('nothing was deleted: on a terminal that takes --yes');
  const denied = reports.flatMap(({ stores }) => stores).filter(({ refused }) => refused.denied > 0);
  conclude([...failures, ...denied.map(deniedError)]);
}

interface ToPrune {
  readonly stream: StreamConfig;
  readonly keep: Keep;
}

function streamsToPrune(archives: Archives, name: string | undefined, options: Options): ToPrune[] {
  const given = keepOf(options);
  const streams = archives.streams(name).flatMap((stream): ToPrune[] => {
    const keep = given ?? stream.keep;
    if (keep === null) {
      if (name === undefined) return [];
      throw new UsageError(
        `the config does not say what to keep of stream ${name}: everything stays`,
        'give the stream a "keep", such as {age: 30d}, or name a rule here: --keep-age 30d',
      );
    }
    if (!needsItsBeginning(stream)) return [{ stream, keep }];
    throw new UsageError(
      `stream ${stream.name} can't be pruned: Redis needs its increments from the first base on`,
      'leave "keep" out; to begin anew, ship to another prefix and delete the old one when it is not needed any more',
    );
  });
  if (streams.length > 0) return streams;
  throw new UsageError('no stream of the config has a "keep": everything stays', 'see docs/retention.md');
}

/** Throws UsageError for the name of a copy that none of them has. */
function demandCopies(streams: readonly ToPrune[], without: readonly string[]): void {
  const copies = [...new Set(streams.flatMap(({ stream }) => stream.plan.copies))];
  const unknown = without.find((name) => !copies.includes(name));
  if (unknown === undefined) return;
  const names = streams.map(({ stream }) => stream.name).join(', ');
  throw new UsageError(`--without-copy: ${names} has no copy in a store "${unknown}"`, nearestHint(unknown, copies));
}

function keepOf({ keepAge, keepSegments, keepDaily, keepWeekly, keepMonthly }: Options): Keep | null {
  const keep = {
    ...(keepAge !== undefined && { ageMs: keepAge }),
    ...(keepSegments !== undefined && { segments: keepSegments }),
    ...(keepDaily !== undefined && { daily: keepDaily }),
    ...(keepWeekly !== undefined && { weekly: keepWeekly }),
    ...(keepMonthly !== undefined && { monthly: keepMonthly }),
  };
  return Object.keys(keep).length > 0 ? keep : null;
}

/** The base is shipped once: the increments say nothing without it. */
const needsItsBeginning = ({ source }: StreamConfig) => source.type === 'files' && source.layout === 'redis-aof';

interface Work {
  readonly keep: Keep;
  readonly options: Options;
  /** Grows store by store. */
  readonly report: Report;
}

async function pruneStream(archives: Archives, stream: StreamConfig, { keep, options, report }: Work): Promise<void> {
  const { retain } = await import('../archive/retain.ts');
  const { progress } = archives;
  const format = archives.formatOf(stream);
  const primary = (await archives.open(stream)).archive;
  const copies = await copiesOf(archives, stream, options.withoutCopy ?? []);
  const retaining = retain({
    primary,
    copies,
    keep,
    now: () => new Date(),
    isCompanion: (segment) => format.companion?.(segment) === segment,
    dryRun: report.dryRun,
    signal: new AbortController().signal,
    onStore: (store) => progress.stage(`pruning ${stream.name} in ${store}`, { unit: 'objects' }),
    onObject: () => progress.advance(1),
  });
  try {
    for await (const retained of retaining) report.stores.push(retained);
  } finally {
    progress.end();
  }
}

/**
 * The copies that are kept. One that does not answer may hold what the primary must not lose yet. Deletions reach a copy that
 * "order" does not name as late as the last one: its rank goes by free room, which moves, and a deletion that is late is
 * never wrong.
 */
async function copiesOf(archives: Archives, { name, plan }: StreamConfig, without: readonly string[]) {
  const { readArchive } = await import('../archive/identity.ts');
  const begun: { archive: Archive; delayMs: number }[] = [];
  const empty: string[] = [];
  for (const copy of plan.copies.filter((one) => !without.includes(one))) {
    let archive: Archive | null;
    try {
      archive = await readArchive(await archives.store(copy), name);
    } catch (cause) {
      throw noAnswer(name, copy, cause);
    }
    const rank = plan.order.includes(copy) ? plan.order.indexOf(copy) + 1 : plan.count;
    if (archive) begun.push({ archive, delayMs: rank * plan.delayMs });
    else empty.push(copy);
  }
  const wanted = Math.min(plan.count, begun.length + empty.length);
  if (begun.length >= wanted) return begun;
  throw noAnswer(name, empty[0]!, 'it holds nothing of the stream yet');
}

const noAnswer = (stream: string, copy: string, cause: unknown) =>
  new ShipmateError(`stream ${stream} was not pruned, because of its copy in store ${copy}: ${messageOf(cause)}`, {
    code: 'COPY_UNKNOWN',
    hint: `the primary keeps what a copy still lacks. To go on without it: --without-copy ${copy}`,
    cause,
  });

function deniedError({ store, refused, objects }: Retained): ShipmateError {
  return new ShipmateError(
    `store ${store} refused to delete ${refused.denied} objects (${objects} were deleted): ${messageOf(refused.error)}`,
    { code: 'PRUNE_DENIED', hint: refused.error?.hint, cause: refused.error },
  );
}

/** The report for a terminal, a line or two for each store. */
export function reportText({ stream, dryRun, stores }: Report): string {
  const lines = stores.flatMap(({ store, role, floor, objects, bytes, refused, gaveUp, heldBy }) => {
    const stays = floor.position === null ? 'all of the log' : `the log after ${positionText(floor.position)}`;
    const deleted = `${countText(objects, 'object')}, ${bytesText(bytes)} ${dryRun ? 'would be' : 'were'} deleted`;
    const more = gaveUp ? '; younger ones were not tried' : '';
    const locked = `  ${refused.locked} are kept by the store's own retention: ${messageOf(refused.error)}${more}`;
    const line = `stream ${stream} in store ${store} (${role}): ${deleted}; ${stays} stays`;
    const held = `  more is kept for the copy in store ${heldBy}, which has not come so far: see "shipmate status"`;
    return [line, ...(refused.locked > 0 ? [locked] : []), ...(heldBy === null ? [] : [held])];
  });
  return lines.map(printable).join('\n');
}

function reportJson({ stream, dryRun, stores }: Report): object {
  return {
    stream,
    dryRun,
    stores: stores.map(({ store, role, floor, raised, objects, bytes, refused, gaveUp, heldBy }) => ({
      store,
      role,
      floor: { term: floor.term, slot: floor.slot, id: floor.position?.id ?? null },
      raised,
      objects,
      bytes,
      locked: refused.locked,
      denied: refused.denied,
      gaveUp,
      heldBy,
    })),
  };
}
