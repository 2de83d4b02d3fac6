import { countText, lagText, secondsText } from '../core/format.ts';
import type { StatusReport, StoreStatus, StreamStatus, TwinStatus } from '../core/status.ts';
import { type Attention, attentionTo } from './status-attention.ts';
import { type Cell, styled, type TableOptions, table } from './table.ts';
import { MARKS, printable } from './terminal.ts';
import { wrap } from './wrap.ts';

export interface StatusTextOptions extends TableOptions {
  /** Whether there is one daemon alone, by the config. */
  readonly isSolo: boolean;
  /** What else there is to say of the cluster, in its line. */
  readonly note?: string;
  /** What whoever looks knows beside the report. */
  readonly more?: readonly Attention[];
}

/**
 * The status report for a terminal: what needs a person, then tables of streams, of their twins, and of the stores where there
 * are copies; streams that need a person first. No line is longer than `width`.
 */
export function statusText(
  report: StatusReport,
  { isSolo, note = '', more = [], ...options }: StatusTextOptions,
): string {
  const attention = [...more, ...attentionTo(report, { isSolo })];
  const needy = new Set(attention.flatMap(({ streams }) => streams));
  const streams = report.streams.toSorted((a, b) => Number(needy.has(b.name)) - Number(needy.has(a.name)));
  const nodes = new Set(streams.flatMap(({ twins }) => twins.map(({ node }) => node)));
  const cluster = `cluster ${report.cluster}: ${countText(streams.length, 'stream')}, ${countText(nodes.size, 'daemon')}`;
  return [
    ...wrap(`${cluster}${note}`, options),
    ...(attention.length > 0 ? ['', ...attention.flatMap((one) => attentionLines(one, options))] : []),
    ...tables(streams, options).flatMap((lines) => ['', ...lines]),
  ].join('\n');
}

function attentionLines({ level, streams, what }: Attention, options: TableOptions): string[] {
  const { style, text } = MARKS[level];
  const about = streams.length > 0 ? `${streams.join(', ')}: ` : '';
  const [first = '', ...rest] = wrap(`${about}${what}`, { ...options, first: text, rest: ' '.repeat(text.length) });
  return [styled(style, text, options) + first.slice(text.length), ...rest];
}

function tables(streams: readonly StreamStatus[], options: TableOptions): string[][] {
  const streamRows: Cell[][] = [
    ['STREAM', 'MASTER', 'TERM', 'SLOT', 'LAG', 'ARCHIVED UP TO'],
    ...streams.map(streamRow),
  ];
  const twinRows: Cell[][] = [
    ['STREAM', 'TWIN', 'ROLE', 'READY', 'LAG', 'WHY'],
    ...streams.flatMap(({ name, twins }) => twins.map((twin) => twinRow(name, twin))),
  ];
  const storeRows: Cell[][] = [
    ['STREAM', 'STORE', 'STATE', 'BEHIND', 'DELAY', 'WHY'],
    ...streams
      .filter(({ stores }) => stores.length > 1)
      .flatMap(({ name, stores }) => stores.map((store, index) => storeRow(name, store, index === 0))),
  ];
  return [streamRows, twinRows, storeRows].filter((rows) => rows.length > 1).map((rows) => table(rows, options));
}

function streamRow(stream: StreamStatus): Cell[] {
  const { name, master, term, slot, cursor } = stream;
  return [
    printable(name),
    master === null ? { text: 'none', style: 'red' } : printable(master),
    String(term),
    String(slot),
    lagText(stream),
    cursor ? printable(placeInLog(cursor)) : 'nothing yet',
  ];
}

function placeInLog({ id, segment, offset }: NonNullable<StreamStatus['cursor']>): string {
  const place = `${segment}:${offset}`;
  return id === place ? place : `${id || '(no ID yet)'} at ${place}`;
}

function twinRow(stream: string, twin: TwinStatus): Cell[] {
  return [
    printable(stream),
    printable(twin.node),
    twin.role,
    twin.ready ? { text: 'yes', style: 'green' } : { text: 'no', style: 'red' },
    lagText(twin),
    printable(twin.reason),
  ];
}

function storeRow(stream: string, store: StoreStatus, isPrimary: boolean): Cell[] {
  const { name, state, delaySeconds, reason = '' } = store;
  const isBad = state === 'failing' || state === 'diverged';
  return [
    printable(stream),
    printable(name),
    isPrimary ? 'primary' : isBad ? { text: state, style: 'red' } : (state ?? '-'),
    lagText(store),
    delaySeconds ? secondsText(delaySeconds) : '-',
    printable(reason),
  ];
}
