import { lagText, secondsText } from '../core/format.ts';
import type { StatusReport, StreamStatus, TwinStatus } from '../core/status.ts';

/** What an operator should know first, and of which streams: `orders, billing: no daemon leads it`. */
export interface Attention {
  readonly level: 'warning' | 'error';
  /** None: it is about the cluster. */
  readonly streams: readonly string[];
  readonly what: string;
}

type Trouble = Omit<Attention, 'streams'>;

/** A log that is older has stopped moving, or the link is too slow for it. */
const LATE_SECONDS = 60;

/** Errors first; what is so of several streams once. `isSolo`: there is no twin to miss. */
export function attentionTo({ streams }: StatusReport, { isSolo }: { readonly isSolo: boolean }): Attention[] {
  const isAnyAlive = streams.some(({ twins }) => twins.length > 0);
  if (!isAnyAlive)
    return [{ level: 'error', streams: [], what: 'no daemon of this cluster is alive: nothing is shipped' }];
  const found = new Map<string, Trouble & { readonly streams: string[] }>();
  for (const stream of streams) {
    for (const trouble of [...troublesOf(stream, isSolo), ...copyTroubles(stream)]) {
      const known = found.get(trouble.what);
      if (known) known.streams.push(stream.name);
      else found.set(trouble.what, { ...trouble, streams: [stream.name] });
    }
  }
  return [...found.values()].sort((a, b) => Number(a.level === 'warning') - Number(b.level === 'warning'));
}

function troublesOf({ twins, master, ...lag }: StreamStatus, isSolo: boolean): Trouble[] {
  if (twins.length === 0) return [error('no daemon that is alive ships it')];
  const isLate = lag.lagSeconds !== null && lag.lagSeconds >= LATE_SECONDS;
  return [
    ...(master === null ? [error('nobody leads it: nothing is shipped')] : []),
    ...twins.flatMap(twinTroubles),
    ...(twins.length === 1 && !isSolo ? [warning(`only ${twins[0]!.node} is there: nobody could take over`)] : []),
    ...(isLate ? [warning(`the archive is ${lagText(lag)} behind the log`)] : []),
  ];
}

function twinTroubles({ node, role, ready, reason }: TwinStatus): Trouble[] {
  const ofMaster = `${role}; `; // what does not work stands behind it
  if (ready) return reason.startsWith(ofMaster) ? [warning(`${node} leads, but ${reason.slice(ofMaster.length)}`)] : [];
  if (role === 'starting') return [warning(`${node} has not begun${reason === role ? '' : `: ${reason}`}`)];
  return [
    { level: /^(gap|fork)\b/.test(reason) ? 'error' : 'warning', what: `${node} could not take over: ${reason}` },
  ];
}

function copyTroubles({ stores }: StreamStatus): Trouble[] {
  return stores.slice(1).flatMap(({ name, state, lagSeconds, reason }) => {
    if (state === 'failing') return [error(`its copy in ${name} fails: ${reason ?? 'no reason is known'}`)];
    if (state === 'diverged') return [error(`its copy in ${name} has diverged, and is left alone: ${reason ?? ''}`)];
    const isLate = lagSeconds !== null && lagSeconds >= LATE_SECONDS;
    return isLate ? [warning(`its copy in ${name} is ${secondsText(lagSeconds)} late`)] : [];
  });
}

const error = (what: string): Trouble => ({ level: 'error', what });
const warning = (what: string): Trouble => ({ level: 'warning', what });
