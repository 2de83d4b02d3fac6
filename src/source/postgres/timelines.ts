import type { Position } from '../../core/position.ts';
import { type Ancestor, incarnationOf, parseHistory } from './history.ts';
import { idText, lsnText, parseId } from './lsn.ts';
import { historyName, parseWalName, segmentNameAt, segmentStart, segmentStartAt } from './wal-name.ts';

/** A part of a server's history: the WAL from `begin` to `end` was written on this timeline. */
export interface Timeline {
  readonly number: number;
  /** Tells it from others of the same number. */
  readonly incarnation: string;
  /** Its history file; null: the first timeline has none. */
  readonly history: Buffer | null;
  /** Where it left its parent; 0 for the first one. */
  readonly begin: bigint;
  /** Where recovery was told to stop, as the history file says: `before 2026-01-01 …`; null: it was a plain promotion. */
  readonly target: string | null;
  /** Where its child left it; null: it is the newest. */
  readonly end: bigint | null;
}

/** What is the same for all servers of a cluster. */
export interface Cluster {
  readonly systemId: string;
  readonly segmentBytes: number;
}

/**
 * The timelines by which a server came to where it is, one path in the tree of all of the cluster's. A history file holds
 * those of all its ancestors, so that the newest tells the path.
 */
export class Descent {
  readonly cluster: Cluster;
  /** Oldest first. */
  readonly timelines: readonly Timeline[];

  /** `history`: the timeline's own; null for the first one. Throws BAD_HISTORY, NO_HISTORY. */
  constructor(cluster: Cluster, timeline: number, history: Uint8Array | null) {
    this.cluster = cluster;
    const timelines: Timeline[] = [];
    let bytes: Buffer | null = history && Buffer.from(history);
    for (let [number, end] = [timeline, null as bigint | null]; ; ) {
      const parent = bytes && parseHistory(bytes).at(-1);
      const incarnation = incarnationOf(number, bytes);
      timelines.unshift({
        number,
        incarnation,
        history: bytes,
        begin: parent?.switchLsn ?? 0n,
        end,
        target: targetOf(parent),
      });
      if (!parent) break;
      bytes = parentHistory(bytes!);
      [number, end] = [parent.timeline, parent.switchLsn];
    }
    this.timelines = timelines;
  }

  get newest(): Timeline {
    return this.timelines.at(-1)!;
  }

  /** The timeline of a position, if it is part of this history. */
  find({ origin, incarnation }: Pick<Position, 'origin' | 'incarnation'>): Timeline | undefined {
    return this.timelines.find((each) => this.originOf(each) === origin && each.incarnation === incarnation);
  }

  childOf(timeline: Timeline): Timeline | undefined {
    return this.timelines[this.timelines.indexOf(timeline) + 1];
  }

  parentOf(timeline: Timeline): Timeline | undefined {
    return this.timelines[this.timelines.indexOf(timeline) - 1];
  }

  /** The newest timeline that both histories have. */
  commonWith(other: Descent): Timeline | undefined {
    return this.timelines.findLast((each) => other.find({ origin: this.originOf(each), ...each }) !== undefined);
  }

  /** On which timeline the page was begun that starts at the LSN: a timeline's first segment holds copies of older ones. */
  writerOf(pageLsn: bigint): Timeline {
    return this.timelines.findLast(({ begin }) => begin <= pageLsn)!;
  }

  originOf({ number }: Timeline): string {
    return `${originPrefix(this.cluster)}${number}`;
  }

  /** The LSN of a timeline's first byte in files of its own name. */
  startOf({ begin }: Timeline): bigint {
    return segmentStartAt(begin, this.cluster.segmentBytes);
  }

  /** Where a timeline ends for the archive: its child's first segment holds the rest; null while it goes on. */
  lastSegmentOf({ end }: Timeline): bigint | null {
    return end === null ? null : segmentStartAt(end, this.cluster.segmentBytes);
  }

  /** The place of the byte at an LSN. */
  position(timeline: Timeline, lsn: bigint): Position {
    const { segmentBytes } = this.cluster;
    return {
      origin: this.originOf(timeline),
      incarnation: timeline.incarnation,
      segment: segmentNameAt(timeline.number, lsn, segmentBytes),
      offset: Number(lsn % BigInt(segmentBytes)),
      id: idText({ timeline: timeline.number, lsn }),
    };
  }

  /** The place after the byte before an LSN: at a segment's end it is still that segment. */
  positionAfter(timeline: Timeline, lsn: bigint): Position {
    const last = this.position(timeline, lsn - 1n);
    return { ...last, offset: last.offset + 1, id: idText({ timeline: timeline.number, lsn }) };
  }

  /** A place in a timeline's history file; `wal`: where its WAL is to go on, by default where it begins. */
  historyPosition(timeline: Timeline, offset: number, wal = timeline.begin): Position {
    return {
      origin: this.originOf(timeline),
      incarnation: timeline.incarnation,
      segment: historyName(timeline.number),
      offset,
      id: idText({ timeline: timeline.number, lsn: wal }),
    };
  }

  /** Where a term that begins with a timeline's WAL at a segment's start begins: with its history file, if it has one. */
  beginningAt(timeline: Timeline, wal: bigint): Position {
    if (timeline.history === null) return this.position(timeline, wal);
    return this.historyPosition(timeline, 0, wal > timeline.begin ? wal : timeline.begin);
  }

  /** Up to which LSN the WAL before a position goes. */
  lsnOf({ segment, offset, id }: Position): bigint {
    const name = parseWalName(segment);
    if (name?.kind === 'segment') return segmentStart(name, this.cluster.segmentBytes) + BigInt(offset);
    return segmentStartAt(parseId(id).lsn, this.cluster.segmentBytes);
  }
}

/** The beginning of the origins of a cluster's WAL, before the timeline. */
export const originPrefix = ({ systemId }: Pick<Cluster, 'systemId'>) => `postgres-${systemId}-`;

export const earlier = (a: bigint, b: bigint): bigint => (a < b ? a : b);

export const isInHistory = ({ segment }: Position) => parseWalName(segment)?.kind === 'history';

/** For people: `timeline 2, which left timeline 1 at 0/16B3748`. */
export function tell({ number, begin }: Timeline, parent: Timeline | undefined): string {
  return parent
    ? `timeline ${number}, which left timeline ${parent.number} at ${lsnText(begin)}`
    : `timeline ${number}`;
}

const PROMOTION = 'no recovery target specified';
const targetOf = (parent: Ancestor | null | undefined) =>
  parent && parent.reason !== PROMOTION ? parent.reason : null;

/** A child's file is its parent's, an empty line, and a line of its own. */
function parentHistory(history: Buffer): Buffer | null {
  const lines = history.toString('latin1').split('\n');
  const own = lines.findLastIndex((line) => !/^\s*(#|$)/.test(line));
  const before = lines.slice(0, own).join('\n');
  return before === '' ? null : Buffer.from(before, 'latin1');
}
