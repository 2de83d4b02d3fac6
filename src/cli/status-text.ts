import { lagText, secondsText } from '../core/format.ts';
import type { StatusReport, StoreStatus, StreamStatus, TwinStatus } from '../core/status.ts';
import { type Cell, type TableOptions, table } from './table.ts';
import { printable } from './terminal.ts';

/** The status report for a terminal: tables of streams, of their twins, and of the stores where there are copies. No line is longer than `width`. */
export function statusText({ cluster, streams }: StatusReport, options: TableOptions): string {
  const streamRows: Cell[][] = [
    ['STREAM', 'MASTER', 'TERM', 'SLOT', 'LAG', 'ARCHIVED UP TO'],
    ...streams.map(streamRow),
  ];
  const twinRows: Cell[][] = [
    ['STREAM', 'TWIN', 'ROLE', 'READY', 'LAG', 'WHY'],
    ...streams.flatMap(({ name, twins }) => twins.map((twin) => twinRow(name, twin))),
  ];
  const withCopies = streams.filter(({ stores }) => stores.length > 1);
  const storeRows: Cell[][] = [
    ['STREAM', 'STORE', 'STATE', 'BEHIND', 'DELAY', 'WHY'],
    ...withCopies.flatMap(({ name, stores }) => stores.map((store, index) => storeRow(name, store, index === 0))),
  ];
  return [
    `cluster ${printable(cluster)}`,
    '',
    ...table(streamRows, options),
    '',
    ...(twinRows.length > 1 ? table(twinRows, options) : ['no daemon of this cluster is alive']),
    ...(storeRows.length > 1 ? ['', ...table(storeRows, options)] : []),
  ].join('\n');
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
