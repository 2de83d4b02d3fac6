import { answerOf, pause, within } from '../archive/retry.ts';
import { newClaim, openTerm, sealOpenTerm } from '../archive/takeover.ts';
import type { Archive, OnObject } from '../archive/walk.ts';
import type { BlockPool } from '../codec/blocks.ts';
import type { Encoder } from '../codec/encoder.ts';
import type { Coordination, Leadership, Role } from '../coordination/coordination.ts';
import { backoffMs } from '../core/backoff.ts';
import type { ChainEnd } from '../core/chain.ts';
import type { Chunk } from '../core/header.ts';
import type { Log } from '../core/log.ts';
import { Deposed, Discontinuity, messageOf, ShipmateError } from '../errors.ts';
import type { StreamMetrics } from '../metrics.ts';
import type { Located, LogSource } from '../source/source.ts';
import type { Acknowledgement } from './acknowledge.ts';
import { cursorOf } from './cursor.ts';
import { type Desk, HandedOver } from './desk.ts';
import type { Readiness } from './readiness.ts';
import { Term } from './term.ts';
import type { Trouble } from './trouble.ts';

export interface RoleContext {
  readonly node: string;
  readonly archive: Archive;
  /** The same, for chunks: these may have to wait for bandwidth. */
  readonly uploads: Archive;
  readonly source: LogSource;
  readonly coordination: Coordination;
  readonly readiness: Readiness;
  readonly desk: Desk;
  readonly trouble: Trouble;
  readonly metrics: StreamMetrics;
  readonly log: Log;
  readonly chunk: { readonly maxBytes: number; readonly maxDelayMs: number };
  readonly pool: BlockPool;
  readonly encoder: Encoder;
  /** The claim that owns term 1, where this daemon has just created the archive: for its first campaign. */
  readonly firstClaim: string | null;
  readonly enter: (role: Role) => void;
  /** Told of each object that is new in the archive. */
  readonly onObject: OnObject;
  /** Told of each term before it runs. */
  readonly onTerm: (term: Term) => void;
  /** Which stores must hold what the source is acknowledged. */
  readonly acknowledgement: Acknowledgement;
  readonly onSettled: (end: ChainEnd, chunk?: Chunk) => void;
}

/** How long leaving may take to save the settled cursor: the lease is never held for a slow link. */
const LEAVE_MS = 1_000;
/** A round that lasted so long did not fail at once: the next campaign need not wait longer than the first. */
const STEADY_MS = 30_000;

/**
 * The life of one twin in one stream: standby, taking over, master, leaving, and again, until the signal aborts (then it
 * returns, having left in order) or an error proves that going on is wrong (thrown).
 */
export async function keepRole(context: RoleContext, signal: AbortSignal): Promise<void> {
  let claim = context.firstClaim ?? newClaim();
  let failures = 0;
  while (!signal.aborted) {
    const sinceMs = performance.now();
    try {
      context.enter('standby');
      const leadership = await campaign(context, signal);
      try {
        await reign(context, { leadership, claim, signal });
      } catch (error) {
        if (error instanceof Deposed) tellDeposed(context, error);
        throw error;
      } finally {
        context.desk.onHandover(null);
        context.enter('leaving');
        await leadership.resign();
      }
    } catch (error) {
      if (signal.aborted) break;
      failures = performance.now() - sinceMs > STEADY_MS ? 0 : failures + 1;
      await comeBack(context, error, failures, signal);
    }
    claim = newClaim();
  }
}

/** Waits until this twin could take over, and is elected; steps out of the queue as soon as it no longer could. */
async function campaign({ coordination, archive, readiness }: RoleContext, signal: AbortSignal): Promise<Leadership> {
  const standby = new AbortController();
  const stop = () => standby.abort(signal.reason);
  signal.addEventListener('abort', stop, { once: true });
  readiness.forget();
  const following = readiness.follow(standby.signal);
  following.catch(() => {});
  try {
    for (;;) {
      signal.throwIfAborted();
      await readiness.until(true, signal);
      const queue = new AbortController();
      const queueing = AbortSignal.any([queue.signal, signal]);
      const elected = coordination.elector(archive.info.stream).campaign(queueing);
      const unready = readiness.until(false, queueing);
      let won: Leadership | null = null;
      try {
        won = (await Promise.race([elected, unready])) ?? null;
        if (won) return won;
      } finally {
        unready.catch(() => {});
        queue.abort(new Error('left the queue'));
        // Elected in the very moment of stepping out: hand it on.
        if (!won) await elected.then((late) => late.resign()).catch(() => {});
      }
    }
  } finally {
    signal.removeEventListener('abort', stop);
    standby.abort(new Error('no longer standby'));
    await Promise.allSettled([following]);
  }
}

interface Reign {
  readonly leadership: Leadership;
  readonly claim: string;
  readonly signal: AbortSignal;
}

/** One election's reign: take over, ship, and open a further term wherever the log does not go on (protocol rule 8). */
async function reign(context: RoleContext, { leadership, claim: firstClaim, signal }: Reign): Promise<never> {
  const { archive, coordination, readiness, desk, trouble, metrics, log, onObject } = context;
  const handover = new AbortController();
  desk.onHandover((reason) => handover.abort(reason)); // also where it can't open a term: its store may be away for it alone
  const reigning = AbortSignal.any([signal, leadership.signal, handover.signal]);
  const retries = { signal: reigning, onFailure: trouble.reporter('store') };
  const patience = { signal: reigning, onSlow: trouble.reporter('archive') };
  context.enter('taking-over');
  const seen = await answerOf(readiness.refresh(), patience);
  demandAllowed(context, seen.end, seen.located); // or else an owner that etcd does not reach is deposed for nothing
  let { end } = seen;
  let brokenOff = 0;
  for (let claim = firstClaim; ; claim = newClaim()) {
    const writer = { claim, node: context.node, now: () => new Date() };
    end = await sealOpenTerm(archive, end, writer, { ...retries, onObject });
    const located = demandAllowed(context, end, await answerOf(readiness.locate(end), patience));
    end = await openTerm(archive, end, writer, located, retries);
    for (const part of ['store', 'archive', 'readiness'] as const) trouble.clear(part);
    readiness.moveTo(end);
    metrics.tookOver(located.result);
    log.info(`master of term ${end.term}: ${located.result}`, { reason: located.reason, position: end.position });
    const term = new Term(end, {
      ...context,
      archive: context.uploads,
      cursors: coordination.cursors,
      leadership,
      writer,
      nowMs: () => performance.now(),
    });
    context.onTerm(term);
    context.onSettled(end);
    context.enter('master');
    await desk.opened(`term ${end.term} was opened: ${located.result}`);
    const ending: unknown = await term.run(reigning).catch((error: unknown) => error);
    end = term.end;
    readiness.moveTo(end);
    if (ending instanceof Deposed) throw ending; // the successor's cursor is newer than ours
    await saveOnLeaving(context, end, leadership);
    if (!(ending instanceof Discontinuity)) throw ending;
    log.warn(`the log does not go on: ${ending.message}`, { hint: ending.hint });
    context.enter('taking-over');
    brokenOff = end.slot > 1 ? 0 : brokenOff + 1;
    if (brokenOff === 0) continue;
    trouble.report('source', ending);
    await pause(backoffMs(brokenOff), reigning); // a term costs two objects, also one that ships nothing
  }
}

/** Whether this twin may go on there, alone or because an operator accepted it: then that is written down with it. */
function demandAllowed({ desk, archive }: RoleContext, end: ChainEnd, located: Located): Located {
  if (located.allowed) return located;
  if (desk.accepts(located, end)) return { ...located, evidence: { ...located.evidence, accepted: desk.acceptance } };
  throw new ShipmateError(`stream ${archive.info.stream}: ${located.result}: ${located.reason}`, {
    code: `SOURCE_${located.result.toUpperCase()}`,
    verdict: 'retry',
  });
}

/** The settled cursor spares the successor a walk; it is a hint, so failing to save it is no failure. */
async function saveOnLeaving(context: RoleContext, end: ChainEnd, leadership: Leadership): Promise<void> {
  const { coordination, log, acknowledgement } = context;
  if (leadership.signal.aborted) return;
  try {
    await within(LEAVE_MS, coordination.cursors.save(cursorOf(end, acknowledgement), leadership));
  } catch (error) {
    log.info(`left without saving the last cursor: ${messageOf(error)}`);
  }
}

/** After a reign has ended: what that means, and how long to wait before the next campaign. */
async function comeBack(context: RoleContext, error: unknown, failures: number, signal: AbortSignal): Promise<void> {
  const { desk, trouble, log, coordination, archive } = context;
  if (error instanceof HandedOver) {
    log.info('handed over on request');
    await desk.answer(error.pending, true, `${context.node} has resigned`);
    return;
  }
  if (!(error instanceof Deposed)) trouble.report('archive', error);
  else if (coordination.kind === 'solo') throw soloDeposed(archive.info.stream, error);
  await pause(backoffMs(failures), signal).catch(() => {});
}

/** Told at once: resigning may take a while where etcd is not reached. */
function tellDeposed({ metrics, log }: RoleContext, error: Deposed): void {
  metrics.deposed();
  log.warn(`deposed: ${error.message}`);
}

function soloDeposed(stream: string, cause: Deposed): ShipmateError {
  return new ShipmateError(`stream ${stream}: another daemon has taken over the archive: ${cause.message}`, {
    code: 'SOLO_DEPOSED',
    hint: 'two daemons run in solo mode on one archive: stop one of them, or give both the same etcd',
    cause,
  });
}
