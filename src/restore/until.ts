import { UsageError } from '../errors.ts';
import type { LogFormat, Until } from '../source/source.ts';

/** No log's ID begins so. */
const LIKE_TIME = /^\d{4}-\d\d-\d\d[Tt ]/;
const TIME = /^(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)?$/;

/** What `--until` says: `latest`, a time as RFC 3339 has it, or one of the log's IDs. Throws UsageError. */
export function parseUntil(text: string, format: Pick<LogFormat, 'parseId'>): Until {
  if (text === 'latest') return { kind: 'latest' };
  const time = TIME.exec(text);
  if (time === null && LIKE_TIME.test(text)) throw noTime(text);
  if (time === null) return { kind: 'id', id: format.parseId(text) };
  const [, date = '', clock = '', fraction = '', zone] = time;
  if (zone === undefined) {
    throw new UsageError(`the time ${text} has no zone`, `write ${date}T${clock}Z for UTC, or ${date}T${clock}+02:00`);
  }
  const ms = Date.parse(`${date}T${clock}${fraction}${zone}`);
  if (Number.isNaN(ms) || !isOfCalendar(date)) throw noTime(text);
  return { kind: 'time', ms };
}

const noTime = (text: string) =>
  new UsageError(`${text} is not a time`, 'write it like 2026-11-22T13:05:00Z, or 2026-11-22T15:05:00+02:00');

/** The parser takes 31 February for 3 March. */
const isOfCalendar = (date: string) => new Date(`${date}T00:00:00Z`).toISOString().startsWith(date);

/** The same in text, for people and for telling one restore from another. */
export function untilText(until: Until): string {
  if (until.kind === 'latest') return 'latest';
  return until.kind === 'id' ? until.id : timeText(until.ms);
}

/** RFC 3339 in UTC, without a fraction where there is none. */
export const timeText = (ms: number) => new Date(ms).toISOString().replace('.000Z', 'Z');
