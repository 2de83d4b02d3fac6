import { randomUUID } from 'node:crypto';
import type { Command } from 'commander';
import { parseDuration, parseRate } from '../config/units.ts';
import type { Config } from '../config.ts';
import type { Overview } from '../coordination/coordination.ts';
import {
  type Change,
  CLASSES,
  type ClassName,
  changeText,
  inForce,
  isOver,
  momentText,
  nextTimeOfDay,
  type Override,
  place,
  type Request,
  type Situation,
} from '../core/limits.ts';
import { nearestHint } from '../core/nearest.ts';
import { ShipmateError, UsageError } from '../errors.ts';
import { hostZone } from '../host-zone.ts';
import { parseUntil } from '../restore/until.ts';
import { operator, withCoordination } from './coordination.ts';
import { addHelp } from './help.ts';
import { limitsText, standingText } from './limits-text.ts';
import { print, printable, printJson, viewOf } from './terminal.ts';

interface ClearOptions {
  node?: string;
  json?: boolean;
}

interface SetOptions {
  link?: string;
  shipping?: string;
  class?: string[];
  for?: string;
  until?: string;
  queue?: boolean;
  node?: string;
  json?: boolean;
}

export function defineLimits(command: Command): void {
  addHelp(command, {
    examples: [
      'shipmate limits',
      'shipmate limits set --link 1Gbit/s --until 06:00',
      'shipmate limits set --class slow=5MiB/s --for 2h --node db-2',
      'shipmate limits clear',
    ],
  });
  command.option('--json', 'print JSON').action(async ({ json = false }: { json?: boolean }) => show(command, json));
  const set = command
    .command('set')
    .description('changes what counts, on top of the config, until it is cleared or for a time')
    .option('--link <rate>', 'what may be sent at all, such as 40MiB/s or 1Gbit/s')
    .option('--shipping <share>', 'of it, for log shipping, such as 60%')
    .option('--class <name=rate>', 'for a class, such as slow=5MiB/s; may be repeated', gather)
    .option('--for <time>', 'for so long, such as 2h')
    .option('--until <time>', 'until then: 06:00, or 2026-11-22T06:00:00Z')
    .option('--queue', 'where it can not be honoured now, wait until it can')
    .option('--node <node>', 'for this node alone; by default for all');
  set.action(async () => change(set, set.optsWithGlobals<SetOptions>()));
  const clear = command
    .command('clear')
    .description('takes back what was changed: the config counts again')
    .option('--node <node>', 'only what was changed for this node alone');
  clear.action(async () => takeBack(clear, clear.optsWithGlobals<ClearOptions>()));
}

const gather = (value: string, before: string[] = []) => [...before, value];

async function show(command: Command, json: boolean): Promise<void> {
  await withCoordination(command, async (coordination, config) => {
    const [overrides, { twins }] = await Promise.all([coordination.limits.list(), coordination.overview()]);
    const nowMs = Date.now();
    const situation = situationOf(config, overrides, nowMs);
    const nodes = twins.map(({ node, bandwidth = null }) => ({ node, bandwidth }));
    const report = { ...situation, inForce: inForce(situation, nowMs), nodes };
    if (json) printJson(report);
    else print(limitsText(report, { nowMs, ...viewOf() }));
  });
}

/** What is over counts no more. */
const situationOf = (config: Config, overrides: readonly Override[], nowMs: number): Situation => ({
  limits: config.limits,
  overrides: overrides.filter((one) => !isOver(one, nowMs)).sort((a, b) => a.placedMs - b.placedMs),
  node: config.node,
  zone: hostZone(),
});

async function change(command: Command, options: SetOptions): Promise<void> {
  const nowMs = Date.now();
  const request = requestOf(options, nowMs);
  await withCoordination(command, async (coordination, config) => {
    const board = coordination.limits;
    const [all, { twins }] = await Promise.all([board.list(), coordination.overview()]);
    await board.remove(all.filter((one) => isOver(one, nowMs)).map(({ id }) => id));
    const situation = { ...situationOf(config, all, nowMs), node: request.node ?? config.node };
    const placed = place(situation, request, nowMs);
    if (!placed.fits && !(options.queue && placed.fromMs !== null)) throw refused(placed, { situation, nowMs });
    const fromMs = placed.fits ? nowMs : placed.fromMs!;
    const override: Override = {
      id: randomUUID(),
      ...(request.node !== undefined && { node: request.node }),
      change: request.change,
      fromMs,
      untilMs: request.forMs === null ? request.untilMs : fromMs + request.forMs,
      by: operator(),
      placedMs: nowMs,
    };
    await board.add(override);
    warnOfAbsent(request.node, twins);
    if (options.json) return printJson({ override, waitsFor: placed.fits ? null : placed.reason });
    const text = `${changeText(request.change)} ${standingText(override, { nowMs, zone: situation.zone })}`;
    print(
      placed.fits
        ? printable(`${text}; the daemons follow within seconds`)
        : printable(`${text}: until then it can't be honoured, for ${placed.reason}`),
    );
  });
}

/** It may be one that is down; more often it is a slip. */
function warnOfAbsent(node: string | undefined, twins: Overview['twins']): void {
  const alive = twins.map((twin) => twin.node);
  if (node === undefined || alive.includes(node)) return;
  const others = alive.length > 0 ? `; ${printable(nearestHint(node, alive))}` : '';
  process.stderr.write(`warning: no daemon of node ${node} is alive${others}\n`);
}

async function takeBack(command: Command, { node, json = false }: ClearOptions): Promise<void> {
  await withCoordination(command, async ({ limits: board }) => {
    const [zone, nowMs] = [hostZone(), Date.now()];
    const gone = (await board.list()).filter((one) => node === undefined || one.node === node);
    await board.remove(gone.map(({ id }) => id));
    const told = gone.filter((one) => !isOver(one, nowMs));
    if (json) return printJson({ cleared: told });
    for (const one of told)
      print(printable(`${changeText(one.change)} ${standingText(one, { nowMs, zone })}: taken back`));
    if (told.length === 0) print('nothing was changed: the config counts');
  });
}

/** Throws UsageError for what is no change, no rate or no time to come. */
export function requestOf(options: SetOptions, nowMs: number): Request {
  const { link, shipping, class: classes = [], node } = options;
  const change: Change = {
    ...(link !== undefined && { link: rateOf('--link', link) }),
    ...(shipping !== undefined && { shipping: shareOf(shipping) }),
    ...(classes.length > 0 && { classes: Object.fromEntries(classes.map(classRate)) }),
  };
  if (Object.keys(change).length === 0) {
    throw new UsageError('nothing is said to change', 'give --link, --shipping or --class; "limits clear" takes back');
  }
  if (options.for !== undefined && options.until !== undefined) {
    throw new UsageError('--for and --until say the same thing', 'give one of them');
  }
  return {
    change,
    ...(node !== undefined && { node }),
    forMs: options.for === undefined ? null : durationOf(options.for),
    untilMs: options.until === undefined ? null : momentOf(options.until, nowMs),
  };
}

function rateOf(option: string, text: string): number {
  const rate = parseRate(text);
  if (rate !== null && rate >= 1024) return rate;
  throw new UsageError(
    `${option}: ${text} is not a rate`,
    'a number and its unit, such as 40MiB/s or 1Gbit/s; at least 1KiB/s',
  );
}

function shareOf(text: string): number {
  const percent = /^\d{1,3}%$/.test(text) ? Number.parseInt(text, 10) : 101;
  if (percent <= 100) return percent / 100;
  throw new UsageError(`--shipping: ${text} is not a share of the link`, 'from 0% to 100%, such as 60%');
}

function classRate(text: string): [ClassName, number] {
  const [name = '', rate] = text.split('=');
  const known = CLASSES.find((one) => one === name);
  if (known === undefined) throw new UsageError(`--class: there is no class "${name}"`, nearestHint(name, CLASSES));
  if (rate === undefined) throw new UsageError(`--class: ${name} has no rate`, `such as ${name}=5MiB/s`);
  return [known, rateOf('--class', rate)];
}

function durationOf(text: string): number {
  const ms = parseDuration(text);
  if (ms !== null && ms > 0) return ms;
  throw new UsageError(`--for: ${text} is not a time`, 'a number and its unit, such as 90m, 2h or 1d');
}

function momentOf(text: string, nowMs: number): number {
  if (/^([01]\d|2[0-3]):[0-5]\d$/.test(text)) return nextTimeOfDay(text, nowMs, hostZone());
  const wrong = () => new UsageError(`--until: ${text} is not a time`, 'such as 06:00, or 2026-11-22T06:00:00Z');
  const parseId = () => {
    throw wrong();
  };
  const until = parseUntil(text, { parseId });
  if (until.kind !== 'time') throw wrong();
  if (until.ms > nowMs) return until.ms;
  throw new UsageError(`--until: ${text} is over`, 'give a time to come');
}

type Refusal = Extract<ReturnType<typeof place>, { fits: false }>;

function refused(
  { reason, atMs, fromMs }: Refusal,
  { situation: { zone }, nowMs }: { situation: Situation; nowMs: number },
): ShipmateError {
  const when = atMs <= nowMs ? '' : `at ${momentText(atMs, zone)} `;
  return new ShipmateError(`this can't be honoured: ${when}${reason}`, {
    code: 'LIMITS_REFUSED',
    hint:
      fromMs === null
        ? 'nothing that is known makes room for it: ask for less, for a shorter time, or lower something else with it'
        : `it could be honoured from ${momentText(fromMs, zone)} on: with --queue it waits until then`,
  });
}
