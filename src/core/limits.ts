import type { Rates } from './bandwidth.ts';
import { bytesText } from './format.ts';

/** Bandwidth classes of what is sent beside the log. */
export const CLASSES = ['slow', 'standard', 'fast'] as const;
export type ClassName = (typeof CLASSES)[number];

/** Who has how much, bytes a second. */
export interface Reservation {
  readonly link: number;
  /** Of the link, from 0 to 1. */
  readonly shipping: number;
  readonly classes: Readonly<Partial<Record<ClassName, number>>>;
}

/** What becomes different; the rest stays as it is, class by class. */
export type Change = Partial<Reservation>;

/** As the config has them; the first entry of the schedule that fits the time of day counts. */
export interface Limits extends Reservation {
  readonly schedule: readonly ScheduleEntry[];
}

/** `HH:MM`, up to but not including `to`; over midnight where that is earlier. */
export interface ScheduleEntry extends Change {
  readonly from: string;
  readonly to: string;
}

/** What an operator changed for a time. */
export interface Override {
  readonly id: string;
  /** For this node alone; absent: for all. */
  readonly node?: string;
  readonly change: Change;
  /** Milliseconds since 1970. */
  readonly fromMs: number;
  /** Null: until it is taken back. */
  readonly untilMs: number | null;
  readonly by: string;
  /** When it was placed, milliseconds since 1970: of several the later ones count. */
  readonly placedMs: number;
}

/** All that limits on one node depend on beside the time. */
export interface Situation {
  /** The config's. */
  readonly limits: Limits | null;
  readonly overrides: readonly Override[];
  readonly node: string;
  /** Time zone of the host, `Europe/Berlin`; undefined: as its clock has it. */
  readonly zone: string | undefined;
}

export interface InForce {
  /** Null: nothing is limited. */
  readonly reservation: Reservation | null;
  /** Overrides that can't be honoured at this time, and so have no effect. */
  readonly refused: readonly { readonly id: string; readonly reason: string }[];
}

/** Of the log, where limits are made from nothing. */
const SHIPPING = 0.5;
const MINUTE_MS = 60_000;
const DAY_MINUTES = 1_440;
/** The longest day, when clocks are set back. */
const DAY_MS = 25 * 60 * MINUTE_MS;
/** How far ahead overrides are looked at. */
const HORIZON_MS = 31 * DAY_MS;

/** What counts on a node at a time, milliseconds since 1970: the config's schedule, then each override on top. */
export function inForce(situation: Situation, atMs: number): InForce {
  const { limits, overrides, node, zone } = situation;
  let reservation = limits && scheduled(limits, minuteOfDay(atMs, zone));
  const refused: { id: string; reason: string }[] = [];
  const standing = overrides.filter((one) => (one.node ?? node) === node && one.fromMs <= atMs && !isOver(one, atMs));
  for (const { id, change } of standing.toSorted((a, b) => a.placedMs - b.placedMs)) {
    const next = changed(reservation, change);
    const reason = next === null ? 'the link is not known: the config has no limits' : excess(next);
    if (reason === null) reservation = next;
    else refused.push({ id, reason });
  }
  return { reservation, refused };
}

export const isOver = ({ untilMs }: Override, atMs: number) => untilMs !== null && untilMs <= atMs;

export function ratesOf({ link, shipping, classes }: Reservation): Rates {
  return { link, guaranteed: { shipping: Math.floor(link * shipping), ...classes } };
}

/** Why this can't be honoured: what is guaranteed beyond the link. Null where it fits. */
export function excess(reservation: Reservation): string | null {
  const { link, guaranteed } = ratesOf(reservation);
  const sum = Object.values(guaranteed).reduce((all, rate) => all + rate, 0);
  if (sum <= link) return null;
  const parts = Object.entries(guaranteed).map(([name, rate]) => `${name} ${rateText(rate)}`);
  return `${parts.join(', ')} are guaranteed together ${rateText(sum)}, more than the link's ${rateText(link)}`;
}

export interface Request {
  readonly change: Change;
  readonly node?: string;
  /** How long it shall stand from when it comes into force; null: see `untilMs`. */
  readonly forMs: number | null;
  /** Up to when; null, and `forMs` too: until it is taken back. */
  readonly untilMs: number | null;
}

export type Placed =
  | { readonly fits: true; readonly untilMs: number | null }
  | {
      readonly fits: false;
      readonly reason: string;
      /** When it would be in the way of what is guaranteed; now, or later in the time that was asked for. */
      readonly atMs: number;
      /** From when it could be honoured for all of the time; null: never, as far as is known. */
      readonly fromMs: number | null;
    };

/** Whether a request can be honoured from now on for all of its time, and otherwise why not, and from when. */
export function place(situation: Situation, request: Request, nowMs: number): Placed {
  const trouble = firstTrouble(situation, request, nowMs);
  if (trouble === null) return { fits: true, untilMs: endOf(request, nowMs) };
  const lastMs = Math.min(request.untilMs ?? Number.POSITIVE_INFINITY, steadyFrom(situation, nowMs) + DAY_MS);
  let standsMs = trouble.atMs;
  while (standsMs < lastMs) {
    const fromMs = nextMinute(standsMs);
    const next = firstTrouble(situation, request, fromMs);
    if (next === null && fromMs < lastMs) return { fits: false, ...trouble, fromMs };
    standsMs = next?.atMs ?? lastMs;
  }
  return { fits: false, ...trouble, fromMs: null };
}

/** The first minute, of the time that the request would stand from `fromMs` on, at which it can't be honoured. */
function firstTrouble(situation: Situation, request: Request, fromMs: number): { atMs: number; reason: string } | null {
  const id = 'request';
  const untilMs = endOf(request, fromMs);
  const asked: Override = { id, change: request.change, fromMs, untilMs, by: '', placedMs: Number.POSITIVE_INFINITY };
  const overrides = [...situation.overrides, asked];
  // After all that is known has ended, each day is like the next.
  const lastMs = Math.min(
    untilMs ?? Number.POSITIVE_INFINITY,
    Math.max(steadyFrom(situation, fromMs), fromMs) + DAY_MS,
  );
  for (let atMs = fromMs; atMs < lastMs; atMs = nextMinute(atMs)) {
    const refusal = inForce({ ...situation, overrides }, atMs).refused.find((one) => one.id === id);
    if (refusal) return { atMs, reason: refusal.reason };
  }
  return null;
}

const endOf = ({ forMs, untilMs }: Request, fromMs: number) => (forMs === null ? untilMs : fromMs + forMs);

/** When no override begins or ends any more. */
function steadyFrom({ overrides }: Situation, nowMs: number): number {
  const bounds = overrides.flatMap(({ fromMs, untilMs }) => [fromMs, untilMs ?? fromMs]);
  return Math.min(nowMs + HORIZON_MS, Math.max(nowMs, ...bounds));
}

const nextMinute = (atMs: number) => (Math.floor(atMs / MINUTE_MS) + 1) * MINUTE_MS;

/** When a clock on the wall shows `HH:MM` next; what the change to summer time leaves out, a day later. */
export function nextTimeOfDay(text: string, nowMs: number, zone: string | undefined): number {
  let atMs = nextMinute(nowMs);
  while (minuteOfDay(atMs, zone) !== minutesOf(text)) atMs = nextMinute(atMs);
  return atMs;
}

function scheduled({ schedule, ...base }: Limits, minute: number): Reservation {
  const entry = schedule.find(({ from, to }) => {
    const sinceFrom = (minute - minutesOf(from) + DAY_MINUTES) % DAY_MINUTES;
    return sinceFrom < (minutesOf(to) - minutesOf(from) + DAY_MINUTES) % DAY_MINUTES;
  });
  return entry ? merged(base, entry) : base;
}

function changed(base: Reservation | null, change: Change): Reservation | null {
  if (base !== null) return merged(base, change);
  return change.link === undefined ? null : merged({ link: change.link, shipping: SHIPPING, classes: {} }, change);
}

function merged(base: Reservation, { link, shipping, classes }: Change): Reservation {
  return {
    link: link ?? base.link,
    shipping: shipping ?? base.shipping,
    classes: { ...base.classes, ...classes },
  };
}

function minutesOf(text: string): number {
  const [hours, minutes] = text.split(':').map(Number);
  return hours! * 60 + minutes!;
}

const clocks = new Map<string | undefined, Intl.DateTimeFormat>();

/** Of the clock on the wall: so that a schedule means the same in summer and in winter. */
function minuteOfDay(atMs: number, zone: string | undefined): number {
  let clock = clocks.get(zone);
  if (!clock) {
    clock = new Intl.DateTimeFormat('en-GB', { timeZone: zone, hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
    clocks.set(zone, clock);
  }
  return minutesOf(clock.format(atMs));
}

/** For people: `40 MiB/s`. */
export const rateText = (bytesPerSecond: number) => `${bytesText(bytesPerSecond)}/s`;

/** For people: `link 40 MiB/s, shipping 50%, slow 5.0 MiB/s` */
export function changeText({ link, shipping, classes = {} }: Change): string {
  return [
    ...(link === undefined ? [] : [`link ${rateText(link)}`]),
    ...(shipping === undefined ? [] : [`shipping ${Math.round(shipping * 100)}%`]),
    ...Object.entries(classes).map(([name, rate]) => `${name} ${rateText(rate)}`),
  ].join(', ');
}

/** For people: `2026-11-22 22:00 (Europe/Berlin)`. */
export function momentText(atMs: number, zone: string | undefined): string {
  const text = new Intl.DateTimeFormat('sv-SE', { timeZone: zone, dateStyle: 'short', timeStyle: 'short' }).format(
    atMs,
  );
  return `${text} (${zone ?? 'local time'})`;
}
