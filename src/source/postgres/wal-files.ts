import type { Position } from '../../core/position.ts';
import type { FilesByName } from '../source.ts';
import { parseHistory } from './history.ts';
import { compareIds, idText, parseId } from './lsn.ts';
import { historyName, isSegmentSize, parseWalName, type SegmentName, segmentNameAt, segmentStart } from './wal-name.ts';
import { readPageHeader } from './wal-page.ts';

/**
 * What PostgreSQL gives to an archive_command beside WAL: the end of a timeline that was left, whose bytes up to there begin
 * the next timeline's first segment; and a note of a base backup, which the backup's own label repeats.
 */
const WITHOUT_WAL = /^[0-9A-F]{24}(\.partial|\.[0-9A-F]{8}\.backup)$/;

/** WAL as `restore_command` asks for it. */
export function walFiles(): FilesByName {
  return {
    kindOf,
    isBehind,
    segmentBytesAt,
    segmentBytesIn,
    placeAt,
    span,
    next,
    covers,
    isFurther,
    further,
    historyAt,
    leftAt,
  };
}

function kindOf(name: string): 'segment' | 'history' | 'never' | null {
  if (WITHOUT_WAL.test(name) || name === historyName(1)) return 'never';
  return parseWalName(name)?.kind ?? null;
}

function isBehind(name: string, { segment, offset }: Position): boolean {
  const file = parseWalName(name);
  const last = parseWalName(segment);
  if (file === null || last === null) return false;
  if (file.timeline !== last.timeline) return file.timeline > last.timeline;
  if (file.kind === 'history') return last.kind === 'history' && offset === 0;
  if (last.kind === 'history') return true;
  const further = file.log - last.log || file.index - last.index;
  return further > 0 || (further === 0 && offset === 0);
}

/** An LSN is the segments before, and the offset; in the first segment of 4 GiB any size would do. */
function segmentBytesAt({ segment, offset, id }: Position): number | null {
  const file = parseWalName(segment);
  if (file?.kind !== 'segment' || file.index === 0) return null;
  const before = parseId(id).lsn - segmentStart({ log: file.log, index: 0 }, 1) - BigInt(offset);
  const bytes = Number(before) / file.index;
  return isSegmentSize(bytes) ? bytes : null;
}

const segmentBytesIn = (start: Uint8Array) => readPageHeader(start)?.long?.segmentBytes ?? null;

function placeAt(id: string, segmentBytes: number): { segment: string; offset: number } {
  const { timeline, lsn } = parseId(id);
  return { segment: segmentNameAt(timeline, lsn, segmentBytes), offset: Number(lsn % BigInt(segmentBytes)) };
}

function span(segment: string, segmentBytes: number): { from: string; to: string } {
  const file = parseWalName(segment) as SegmentName;
  const { timeline } = file;
  const lsn = segmentStart(file, segmentBytes);
  return { from: idText({ timeline, lsn }), to: idText({ timeline, lsn: lsn + BigInt(segmentBytes) }) };
}

function next(segment: string, segmentBytes: number): string {
  const { timeline, lsn } = parseId(span(segment, segmentBytes).to);
  return segmentNameAt(timeline, lsn, segmentBytes);
}

const covers = (id: string, target: string) => compareIds(parseId(id), parseId(target)) >= 0;

const isFurther = (id: string, than: string) => parseId(id).lsn > parseId(than).lsn;

function further(id: string, bytes: number): string {
  const { timeline, lsn } = parseId(id);
  return idText({ timeline, lsn: lsn + BigInt(bytes) });
}

function historyAt({ segment }: Position): string | null {
  const timeline = parseWalName(segment)?.timeline ?? 1;
  return timeline === 1 ? null : historyName(timeline);
}

function leftAt(segment: string, history: Uint8Array): string | null {
  const ancestor = parseHistory(history).find(({ timeline }) => timeline === parseWalName(segment)?.timeline);
  return ancestor ? idText({ timeline: ancestor.timeline, lsn: ancestor.switchLsn }) : null;
}
