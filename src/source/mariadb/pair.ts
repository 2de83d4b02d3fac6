import type { Lineage } from './binlogs.ts';
import { type Flavour, type Gtid, type GtidState, gtidStateFor, gtidText, isPlace, MariadbGtidState } from './gtid.ts';
import type { Boundary, LogIndex, Search } from './log-index.ts';
import { MysqlGtidState } from './mysql-gtid.ts';
import type { ServerState } from './server.ts';

/** This server's log, for questions of what it holds of another's. */
export interface OwnLog {
  readonly lineage: Lineage;
  readonly index: LogIndex;
  readonly flavour: Flavour;
  /** Null: not known. */
  readonly server: ServerState | null;
  /** What it was when it last answered. Null: it never did. */
  readonly lastKnown: ServerState | null;
  /** Whether there is a server to ask that is not down, but too slow to answer. */
  readonly isSilent: boolean;
  /** The same as `server`, learnt after the call. */
  askServer(): Promise<ServerState | null>;
}

/** How a log stands to an ID of another server's. */
export type Standing =
  /** It has all of it, and all that follows: shipping may go on from `at`. */
  | { readonly kind: 'ahead'; readonly at: Boundary }
  /** It has not come so far, and nothing in it speaks against that it will. */
  | { readonly kind: 'behind'; readonly why: string }
  /** It went another way. */
  | { readonly kind: 'apart'; readonly why: string }
  /** What it would have to hold was purged, or never written here: a backup brought it. */
  | { readonly kind: 'missing'; readonly why: string };

/** Compares this log with what an archive has of another server's; null without a binlog. */
export async function standingOf(own: OwnLog, id: string): Promise<Standing | null> {
  const states = await statesOf(own);
  if (!states) return null;
  const { start, end } = states;
  if (isPlace(id)) {
    return { kind: 'missing', why: `the archive ends at ${id}, a place that means nothing in another server's log` };
  }
  const wanted = gtidStateFor(own.flavour, id);
  const lack =
    wanted instanceof MariadbGtidState && start instanceof MariadbGtidState && end instanceof MariadbGtidState
      ? await mariadbLack(own, { wanted, start, end })
      : mysqlLack(wanted, end);
  if (lack) return lack;
  const beyond = (await own.index.beyond(own.lineage, wanted))!;
  if (beyond.kind !== 'before') return { kind: 'ahead', at: beyond.at };
  return { kind: 'missing', why: `${uncovered(beyond.at.state, wanted)} are not in the binlogs here any more` };
}

interface MariadbStates {
  readonly wanted: MariadbGtidState;
  /** Before the oldest file, and at the log's end. */
  readonly start: MariadbGtidState;
  readonly end: MariadbGtidState;
}

/** Why a log does not have all of an ID, by its domains; the gravest reason counts. Null: it has. */
async function mariadbLack(own: OwnLog, states: MariadbStates): Promise<Standing | null> {
  const lacks: Standing[] = [];
  for (const gtid of states.wanted.last()) {
    const lack = await domainLack(own, states, gtid);
    if (lack) lacks.push(lack);
  }
  const worst = (['apart', 'missing', 'behind'] as const).find((kind) => lacks.some((lack) => lack.kind === kind));
  if (worst) {
    const why = lacks.flatMap((lack) => (lack.kind === worst ? [lack.why] : [])).join('; ');
    return { kind: worst, why };
  }
  // A server counts without holes: a jump is what filters left out, or what came while log_slave_updates was off.
  for (const shipped of states.wanted.last()) {
    const next = await nextOf(own, shipped.domain, shipped.sequence);
    if (next === null || next.sequence === shipped.sequence + 1n) continue;
    const why = `${gtidText(next)} follows ${gtidText(shipped)} here: what is between them is not in these binlogs`;
    return { kind: 'missing', why };
  }
  for (const { domain } of states.end.last()) {
    if (states.wanted.lastOf(domain) || states.start.lastOf(domain)) continue;
    const first = await firstOf(own, domain);
    if (first && first.sequence > 1n) {
      const why = `the binlogs here begin with ${gtidText(first)} in domain ${domain}, of which the archive has nothing`;
      return { kind: 'missing', why };
    }
  }
  return null;
}

async function domainLack(own: OwnLog, { start, end }: MariadbStates, gtid: Gtid): Promise<Standing | null> {
  const { domain, server, sequence } = gtid;
  const here = end.lastOf(domain);
  if (!here) return unwrittenLack(own, gtid);
  if (await holdsGtid(own, { start, end }, gtid)) return null;
  if (end.highestOf(domain)! < sequence) {
    return { kind: 'behind', why: lag(gtid, end.highestOf(domain)!, gtidText(here)) };
  }
  const first = start.lastOf(domain) ? null : await firstOf(own, domain);
  if (first && first.sequence > sequence) {
    // A backup brought what is before: the server's next transaction says that nothing is between.
    if (first.server === server && first.sequence === sequence + 1n) return null;
    const why = `the binlogs here begin with ${gtidText(first)} in domain ${domain}, the archive ends with ${gtidText(gtid)}`;
    return { kind: 'missing', why };
  }
  const why = `the log here has come to ${gtidText(here)} in domain ${domain} without ${gtidText(gtid)}, which the archive has`;
  return { kind: 'apart', why };
}

/** Of a domain that these binlogs know nothing of: perhaps a backup brought it. */
function unwrittenLack({ server }: OwnLog, gtid: Gtid): Standing | null {
  const given = server && new MariadbGtidState(server.slavePosition).lastOf(gtid.domain);
  if (!given || given.sequence < gtid.sequence) {
    return { kind: 'behind', why: lag(gtid, given?.sequence ?? 0n, given ? gtidText(given) : 'nothing') };
  }
  if (gtidText(given) === gtidText(gtid)) return null;
  const why = `the database here has ${gtidText(given)}, but its binlogs nothing of domain ${gtid.domain}; the archive ends with ${gtidText(gtid)}`;
  return { kind: 'missing', why };
}

function lag(gtid: Gtid, here: bigint, text: string): string {
  const count = gtid.sequence - here;
  const transactions = count === 1n ? 'transaction' : 'transactions';
  return `${count} ${transactions} behind in domain ${gtid.domain}: ${text} here, ${gtidText(gtid)} in the archive`;
}

const begunGtid = (state: GtidState) => (state as MariadbGtidState).begunGtid();
const mariadb = (state: GtidState) => state as MariadbGtidState;
const gtidIn = (search: Search | null) => (search?.kind === 'found' ? begunGtid(search.transaction) : null);

/** A server's first transaction in a domain that has this sequence number or a higher one. */
export async function firstAt({ index, lineage }: OwnLog, { domain, server, sequence }: Gtid): Promise<Gtid | null> {
  const search = await index.find(lineage, {
    isPast: (state) => (mariadb(state).serversOf(domain).get(server) ?? -1n) >= sequence,
    matches: (state) => {
      const begun = begunGtid(state);
      return begun.domain === domain && begun.server === server && begun.sequence >= sequence;
    },
  });
  return gtidIn(search);
}

/** The first transaction of a domain that has a higher sequence number than this. */
export async function nextOf({ index, lineage }: OwnLog, domain: number, sequence: bigint): Promise<Gtid | null> {
  const search = await index.find(lineage, {
    isPast: (state) => (mariadb(state).highestOf(domain) ?? -1n) > sequence,
    matches: (state) => begunGtid(state).domain === domain && begunGtid(state).sequence > sequence,
  });
  return gtidIn(search);
}

const firstOf = (own: OwnLog, domain: number) => nextOf(own, domain, -1n);

/** Whether all that an ID names is in this log, or was before it. */
export async function holds(own: OwnLog, id: string): Promise<boolean> {
  const states = await statesOf(own);
  if (!states || isPlace(id)) return false;
  const wanted = gtidStateFor(own.flavour, id);
  const { start, end } = states;
  if (!(wanted instanceof MariadbGtidState && start instanceof MariadbGtidState && end instanceof MariadbGtidState)) {
    return end.covers(wanted);
  }
  for (const gtid of wanted.last()) if (!(await holdsGtid(own, { start, end }, gtid))) return false;
  return true;
}

async function holdsGtid(own: OwnLog, { start, end }: Omit<MariadbStates, 'wanted'>, gtid: Gtid): Promise<boolean> {
  const { domain, server, sequence } = gtid;
  if (!end.lastOf(domain)) return unwrittenLack(own, gtid) === null;
  const last = end.serversOf(domain).get(server) ?? -1n;
  if (last === sequence || (start.serversOf(domain).get(server) ?? -1n) >= sequence) return true;
  return last > sequence && (await firstAt(own, gtid))?.sequence === sequence;
}

/** The log's states before its oldest file and at its end; null without a binlog. */
async function statesOf({ lineage, index }: OwnLog): Promise<{ start: GtidState; end: GtidState } | null> {
  const oldest = lineage.segments[0] && (await lineage.header(lineage.segments[0]));
  const end = await index.end(lineage);
  return oldest && end ? { start: oldest.start, end: end.state } : null;
}

/** MySQL has no order to contradict: what is not here may still come, but to a server that went its own way. */
function mysqlLack(wanted: GtidState, end: GtidState): Standing | null {
  if (end.covers(wanted)) return null;
  if (!(wanted instanceof MysqlGtidState) || !(end instanceof MysqlGtidState)) {
    return { kind: 'missing', why: `the IDs of the archive (${wanted.text()}) are of another kind than those here` };
  }
  const [lacking, surplus] = [wanted.without(end), end.without(wanted)];
  if (surplus.count === 0n) {
    return { kind: 'behind', why: `${lacking.count} transactions behind: ${lacking.text()} are not here yet` };
  }
  const why = `the log here has ${surplus.text()} which the archive has not, and lacks ${lacking.text()}`;
  return { kind: 'apart', why };
}

/** What a state has beyond an ID, in words. */
function uncovered(state: GtidState, id: GtidState): string {
  if (state instanceof MysqlGtidState && id instanceof MysqlGtidState) return state.without(id).text();
  const ranges = mariadb(state)
    .last()
    .map(({ domain }) => ({ domain, from: mariadb(id).highestOf(domain) ?? 0n, to: mariadb(state).highestOf(domain)! }))
    .filter(({ from, to }) => to > from);
  return ranges.map(({ domain, from, to }) => `transactions ${from + 1n} to ${to} of domain ${domain}`).join(', ');
}
