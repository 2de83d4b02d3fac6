import type { Lineage } from './binlogs.ts';
import { type Gtid, gtidText, MariadbGtidState } from './gtid.ts';
import { firstAt, type OwnLog } from './pair.ts';
import { isReplica, mayBeReplica, type ServerState } from './server.ts';

/** What was found, in words: `0-2-7 was written on this server, which is a replica`. */
type Finding = string;

/**
 * A transaction that somebody wrote on this server although it is a replica, was one when it last answered, or may be one
 * since it has not answered yet: the first beyond an ID, or the last of all, since an archive that goes on soon has a higher
 * number; null where there is none, and where the server is down and was never seen as a replica. What it wrote while it
 * was the primary is none.
 */
export async function errantBeyond(own: OwnLog, id: string): Promise<Finding | null> {
  if (!mayBeReplica(own) || own.flavour !== 'mariadb') return null;
  const suspect = await firstErrant(own, own.lastKnown, id);
  if (suspect === null) return null;
  // A promotion comes before the first write. Without an answer nothing shows that there was one, and nothing can take back
  // what was shipped.
  const server = await own.askServer();
  if (server === null && own.lastKnown === null) {
    return `${suspect} was written on this server, which has not said yet whether it is a replica`;
  }
  if (server === null) {
    return `${suspect} was written on this server, a replica when it last answered: it does not say whether it was promoted since`;
  }
  const errant = isReplica(server) ? await firstErrant(own, server, id) : null;
  return errant && `${errant} was written on this server, which is a replica: ${REMEDY}`;
}

const REMEDY = 'make it a replica anew, or promote it if that counts';

async function firstErrant(own: OwnLog, server: ServerState | null, id: string): Promise<string | null> {
  const end = await own.index.end(own.lineage);
  if (!end || !(end.state instanceof MariadbGtidState)) return null;
  const { serverId } = end.usable.header;
  const covered = new MariadbGtidState(id);
  for (const { domain } of end.state.last()) {
    const last = end.state.serversOf(domain).get(serverId);
    const from = covered.highestOf(domain) ?? 0n;
    const archived = covered.lastOf(domain);
    if (last === undefined || (archived?.server === serverId && archived.sequence >= last)) continue;
    const first = last > from ? await firstAt(own, { domain, server: serverId, sequence: from + 1n }) : null;
    for (const written of [first, { domain, server: serverId, sequence: last }]) {
      if (written && (await isErrant(own, server, written))) return gtidText(written);
    }
  }
  return null;
}

/**
 * What this server wrote as the primary, the others have: the next transaction of another server comes after it, or it is
 * part of the position from which this one replicates.
 */
async function isErrant(own: OwnLog, server: ServerState | null, written: Gtid): Promise<boolean> {
  const { domain } = written;
  const judged = judgements.get(own.lineage) ?? new Map<string, boolean>();
  judgements.set(own.lineage, judged);
  const known = judged.get(gtidText(written));
  if (known !== undefined) return known;
  const next = await nextOfOthers(own, written);
  if (next === 'gone') return false;
  if (next !== null) {
    const errant = next.sequence <= written.sequence;
    judged.set(gtidText(written), errant);
    return errant;
  }
  const replicatedTo = new MariadbGtidState(server?.slavePosition).lastOf(domain);
  return (replicatedTo?.sequence ?? -1n) < written.sequence;
}

/** What a log's own transactions were found to be by those that follow them: that never changes. */
const judgements = new WeakMap<Lineage, Map<string, boolean>>();

/** What comes after a transaction in its domain and was written by another server; `gone`: it is in no file any more. */
async function nextOfOthers({ index, lineage }: OwnLog, written: Gtid): Promise<Gtid | 'gone' | null> {
  const { domain } = written;
  const mine = await index.find(lineage, {
    isPast: (state) => (servers(state, domain).get(written.server) ?? -1n) >= written.sequence,
    matches: (state) => isAt(state, written),
  });
  if (mine?.kind !== 'found') return 'gone';
  const before = servers(mine.transaction, domain);
  const isNew = (id: number, sequence: bigint) => id !== written.server && sequence > (before.get(id) ?? -1n);
  const next = await index.find(lineage, {
    isPast: (state) => [...servers(state, domain)].some(([id, sequence]) => isNew(id, sequence)),
    matches: (state) => {
      const begun = (state as MariadbGtidState).begunGtid();
      return begun.domain === domain && isNew(begun.server, begun.sequence);
    },
  });
  return next?.kind === 'found' ? (next.transaction as MariadbGtidState).begunGtid() : null;
}

const servers = (state: unknown, domain: number) => (state as MariadbGtidState).serversOf(domain);

function isAt(state: unknown, { domain, server, sequence }: Gtid): boolean {
  const begun = (state as MariadbGtidState).begunGtid();
  return begun.domain === domain && begun.server === server && begun.sequence === sequence;
}
