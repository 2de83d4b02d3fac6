import type { Command } from 'commander';
import { bytesText, countText } from '../core/format.ts';
import { placeText } from '../core/keys.ts';
import { type Position, positionText } from '../core/position.ts';
import type { Break } from '../core/ranges.ts';
import { ArchiveNotWhole } from '../errors.ts';
import type { Listing, PointInLog } from '../restore/listing.ts';
import type { TermSummary } from '../restore/reading.ts';
import { timeText } from '../restore/until.ts';
import { readArchives } from './archives.ts';
import { conclude } from './conclude.ts';
import { addHelp } from './help.ts';
import { type Style, styled, type TableOptions, table } from './table.ts';
import { print, printable, printJson, viewOf } from './terminal.ts';
import { wrap } from './wrap.ts';

interface Options {
  store?: string;
  json?: boolean;
}

export function defineLs(command: Command): void {
  addHelp(command, {
    notes: ['Reads the store alone: it works when every database and daemon is lost.'],
    examples: ['shipmate ls orders', 'shipmate ls orders --store nas --json'],
  });
  command
    .argument('[stream]', 'by default every stream of the config')
    .option('--store <store>', "which store to look into; by default each stream's primary")
    .option('--json', 'print JSON')
    .action(async (name: string | undefined, { store, json = false }: Options) => {
      const archives = await readArchives(command);
      const { listArchive } = await import('../restore/listing.ts');
      const listings: Listing[] = [];
      const failures: unknown[] = [];
      for (const stream of archives.streams(name)) {
        try {
          listings.push(await listArchive((await archives.open(stream, store)).archive, archives.progress));
        } catch (error) {
          failures.push(error); // the other streams are listed all the same
        }
      }
      if (json) printJson({ streams: listings.map(listingJson) });
      else if (listings.length > 0) print(listings.map((listing) => listingText(listing, viewOf())).join('\n\n'));
      conclude([...failures, ...notWhole(listings)]);
    });
}

function notWhole(listings: readonly Listing[]): ArchiveNotWhole[] {
  const broken = listings.filter(({ hole }) => hole !== null);
  if (broken.length === 0) return [];
  return [
    new ArchiveNotWhole(
      `objects are missing in the archive of ${broken.map(({ stream }) => stream).join(', ')}: what follows them is not listed`,
      'run "shipmate verify"',
    ),
  ];
}

/** For a terminal: what can be restored, what breaks the log, then the terms. No line is longer than `width`. */
export function listingText(listing: Listing, options: TableOptions): string {
  const { stream, store, archive, terms, recoverable, breaks, hole } = listing;
  const windows = recoverable.map(
    ({ from, to, segments, bytes }) =>
      `recoverable: ${pointText(from)} to ${pointText(to)}, ${countText(segments, 'segment')}, ${bytesText(bytes)}`,
  );
  const missing = hole
    ? [`MISSING: the object at ${placeText(hole.at)}, although ${placeText(hole.next)} is there`]
    : [];
  const told = (lines: readonly string[], style: Style | null = null) =>
    lines
      .flatMap((line) => wrap(line, { ...options, rest: '    ' }))
      .map((line) => (style === null ? line : styled(style, line, options)));
  return [
    ...told([`stream ${stream} in store ${store}, archive ${archive}`]),
    ...told(windows.length > 0 ? windows : ['nothing was shipped yet'], 'green'),
    ...breaks.flatMap((each) => told([breakText(each)], BREAK_STYLES[each.result] ?? null)),
    ...told(missing, 'red'),
    '',
    ...termLines(terms, options),
  ].join('\n');
}

const BREAK_STYLES: Readonly<Partial<Record<Break['result'], Style>>> = { gap: 'red', fork: 'yellow' };

/** A line of the table a term, and below it from where to where it goes. */
function termLines(terms: readonly TermSummary[], options: TableOptions): string[] {
  const rows = terms.map(({ term, node, time, result, chunks, bytes, state }) => [
    String(term),
    printable(node),
    time.slice(0, 19).replace('T', ' '),
    result ?? '-',
    String(chunks),
    bytesText(bytes),
    state,
  ]);
  const heading = ['TERM', 'NODE', 'OPENED (UTC)', 'RESULT', 'CHUNKS', 'BYTES', 'STATE'];
  const [first = '', ...lines] = table([heading, ...rows], options);
  const margins = { ...options, first: '      ', rest: '          ' };
  return [first, ...lines.flatMap((line, index) => [line, ...wrap(rangeText(terms[index]!), margins)])];
}

const rangeText = ({ from, to, chunks }: TermSummary) =>
  chunks === 0 ? `nothing, at ${idText(to)}` : `${idText(from)} → ${idText(to)}`;

function idText(position: Position | null): string {
  return position === null ? 'the beginning' : position.id || `${position.segment}:${position.offset}`;
}

function pointText({ id, timeMs }: PointInLog): string {
  const time = timeMs === null ? null : timeText(timeMs);
  return [time, id ? `(${id})` : null].filter((text) => text !== null).join(' ') || 'the beginning';
}

function breakText({ result, place, node, time, before, at, deadBytes }: Break): string {
  const between = `from ${before ? positionText(before) : 'the beginning'} to ${positionText(at)}`;
  const dead = deadBytes > 0 ? `; ${bytesText(deadBytes)} that were shipped do not count` : '';
  return `${result} in term ${place.term} (${node}, ${time.slice(0, 19)}Z): ${between}${dead}`;
}

function listingJson({ terms, recoverable, breaks, hole, ...rest }: Listing): object {
  const point = ({ id, timeMs }: PointInLog) => ({ id, time: timeMs === null ? null : timeText(timeMs) });
  const position = (at: Position | null) =>
    at && { id: at.id, segment: at.segment, offset: at.offset, origin: at.origin };
  return {
    ...rest,
    terms: terms.map(({ from, to, time, ...term }) => ({
      ...term,
      opened: time,
      from: position(from),
      to: position(to),
    })),
    recoverable: recoverable.map(({ from, to, ...sizes }) => ({ from: point(from), to: point(to), ...sizes })),
    breaks: breaks.map(({ place, before, at, ...each }) => ({
      ...each,
      term: place.term,
      before: position(before),
      at: position(at),
    })),
    hole,
  };
}
