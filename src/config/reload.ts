import { isDeepStrictEqual } from 'node:util';
import type { Config, StreamConfig } from '../config.ts';
import type { Problem } from './problems.ts';

/** What a daemon is, as its twins, its own state and its callers know it: that can't change under them. */
const FIXED = ['node', 'cluster', 'stateDir', 'coordination', 'onEtcdLoss', 'admin'] as const;

/** What the next config changes that a running daemon can't. */
export function fixedProblems(running: Config, next: Config): Problem[] {
  return FIXED.filter((key) => !isDeepStrictEqual(running[key], next[key])).map((key) => ({
    path: [key],
    message: "can't change while the daemon runs",
    hint: 'put it back, or restart the daemon; nothing of this file is in force',
  }));
}

/** Names of streams. */
export interface StreamChanges {
  readonly added: readonly string[];
  readonly removed: readonly string[];
  /** To be left and started again; the others go on as they are. */
  readonly changed: readonly string[];
}

export function streamChanges(running: Config, next: Config): StreamChanges {
  const names = Object.keys(next.streams);
  return {
    added: names.filter((name) => !Object.hasOwn(running.streams, name)),
    removed: Object.keys(running.streams).filter((name) => !Object.hasOwn(next.streams, name)),
    changed: names.filter((name) => {
      const before = running.streams[name];
      return before && !isDeepStrictEqual(usedOf(running, before), usedOf(next, next.streams[name]!));
    }),
  };
}

/** All that a running stream has from its config: what is kept is the business of `prune`. */
function usedOf({ stores }: Config, { keep: _, ...stream }: StreamConfig): object {
  const { primary, copies } = stream.plan;
  return { stream, stores: [primary, ...copies].map((name) => stores[name]) };
}
