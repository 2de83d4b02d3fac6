import { type Position, samePlace } from '../../core/position.ts';
import type { Head, Located, Witness } from '../source.ts';
import type { Branches } from './branches.ts';
import { lsnText } from './lsn.ts';
import { beginningOf, livingEnd, type OwnLog, readableEnd } from './own-log.ts';
import type { Sameness } from './sameness.ts';
import { earlier, isInHistory, originPrefix, type Timeline, tell } from './timelines.ts';
import { segmentNameAt } from './wal-name.ts';

/** What is remembered from one answer to the next. */
export interface Memory {
  readonly sameness: Sameness;
  readonly branches: Branches;
}

type Answer = Omit<Located, 'evidence'>;

/**
 * How a server's WAL goes on from an archive's head (protocol rule 14): by the head's timeline, if that is part of the
 * server's history; else by where the two histories part. What is not proven is never allowed.
 */
export async function locate(own: OwnLog, head: Head | null, memory: Memory): Promise<Located> {
  const answer = await answerFor(own, head, memory);
  const { state, descent } = own;
  const { history } = descent.newest;
  const evidence = {
    timeline: state.timeline,
    flushed: lsnText(state.flushed),
    inRecovery: state.isInRecovery,
    ...(history && { history: history.toString('utf8') }),
  };
  return { ...answer, evidence };
}

async function answerFor(own: OwnLog, head: Head | null, memory: Memory): Promise<Answer> {
  const position = head?.position ?? null;
  if (!head || !position) {
    const at = await beginningOf(own);
    return { result: 'start', at, allowed: true, reason: 'nothing was shipped yet' };
  }
  const { cluster } = own.descent;
  if (!position.origin.startsWith(originPrefix(cluster))) {
    return gap(own, `the archive is of ${position.origin}, this server of another cluster: ${cluster.systemId}`);
  }
  const timeline = own.descent.find(position);
  return timeline ? onOwnTimeline(own, head, position, timeline, memory) : onOther(own, head, position, memory);
}

/** The archive ends on a timeline of this server's history. */
async function onOwnTimeline(
  own: OwnLog,
  head: Head,
  position: Position,
  timeline: Timeline,
  { sameness, branches }: Memory,
): Promise<Answer> {
  const { state, descent } = own;
  const end = descent.lsnOf(position);
  const { differs, common } = await sameness.compare(own, head, timeline);
  if (differs) {
    const reason = `${tell(timeline, descent.parentOf(timeline))}, holds other bytes here than in the archive`;
    return backTo(own, common, { reason, allowed: false });
  }
  if (timeline.end === null && end > state.flushed) {
    const reason = `the archive ends at ${lsnText(end)} of timeline ${timeline.number}, the WAL here at ${lsnText(state.flushed)}`;
    if (state.isInRecovery) return { result: 'behind', at: position, allowed: false, reason };
    return backTo(own, common, { reason: `${reason}, and it is a primary`, allowed: false });
  }
  const child = descent.childOf(timeline);
  if (child?.target && end > child.begin) {
    const reason = `${tell(child, timeline)}, was recovered to an earlier place than the archive's end, ${position.id}: ${child.target}`;
    const { common } = await branches.compareBefore(own, head, timeline, child.begin);
    return backTo(own, common, { reason: `${reason}. It is not taken by itself`, allowed: false });
  }
  return goOn(own, position, timeline);
}

/** From a place whose bytes are here too. */
async function goOn(own: OwnLog, position: Position, timeline: Timeline): Promise<Answer> {
  const { state, descent } = own;
  const end = descent.lsnOf(position);
  const readable = readableEnd(own, timeline);
  const isHistoryLeft = isInHistory(position) && position.offset < (timeline.history?.length ?? 0);
  const child = descent.childOf(timeline);
  if (child && end >= descent.lastSegmentOf(timeline)! && !isHistoryLeft) return goOnWith(own, child);
  if (end > readable) {
    const reason = `the WAL here ends at ${lsnText(readable)} of timeline ${timeline.number}, the archive at ${lsnText(end)}`;
    return { result: 'behind', at: position, allowed: false, reason };
  }
  const names = await own.wal.segments();
  const next = segmentNameAt(timeline.number, end, descent.cluster.segmentBytes);
  if (end < readable && !names.has(next)) {
    return gap(own, `${next}, which holds what follows ${lsnText(end)}, is gone`);
  }
  const isWholeSegment = !isInHistory(position) && position.offset === descent.cluster.segmentBytes;
  const at =
    isWholeSegment && !names.has(position.segment) && end < readable ? descent.position(timeline, end) : position;
  const reason = `timeline ${timeline.number} goes on here from ${lsnText(end)}; its WAL is here up to ${lsnText(state.flushed)}`;
  return { result: 'resume', at, allowed: true, reason };
}

/** The archive has all of a timeline but what its child's first segment has too. */
async function goOnWith(own: OwnLog, child: Timeline): Promise<Answer> {
  const { descent, state } = own;
  const what = tell(child, descent.parentOf(child));
  if (state.flushed < child.begin) {
    const reason = `the WAL here ends at ${lsnText(state.flushed)}, before ${what}`;
    return { result: 'behind', at: null, allowed: false, reason };
  }
  const first = segmentNameAt(child.number, descent.startOf(child), descent.cluster.segmentBytes);
  const isHere = (await own.wal.segments()).has(first);
  if (!isHere && readableEnd(own, child) > descent.startOf(child)) {
    // The walreceiver writes it from its beginning on, whatever was received of the parent.
    if (child.end === null && state.isInRecovery && state.flushed === child.begin) {
      return { result: 'behind', at: null, allowed: false, reason: `nothing of ${what}, is here yet` };
    }
    return gap(own, `${first}, the first segment of ${what}, is gone`);
  }
  const reason = `${what}, by its history file, goes on here`;
  return { result: 'switch', at: descent.historyPosition(child, 0), allowed: true, reason };
}

/** The archive ends on a timeline that this server's history has not. */
async function onOther(own: OwnLog, head: Head, position: Position, { branches }: Memory): Promise<Answer> {
  const { state, descent } = own;
  const archived = await branches.descentOf(own.descent.cluster, head, position);
  const common = archived && descent.commonWith(archived);
  if (!archived || !common) {
    const reason = `${position.origin} is not in this server's history, and the archive does not tell what it descends from, or is encrypted`;
    return { result: 'behind', at: null, allowed: false, reason };
  }
  const left = archived.find({ origin: descent.originOf(common), ...common })!.end!;
  const theirs = `the archive left timeline ${common.number} at ${lsnText(left)}, and is on ${position.origin}`;
  const child = descent.childOf(common);
  if (child) {
    const reason = `${theirs}, while this server is on ${tell(child, common)}`;
    const compared = await branches.compareBefore(own, head, common, earlier(child.begin, left));
    const against = await whyNotTaken(own, { head, archived: archived.newest, left, child, differs: compared.differs });
    return backTo(own, compared.common, {
      reason: against ? `${reason}. ${against}` : reason,
      allowed: against === null,
    });
  }
  const ownEnd = livingEnd(own, common);
  const reason = `${theirs}; the WAL here is on timeline ${common.number}, up to ${lsnText(ownEnd)}`;
  if (state.isInRecovery || ownEnd <= left) {
    const rewind = ownEnd > left ? ': it has more than the archive, and may need pg_rewind' : '';
    return { result: 'behind', at: null, allowed: false, reason: reason + rewind };
  }
  const compared = await branches.compareBefore(own, head, common, left);
  return backTo(own, compared.common, { reason: `${reason}: an old primary`, allowed: false });
}

interface Fork {
  readonly head: Head;
  /** The archive's timeline. */
  readonly archived: Timeline;
  /** Where the archive has left the last common timeline. */
  readonly left: bigint;
  /** The first timeline of this server that the archive's history has not. */
  readonly child: Timeline;
  /** Whether other bytes are here than in the archive, of what should be common to both. */
  readonly differs: boolean;
}

/** Null where it is proven that this server's branch is the one that lives. */
async function whyNotTaken(own: OwnLog, { head, archived, left, child, differs }: Fork): Promise<string | null> {
  const { state, descent } = own;
  if (state.isInRecovery) return 'It is not taken by itself: this server is a standby';
  if (differs) return 'It is not taken by itself: before that other bytes are here than in the archive';
  if (child.begin > left) return 'It is not taken by itself: it goes on with what the archive has left';
  if (child.target) return `It is not taken by itself: it was recovered to an earlier place: ${child.target}`;
  // A promotion takes a number that it knows to be free: one that knew of the archive's timeline takes a higher one.
  if (child.number <= archived.number) {
    return "It is not taken by itself: nothing shows that it was promoted later than the archive's server";
  }
  for await (const end of head.left()) {
    const timeline = descent.find(end);
    if (timeline && timeline.begin >= child.begin) {
      return `It is not taken by itself: the archive has left this branch before, at ${end.id}`;
    }
  }
  return null;
}

/** The archive goes back to a chunk's end, of which this server's WAL goes on. */
async function backTo(
  own: OwnLog,
  chunk: Witness | null,
  { reason, allowed }: { reason: string; allowed: boolean },
): Promise<Answer> {
  const timeline = chunk && own.descent.find(chunk.to);
  if (!chunk || !timeline) return gap(own, `${reason}; and no chunk of the archive is known to be here too`);
  const { result, at } = await goOn(own, chunk.to, timeline);
  if (result === 'gap' || at === null) return gap(own, `${reason}; and what follows the last common point is gone`);
  const common = samePlace(at, chunk.to) ? {} : { common: chunk.to };
  return { result: 'fork', at, ...common, allowed, reason };
}

async function gap(own: OwnLog, reason: string): Promise<Answer> {
  return { result: 'gap', at: await beginningOf(own), allowed: false, reason };
}
