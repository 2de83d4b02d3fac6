import { type Position, samePlace } from '../../core/position.ts';
import type { Head, Located, Witness } from '../source.ts';
import type { Lineage, Usable } from './binlogs.ts';
import { errantBeyond } from './errant.ts';
import type { Branches } from './fork.ts';
import { isPlace } from './gtid.ts';
import { binlogBase, binlogNumber } from './index-file.ts';
import { type Answer, answerFromOther } from './other-server.ts';
import type { OwnLog } from './pair.ts';
import { createdOf, type Segment } from './segment.ts';

/**
 * How the binlogs here go on from an archive's head (protocol rule 14): of the same server by its bytes, of another by
 * GTIDs. What is not proven is never allowed.
 */
export async function locate(own: OwnLog, head: Head | null, branches: Branches): Promise<Located> {
  const here = new LocalLog(own.lineage);
  const { proof, ...answer } = await withoutErrant(own, head, await answerFor(here, head, { own, branches }));
  const evidence = { ...(await here.evidence()), ...(answer.at && (await here.evidenceAt(answer.at))), ...proof };
  return { ...answer, evidence };
}

/**
 * What somebody wrote on a replica is no part of the database's history. Nor can an operator accept it: the log would be read
 * no further than to there, and the other twin's would then be the one that the archive has left.
 */
async function withoutErrant(own: OwnLog, head: Head | null, answer: Answer): Promise<Answer> {
  const position = head?.position;
  const isSound = answer.allowed || answer.result === 'behind';
  if (!position || (answer.at === null && answer.result !== 'behind')) return answer;
  const from = isSound ? position.id : answer.at!.id;
  const errant = await errantBeyond(own, answer.result === 'reset' ? '' : from);
  if (errant === null) return answer;
  const reason = isSound ? errant : `${answer.reason}; ${errant}`;
  return { result: 'fork', at: null, allowed: false, reason };
}

interface Other {
  readonly own: OwnLog;
  readonly branches: Branches;
}

async function answerFor(here: LocalLog, head: Head | null, { own, branches }: Other): Promise<Answer> {
  const oldest = await here.oldest();
  const start = oldest && startOf(oldest);
  const position = head?.position ?? null;
  if (!head || !position) return { result: 'start', at: start, allowed: true, reason: 'nothing was shipped yet' };
  if (!oldest || !start) {
    return {
      result: 'behind',
      at: null,
      allowed: false,
      reason: 'there are no binlogs here yet, but the archive has some',
    };
  }
  const same = await here.find(position);
  const fromOther = () => answerFromOther(own, { oldest: start, head, end: position, branches });
  // A term began inside a file, and shipped nothing: another server's log tells all that there is, by its GTIDs.
  if (same && position.offset > 0 && witnessAt(head, position) === null) return fromOther();
  if (same && (await here.holds(same, position, head))) return goOn(here, same, position);
  if (!same && position.origin !== (await here.origin())) return fromOther();
  // MySQL may write transactions that bear no GTID among those that do: there equal IDs prove nothing.
  if (!same && own.flavour === 'mariadb') {
    const successor = await takeUpSuccessor(oldest, head, position);
    if (successor) return successor;
  }
  const common = await newestCommon(here, head, position);
  if (common) {
    const reason = same
      ? `${position.segment} no longer holds what was shipped of it: the same up to offset ${common.to.offset} of ${common.to.segment}`
      : `the log here never had ${position.segment} as shipped: the same up to offset ${common.to.offset} of ${common.to.segment}`;
    return { result: 'truncate', at: common.to, allowed: true, reason };
  }
  const answer = withoutCommonPoint(oldest, same, position);
  return answer.result === 'reset' && isMadeAnew(own) ? fromOther() : answer;
}

/**
 * Whether the data directory may have been made anew, from a backup of another server: it replicates, or did so before it
 * was promoted. Then its log is not the archive's, started again on purpose.
 */
const isMadeAnew = ({ server }: OwnLog) => server !== null && (server.isReplicating || server.slavePosition !== '');

/** At the head with the same bytes before it. */
async function goOn(here: LocalLog, { segment, header }: Usable, position: Position): Promise<Answer> {
  const next = position.offset === segment.size ? await here.next(segment) : null;
  if (next && next.segment.number !== segment.number + 1) {
    const reason = `what followed ${segment.name} is gone: the next binlog here is ${next.segment.name}`;
    return { result: 'gap', at: startOf(next), allowed: false, reason };
  }
  if (next && next.header.origin !== header.origin) {
    const reason = `the server's id was changed: ${header.origin} became ${next.header.origin}`;
    return { result: 'move', at: startOf(next), allowed: true, reason };
  }
  return {
    result: 'resume',
    at: position,
    allowed: true,
    reason: `${position.segment} holds the bytes that were shipped last`,
  };
}

/** The head's file was purged, and nothing that it may still have held is missing: its successor starts with the head's ID. */
async function takeUpSuccessor({ segment, header }: Usable, head: Head, position: Position): Promise<Answer | null> {
  const isDirect = segment.number === binlogNumber(position.segment) + 1 && header.origin === position.origin;
  if (!isDirect || position.offset === 0 || header.startId !== position.id) return null;
  const witness = witnessAt(head, position);
  if (!witness || witness.openTransaction) return null;
  const reason = `${position.segment} was purged, and ${segment.name} starts with the ID that was shipped last`;
  return { result: 'resume', at: startOf({ segment, header }), allowed: true, reason };
}

/**
 * The newest chunk that is here byte for byte. The one after it may agree in part, but holds no digest of that part, so
 * shipping goes on from this one's end; readers cut there.
 */
async function newestCommon(here: LocalLog, head: Head, position: Position): Promise<Witness | null> {
  const oldest = (await here.oldest())!;
  const oldestNumber = oldest.segment.number;
  // All here is younger than the head's file (a purge), so that no older chunk can match.
  if (oldestNumber > binlogNumber(position.segment)) return null;
  for await (const witness of head.history()) {
    // What another server's log told in between is here by its GTIDs only.
    if (witness.to.origin !== position.origin) return null;
    if (await here.has(witness)) return witness;
    if (isOlder(witness, oldest)) return null;
  }
  return null;
}

/** Whether a chunk's file was begun before the oldest file here, so that neither it nor an older chunk can be here. */
function isOlder({ to }: Witness, { header }: Usable): boolean {
  return to.origin === header.origin && createdOf(to.incarnation) < createdOf(header.incarnation);
}

function withoutCommonPoint(oldest: Usable, same: Usable | null, position: Position): Answer {
  const { segment, header } = oldest;
  const at = startOf(oldest);
  const hasNoPast = header.startId === '' || isPlace(header.startId);
  const isNamedAsBefore = binlogBase(segment.name) === binlogBase(position.segment);
  // Else it is another server's, which has the same id.
  const isYounger = createdOf(header.incarnation) >= createdOf(position.incarnation);
  const isFirst = segment.number === 1 && hasNoPast && isNamedAsBefore;
  if (!same && isFirst && isYounger && header.origin === position.origin) {
    return {
      result: 'reset',
      at,
      allowed: true,
      reason: `the log was started again: ${segment.name} is a new file without a past`,
    };
  }
  const refuse = (reason: string): Answer => ({ result: 'gap', at, allowed: false, reason });
  if (header.origin !== position.origin) {
    return refuse(`the binlogs here are those of ${header.origin}, the archive ends with those of ${position.origin}`);
  }
  if (!isNamedAsBefore) {
    const named = `the binlogs here, from ${segment.name} on, are named otherwise than the archive's last`;
    return refuse(`${named}: ${position.segment} may have more than was shipped of it`);
  }
  if (same)
    return refuse(`${position.segment} differs from what was shipped of it, and no older chunk is here to go back to`);
  const missing = segment.number - binlogNumber(position.segment);
  if (missing > 0) {
    const files =
      missing === 1 ? `the end of ${position.segment} is` : `${position.segment} and ${missing - 1} more are`;
    return refuse(`${files} gone: the oldest binlog here is ${segment.name}`);
  }
  const unlike = `the binlogs here, from ${segment.name} on, have nothing in common with what was shipped`;
  return refuse(`${unlike}; do two servers have server_id ${header.serverId}?`);
}

const startOf = ({ segment, header }: Usable): Position => ({
  origin: header.origin,
  incarnation: header.incarnation,
  segment: segment.name,
  offset: 0,
  id: header.startId,
});

/** The chunk that ends at the head; null where a term was opened there, and shipped nothing yet. */
const witnessAt = ({ witness }: Head, position: Position) =>
  witness !== null && samePlace(witness.to, position) ? witness : null;

/** The binlogs here, for questions about what they hold. */
class LocalLog {
  readonly #lineage: Lineage;

  constructor(lineage: Lineage) {
    this.#lineage = lineage;
  }

  async oldest(): Promise<Usable | null> {
    const first = this.#lineage.segments[0];
    return first ? this.#usable(first) : null;
  }

  /** The server that writes the newest file; its ID may have been changed since the oldest. */
  async origin(): Promise<string | null> {
    return (await this.#lineage.newestUsable())?.header.origin ?? null;
  }

  async next(segment: Segment): Promise<Usable | null> {
    const next = this.#lineage.next(segment);
    return next ? this.#usable(next) : null;
  }

  /** The same life of a position's file. */
  async find(position: Position): Promise<Usable | null> {
    const segment = this.#lineage.find(position);
    const usable = segment ? await this.#usable(segment) : null;
    return usable?.header.origin === position.origin && usable.header.incarnation === position.incarnation
      ? usable
      : null;
  }

  /** Whether the file reaches the position with the bytes that were shipped before it. */
  async holds({ segment }: Usable, position: Position, head: Head): Promise<boolean> {
    if (position.offset === 0) return true;
    if ((await segment.measure()) < position.offset) return false;
    const witness = witnessAt(head, position);
    if (witness === null) return false;
    return witness.matches(await segment.digest(witness.from.offset, witness.length));
  }

  async has(chunk: Witness): Promise<boolean> {
    const { from, to, length } = chunk;
    const usable = await this.find(to);
    if (!usable || (await usable.segment.measure()) < to.offset) return false;
    return chunk.matches(await usable.segment.digest(from.offset, length));
  }

  async evidence(): Promise<Record<string, unknown>> {
    const { segments } = this.#lineage;
    return { binlogs: segments.length, oldest: segments[0]?.name ?? null, newest: segments.at(-1)?.name ?? null };
  }

  /** What a reader needs who starts there: the file's first events, and the GTIDs of all before. */
  async evidenceAt(at: Position): Promise<Record<string, unknown>> {
    const usable = await this.find(at);
    if (!usable) return {};
    const { formatDescription, fileStart } = usable.header;
    return {
      formatDescription: formatDescription.toString('base64'),
      gtids: at.id,
      ...(at.offset > 0 && { fileStart: fileStart.toString('base64') }),
    };
  }

  async #usable(segment: Segment): Promise<Usable | null> {
    const header = await this.#lineage.header(segment);
    return header && { segment, header };
  }
}
