import type { LogFormat } from '../source.ts';
import { parseTarget, WalCutter } from './cutter.ts';
import { recoveryGuide } from './guide.ts';
import { compareIds, idText, lsnText } from './lsn.ts';
import { historyName, parseWalName } from './wal-name.ts';
import { readPageHeader } from './wal-page.ts';

const FIRST_TIMELINE = 1;

/** PostgreSQL's WAL: each run is a timeline's segments, behind its history file. */
export function postgresFormat(): LogFormat {
  return {
    cutter: (until, _before, next = null) => new WalCutter(until, next),
    covers: (id, target) => target === '' || (id !== '' && compare(id, target) >= 0),
    union: (a, b) => (a === '' || (b !== '' && compare(b, a) > 0) ? b : a),

    parseId(text) {
      const { timeline, lsn } = parseTarget(text.trim());
      return timeline === null ? lsnText(lsn) : idText({ timeline, lsn });
    },

    extras: () => [],
    wholeBytes: (start) => readPageHeader(start)?.long?.segmentBytes ?? null,
    /** PostgreSQL may read one ahead. */
    segmentsBeyond: 1,
    oneDirectory: true,

    companion(segment) {
      const name = parseWalName(segment);
      return name !== null && name.timeline > FIRST_TIMELINE ? historyName(name.timeline) : null;
    },

    guide: recoveryGuide,
  };
}

/** Below zero where `a` comes first: by timeline, then LSN; where one has no timeline, by LSN alone. */
function compare(a: string, b: string): number {
  const [first, second] = [parseTarget(a), parseTarget(b)];
  return compareIds(
    { lsn: first.lsn, timeline: second.timeline === null ? 0 : (first.timeline ?? 0) },
    { lsn: second.lsn, timeline: first.timeline === null ? 0 : (second.timeline ?? 0) },
  );
}
