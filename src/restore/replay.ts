import { join } from 'node:path';
import { ShipmateError } from '../errors.ts';
import type { LogFormat, ReplayRun, ReplayTarget } from '../source/source.ts';
import type { ChunkReader } from './chunks.ts';
import { demandHas, fileBytes, type PlannedRun, type RestorePlan } from './plan.ts';
import type { Progress } from './progress.ts';

export interface ReplayOptions {
  readonly chunks: ChunkReader;
  readonly format: LogFormat;
  /** Where the plan was restored to. */
  readonly directory: string;
  readonly target: ReplayTarget;
  readonly progress: Progress;
}

/** What applies the restored files by hand, in this order; empty where the format knows no way. */
export function replayCommands(
  { runs }: RestorePlan,
  { format, directory, target }: Pick<ReplayOptions, 'format' | 'directory' | 'target'>,
): string[] {
  const { replay } = format;
  if (replay === undefined) return [];
  return runs.map((run) => replay.command(filesOf(run, directory, run.before), target));
}

/**
 * Applies the restored files to a server: each transaction of the plan that it does not have, once, in the log's order.
 * Stops at the first error; what was applied by then the server's own log tells, and the same call goes on there. Refuses
 * a server that has what the log lacks, or lacks what comes before it.
 */
export async function replay(plan: RestorePlan, options: ReplayOptions): Promise<void> {
  const { format, directory, target, progress } = options;
  const program = format.replay;
  if (program === undefined || plan.runs.length === 0) throw cannotReplay(plan.stream);
  const anew = plan.runs.slice(1).find((run) => run.anew);
  if (anew !== undefined) throw beginsAnew(plan.stream, anew.directory);
  const applied = await demandFits(plan, options);

  const union = (a: string, b: string) => format.union?.(a, b) ?? (b || a);
  const left = plan.runs.filter(({ end }) => !format.covers?.(applied, end));
  progress.stage('replaying', { unit: 'bytes', total: left.reduce((sum, { bytes }) => sum + bytes, 0) });
  try {
    for (const run of left) {
      const files = filesOf(run, directory, union(run.before, applied));
      await program.apply(files, target, (bytes) => progress.advance(bytes));
    }
  } finally {
    progress.end();
  }
  const { log } = await program.applied(target);
  const { end } = plan.runs.at(-1)!;
  if (!format.covers?.(union(applied, log), end)) throw notLogged(log, end);
}

function filesOf(run: PlannedRun, directory: string, after: string): ReplayRun {
  const files = run.segments.map((segment) => ({ name: segment.name, bytes: fileBytes(segment) }));
  return { directory: join(directory, run.directory), files, after };
}

/** What the server has of the log. Throws where that is not a part of it, from its start on. */
async function demandFits(plan: RestorePlan, options: ReplayOptions): Promise<string> {
  const { format, target } = options;
  const covers = (a: string, b: string) => format.covers?.(a, b) ?? false;
  const { log, replicated } = await format.replay!.applied(target);
  const applied = format.union?.(plan.from ?? '', log) ?? log;
  if (!covers(applied, replicated)) throw unclearStart(replicated, plan.from, applied);
  const [start, end] = [plan.runs[0]!.before, plan.runs.at(-1)!.end];
  if (!covers(applied, start)) throw beforeArchive(applied, start);
  if (!covers(end, applied)) throw hasMore(applied, end);
  if (applied !== start) {
    const runs = plan.runs.map((run) => ({ run: { ...run, afterGap: false, until: null }, before: run.before }));
    await demandHas(runs, applied, options);
  }
  return applied;
}

function refused(message: string, hint: string): ShipmateError {
  return new ShipmateError(message, { code: 'REPLAY_REFUSED', hint });
}

const cannotReplay = (stream: string) =>
  refused(`stream ${stream}: there is nothing that could be replayed`, 'see docs/restore.md');

const beginsAnew = (stream: string, directory: string) =>
  refused(
    `stream ${stream} began anew (RESET MASTER) with ${directory}: IDs no longer tell what a server has`,
    'replay the directories by hand with the commands that restore prints, or start from a base backup taken later',
  );

const unclearStart = (replicated: string, from: string | null, applied: string) =>
  refused(
    `the server has replicated up to ${replicated} (gtid_slave_pos), which is more than ${applied || 'nothing'}, ` +
      `what its own log and ${from === null ? 'no --from' : '--from'} say`,
    'if a base backup with this position was restored there, give it as --from; else name another server',
  );

const beforeArchive = (applied: string, start: string) =>
  refused(
    `the server has ${applied || 'nothing'}, but the log in the archive begins after ${start}`,
    'restore a base backup there that was taken later, and give its position as --from',
  );

const hasMore = (applied: string, end: string) =>
  refused(
    `the server has transactions that what is restored lacks: it is at ${applied}, the log ends with ${end}`,
    'name another server; if its own log holds only the loading of a base backup, run RESET MASTER there, and give --from',
  );

const notLogged = (log: string, end: string) =>
  new ShipmateError(`everything was replayed, but the server's own log says ${log || 'nothing'} in place of ${end}`, {
    code: 'REPLAY_FAILED',
    hint: 'it may filter what it logs (binlog_do_db, sql_log_bin): compare its tables before you use it',
  });
