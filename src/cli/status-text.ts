import { lagText } from '../core/format.ts';
import type { StatusReport, StreamStatus, TwinStatus } from '../core/status.ts';
import { type Cell, type TableOptions, table } from './table.ts';
import { printable } from './terminal.ts';

/** The status report for a terminal: a table of streams, and one of their twins. No line is longer than `width`. */
export function statusText({ cluster, streams }: StatusReport, options: TableOptions): string {
  const streamRows: Cell[][] = [
    ['STREAM', 'MASTER', 'TERM', 'SLOT', 'LAG', 'ARCHIVED UP TO'],
    ...streams.map(streamRow),
  ];
  const twinRows: Cell[][] = [
    ['STREAM', 'TWIN', 'ROLE', 'READY', 'LAG', 'WHY'],
    ...streams.flatMap(({ name, twins }) => twins.map((twin) => twinRow(name, twin))),
  ];
  return [
    `cluster ${printable(cluster)}`,
    '',
    ...table(streamRows, options),
    '',
    ...(twinRows.length > 1 ? table(twinRows, options) : ['no daemon of this cluster is alive']),
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
    cursor ? printable(`${cursor.id || '(no ID yet)'} at ${cursor.segment}:${cursor.offset}`) : 'nothing yet',
  ];
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
