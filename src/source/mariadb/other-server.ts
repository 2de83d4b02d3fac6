import type { Position } from '../../core/position.ts';
import type { Head, Located } from '../source.ts';
import { type Branches, type Comparison, type Divergence, UNPROVEN } from './fork.ts';
import { gtidStateFor, gtidText } from './gtid.ts';
import type { Boundary } from './log-index.ts';
import { type OwnLog, type Standing, standingOf } from './pair.ts';
import { createdOf } from './segment.ts';
import { isLiving } from './server.ts';

/** An answer, and what proves it, for the opening. */
export type Answer = Omit<Located, 'evidence'> & { readonly proof?: Readonly<Record<string, unknown>> };

/**
 * How this log goes on from an archive's end in another server's: GTIDs are all that the two have in common, their bytes
 * differ. `oldest`: the first place here.
 */
export async function answerFromOther(
  own: OwnLog,
  { oldest, head, end, branches }: { oldest: Position; head: Head; end: Position; branches: Branches },
): Promise<Answer> {
  const standing: Standing = (await standingOf(own, end.id)) ?? {
    kind: 'behind',
    why: 'there are no binlogs here yet',
  };
  const proof = { server: own.server };
  switch (standing.kind) {
    case 'ahead': {
      const at = own.index.position(atFileStart(standing.at));
      const reason = `${at.segment} has all that was shipped, up to ${end.id || 'its start'}`;
      const against = await whyNotMoved(own, { head, branches, at });
      if (against === null) return { result: 'move', at, allowed: true, reason, proof };
      return { result: 'fork', at, common: end, allowed: false, reason: `${reason}, but ${against}`, proof };
    }
    case 'missing':
      return { result: 'gap', at: oldest, allowed: false, reason: standing.why };
    case 'behind': {
      // Promoted before it had all, a server goes its own way from its first own transaction on.
      const comparison =
        isLiving(own.server) && own.flavour === 'mariadb' ? await branches.compare(own, head) : UNPROVEN;
      const { divergences, isSealed } = comparison;
      if (divergences.length > 0)
        return forkAnswer(own, { oldest, head, branches, why: 'it went its own way', comparison });
      const reason = isSealed ? `${standing.why}; whether it went its own way can't be told: ${SEALED}` : standing.why;
      return { result: 'behind', at: null, allowed: false, reason };
    }
    case 'apart': {
      if (own.flavour === 'mysql' && own.server?.isReplicating) {
        return { result: 'behind', at: null, allowed: false, reason: standing.why };
      }
      const comparison = own.flavour === 'mariadb' ? await branches.compare(own, head) : UNPROVEN;
      return forkAnswer(own, { oldest, head, branches, why: standing.why, comparison });
    }
  }
}

const SEALED = 'the archive is encrypted, and the daemon has no key to compare it with the log here';

/** IDs name the same transactions as in the archive only in the same branch, and the same life, of the log. */
async function whyNotMoved(
  own: OwnLog,
  { head, branches, at }: { head: Head; branches: Branches; at: Position },
): Promise<string | null> {
  const anew = await head.anew();
  if (anew !== null && createdOf(at.incarnation) < createdOf(anew.incarnation)) {
    return `it was begun before the archive's log began anew (RESET MASTER) with ${anew.segment} of ${anew.origin}`;
  }
  const left = own.flavour === 'mariadb' ? await branches.leftEndBeyond(own, head, head.position?.id ?? '') : null;
  return left && `goes on with a branch that the archive has left before, at ${gtidText(left)}`;
}

interface Fork {
  readonly oldest: Position;
  readonly head: Head;
  readonly branches: Branches;
  readonly why: string;
  readonly comparison: Comparison;
}

async function forkAnswer(own: OwnLog, { oldest, head, branches, why, comparison }: Fork): Promise<Answer> {
  const { divergences } = comparison;
  const common = (await branches.commonOf(own, head))?.to;
  if (!common) {
    const reason = `${why}; and no chunk of the archive ends with what is here too`;
    return { result: 'gap', at: oldest, allowed: false, reason };
  }
  const beyond = (await own.index.beyond(own.lineage, gtidStateFor(own.flavour, common.id)))!;
  if (beyond.kind === 'before') {
    const reason = `${why}; and what follows the last common point, ${common.id}, is not in the binlogs here any more`;
    return { result: 'gap', at: oldest, allowed: false, reason };
  }
  const at = own.index.position(atFileStart(beyond.at));
  const against = await whyNotTaken(own, { head, branches, comparison });
  const proof = { server: own.server, divergences: divergences.map(inText) };
  const what = divergences.length > 0 ? `${why}: ${tell(divergences)}` : why;
  const reason = against === null ? what : `${what}. It is not taken by itself: ${against}`;
  return { result: 'fork', at, common, allowed: against === null, reason, proof };
}

/** Null where it is proven that this server's branch is the one that lives. */
async function whyNotTaken(
  own: OwnLog,
  { head, branches, comparison: { divergences, isSealed } }: Pick<Fork, 'head' | 'branches' | 'comparison'>,
): Promise<string | null> {
  if (own.flavour === 'mysql') return 'that is never done between MySQL servers, whose sets of GTIDs prove no order';
  if (!own.server) return 'the server was not asked, or did not answer, whether it is writable and replicates';
  if (own.server.isReplicating !== false) return 'this server replicates from another';
  if (!own.server.isWritable) return 'this server is read-only';
  if (divergences.length === 0 && isSealed) return SEALED;
  if (divergences.length === 0) return 'no transaction here is proven to stand in place of one in the archive';
  for (const divergence of divergences) {
    const against = (await whyNotPromoted(own, divergence)) ?? (await whyDead(own, head, branches, divergence));
    if (against !== null) return against;
  }
  return null;
}

/**
 * A promotion shows as a change of the writer. Where the archive's branch began with one, this server may be the old
 * primary that was cut off and writes on; it must not turn the archive back.
 */
function whyNotPromoted({ server }: OwnLog, { last, archived, here }: Divergence): string | null {
  const promotedHere = last !== null && here.server !== last.server && here.server === server?.serverId;
  if (promotedHere && archived.server === last.server) return null;
  const branch = `${gtidText(here)} here, ${gtidText(archived)} in the archive, after ${last ? gtidText(last) : 'nothing'}`;
  return `nothing shows that this server was promoted, and the archive's not (${branch})`;
}

async function whyDead(own: OwnLog, head: Head, branches: Branches, divergence: Divergence): Promise<string | null> {
  const left = await branches.leftEndHere(own, head, divergence);
  return left && `the archive has left this branch before, at ${gtidText(left)}`;
}

const inText = ({ last, archived, here }: Divergence) => ({
  last: last && gtidText(last),
  archived: gtidText(archived),
  here: gtidText(here),
});

const tell = (divergences: readonly Divergence[]) =>
  divergences
    .map(inText)
    .map(({ last, archived, here }) => `after ${last ?? 'nothing'} comes ${here} here, ${archived} in the archive`)
    .join('; ');

/** A file of which no transaction was passed yet is shipped whole. */
function atFileStart(boundary: Boundary): Boundary {
  const { usable, state } = boundary;
  return state.text() === usable.header.start.text() ? { ...boundary, offset: 0 } : boundary;
}
