import { rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { LogFormat } from '../source/source.ts';
import type { PlannedRun, RestorePlan } from './plan.ts';
import { writeDurably } from './target.ts';

/** What stands beside the log's own files; paths are below the target directory. */
export interface Beside {
  readonly files: readonly { readonly path: string; readonly content: string }[];
  /** To the files of all runs, where the database looks for them in one directory. */
  readonly links: readonly { readonly path: string; readonly target: string }[];
  /** The one of the files that tells how to go on; null: there is none. */
  readonly guide: string | null;
}

/** `directory`: absolute. */
export function besideOf(plan: RestorePlan, format: LogFormat, directory: string): Beside {
  const { stream, until, isWhole, runs } = plan;
  const named = runs.map((run) => ({ ...run, segments: namesOf(run) }));
  const extras = named.flatMap((run) =>
    format.extras(run.segments).map(({ name, content }) => ({ path: join(run.directory, name), content })),
  );
  const guide = format.guide?.({ stream, directory, runs: named, until: isWhole ? { kind: 'latest' } : until });
  const linked = format.oneDirectory ? named.filter((run) => run.directory !== '') : [];
  return {
    files: guide ? [...extras, { path: guide.name, content: guide.content }] : extras,
    links: linked.flatMap((run) => run.segments.map((name) => ({ path: name, target: join(run.directory, name) }))),
    guide: guide?.name ?? null,
  };
}

const namesOf = ({ segments }: PlannedRun) => segments.map(({ name }) => name);

export async function writeBeside({ files, links }: Beside, directory: string): Promise<void> {
  for (const { path, content } of files) await writeDurably(join(directory, path), content);
  for (const { path, target } of links) {
    await rm(join(directory, path), { force: true });
    await symlink(target, join(directory, path));
  }
}
