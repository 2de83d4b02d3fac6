import { createHash } from 'node:crypto';
import { ShipmateError } from '../../errors.ts';
import { parseLsn } from './lsn.ts';

/** A timeline that another one descends from. */
export interface Ancestor {
  readonly timeline: number;
  /** Where its child left it: nothing of it from there on belongs to the child. */
  readonly switchLsn: bigint;
  /** For people: `no recovery target specified`. */
  readonly reason: string;
}

const LINE = /^\s*(\d{1,10})\s+([0-9A-F]{1,8}\/[0-9A-F]{1,8})(?:\s+(.*))?$/i;

/** A history file's lines: the timeline's ancestors, oldest first. Throws BAD_HISTORY. */
export function parseHistory(bytes: Uint8Array): Ancestor[] {
  const ancestors: Ancestor[] = [];
  for (const line of Buffer.from(bytes).toString('utf8').split('\n')) {
    if (/^\s*(#|$)/.test(line)) continue;
    const [, timeline, switchLsn, reason = ''] = LINE.exec(line) ?? [];
    const before = ancestors.at(-1)?.timeline ?? 0;
    if (timeline === undefined || switchLsn === undefined || Number(timeline) <= before) throw badHistory(line);
    ancestors.push({ timeline: Number(timeline), switchLsn: parseLsn(switchLsn), reason: reason.trim() });
  }
  return ancestors;
}

const badHistory = (line: string) =>
  new ShipmateError(`${JSON.stringify(line)} is no line of a timeline history file`, {
    code: 'BAD_HISTORY',
    hint: 'the server writes these files itself: look what else wrote to pg_wal',
  });

const FIRST_TIMELINE = '1';

/** Which life of its number a timeline is: two isolated promotions take the same one, but not to the same history. */
export function incarnationOf(timeline: number, history: Uint8Array | null): string {
  if (timeline === 1) return FIRST_TIMELINE;
  if (history === null) throw noHistory(timeline);
  return createHash('sha256').update(history).digest('hex').slice(0, 16);
}

const noHistory = (timeline: number) =>
  new ShipmateError(`timeline ${timeline} has no history file`, {
    code: 'NO_HISTORY',
    hint: 'it should lie in pg_wal: take it from another server of the cluster, or from its archive',
  });
