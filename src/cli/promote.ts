import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { standingPromotion } from '../archive/generation.ts';
import { headOf } from '../archive/head.ts';
import { holdingOf, type PromoteOptions, promote } from '../archive/promote.ts';
import { within } from '../archive/retry.ts';
import { type Config, type StreamConfig, storeOf, streamOf } from '../config.ts';
import type { Coordination, Cursor, Overview, Promotion } from '../coordination/coordination.ts';
import { secondsText } from '../core/format.ts';
import { comparePlaces, placeText } from '../core/keys.ts';
import { type Position, positionText } from '../core/position.ts';
import { messageOf, ShipmateError, UsageError } from '../errors.ts';
import { createLog } from '../log.ts';
import { withCoordination } from './coordination.ts';
import { addHelp, STREAM } from './help.ts';
import { leftHanging } from './leave.ts';
import { type Candidate, choose, type Looked, type Present } from './promote-choice.ts';
import { confirm, print, printable, printJson, requireTerminal } from './terminal.ts';

/** A store that was named is worth waiting for; the others only tell whether it is the best. */
const NAMED_MS = 20_000;
const OTHERS_MS = 5_000;
const LOCATE_MS = 10_000;
const SEAL_MS = 60_000;
const FOLLOW_MS = 20_000;
const POLL_MS = 200;

interface Options {
  to?: string;
  yes?: boolean;
  json?: boolean;
}

export function definePromote(command: Command): void {
  addHelp(command, {
    notes: [
      'For when the primary store is lost. It is not touched, and may be dead or hang; etcd must answer. The daemons follow within seconds, and need no restart. What the copy lacks they ship again from the disks of their servers.',
    ],
    examples: ['shipmate promote orders', 'shipmate promote orders --to nas --yes'],
  });
  command
    .argument('<stream>', STREAM)
    .option(
      '--to <store>',
      "the copy that becomes the primary; by default the plan's, of several the one that goes furthest",
    )
    .option('--yes', 'do not ask')
    .option('--json', 'print JSON')
    .action(async (name: string, { to, yes = false, json = false }: Options) => {
      requireTerminal({ yes });
      await withCoordination(command, async (coordination, config) => {
        const stream = streamOf(config, name);
        if (to !== undefined) storeOf(config, to);
        const say = (line: string) => void (json ? process.stderr : process.stdout).write(`${printable(line)}\n`);
        const promotion = await promoteCopy({ config, stream, coordination, to, yes, say });
        if (json) printJson(promotion);
        else if (promotion.changed) print(`store ${promotion.to} is the primary of ${name} now`);
      });
    });
}

interface Request {
  readonly config: Config;
  readonly stream: StreamConfig;
  readonly coordination: Coordination;
  readonly to: string | undefined;
  readonly yes: boolean;
  readonly say: (line: string) => void;
}

interface Promoted {
  readonly stream: string;
  readonly from: string;
  readonly to: string;
  readonly generation: number;
  /** False: it was the primary already. */
  readonly changed: boolean;
  readonly archive: string | null;
  /** Up to where the log is in the promoted store; null where nothing was shipped there. */
  readonly end: Pick<Position, 'id' | 'segment' | 'offset'> | null;
  /** How this host's log goes on from there; null where that could not be found out. */
  readonly here: { readonly result: string; readonly reason: string } | null;
  /** Daemons that have followed so far. */
  readonly followed: readonly string[];
}

async function promoteCopy(request: Request): Promise<Promoted> {
  const { config, stream, coordination, to, yes, say } = request;
  const { memoriesOf } = await import('../wiring.ts');
  const overview = await coordination.overview();
  const [shared, local] = memoriesOf(config, coordination);
  // A state directory that this user can't read tells nothing; the daemon, which can, tells etcd.
  const standing = await standingPromotion(stream.name, [shared, local]).catch(() =>
    standingPromotion(stream.name, [shared, shared]),
  );
  const present = presentOf(request, overview, standing, (await shared.load(stream.name))?.id ?? null);
  const looked = present.isSettled ? [] : await lookAt(request, present);
  if (present.isSettled || isIntact(looked, present)) {
    say(
      `store ${present.store} is the primary of ${stream.name} already (generation ${present.generation})` +
        (to === undefined ? '; name another one with --to' : ''),
    );
    return { ...outcome(request, present, null), changed: false };
  }
  const chosen = choose(stream.name, looked, present, to);
  const here = await locateHere(request, chosen);
  for (const line of explain(stream, chosen, present, here)) say(line);
  for (const line of chosen.remarks) say(line);
  if (!(await confirm(`promote ${chosen.store} to primary of ${stream.name}?`, { yes }))) {
    throw failed(`the primary of stream ${stream.name} is still ${present.store}`, 'answer y, or give --yes, to go on');
  }
  const held = looked.flatMap((one) => (one.holding ? [one.holding.end.generation] : []));
  const generation = Math.max(present.generation, ...held) + 1;
  const promotion = await carryOut(chosen, { generation, node: config.node, shared });
  await local.raise(stream.name, promotion).catch(() => {}); // the daemon, which may write there, does so itself
  const followed = await following(request, promotion);
  warnOfConfig(request, promotion);
  return { ...outcome(request, { ...present, generation }, chosen, here), followed };
}

async function carryOut(
  { store, holding }: Candidate,
  by: Pick<PromoteOptions, 'generation' | 'node' | 'shared'>,
): Promise<Promotion> {
  const signal = AbortSignal.timeout(SEAL_MS);
  const onFailure = (error: unknown) => {
    process.stderr.write(`warning: store ${store}: ${messageOf(error)}; trying again\n`);
  };
  try {
    return (await promote({ ...holding, ...by, signal, onFailure })).promotion;
  } catch (error) {
    if (!signal.aborted) throw error;
    leftHanging();
    throw failed(
      `store ${store} could not be sealed within ${SEAL_MS / 1000} s`,
      'run it again, or promote another copy',
    );
  }
}

function outcome(
  { stream }: Request,
  present: Present,
  chosen: Candidate | null,
  here: Promoted['here'] = null,
): Promoted {
  const position = chosen?.holding.end.position ?? null;
  return {
    stream: stream.name,
    from: present.store,
    to: chosen?.store ?? present.store,
    generation: present.generation,
    changed: true,
    archive: chosen?.holding.archive.info.archive ?? present.archive,
    end: position && { id: position.id, segment: position.segment, offset: position.offset },
    here,
    followed: [],
  };
}

/** The primary that is to be replaced, as etcd and this host tell: it is not asked itself, since it may hang. */
function presentOf(
  { stream, to }: Request,
  { streams, twins }: Overview,
  standing: Promotion | null,
  archive: string | null,
): Present {
  const { primary } = stream.plan;
  const store = standing?.store ?? primary;
  const cursor = streams.find(({ name }) => name === stream.name)?.cursor ?? null;
  const told = twins.flatMap((twin) => twin.streams.filter(({ name }) => name === stream.name));
  const generation = Math.max(0, standing?.generation ?? 0, ...told.map((twin) => twin.generation ?? 0));
  // Said again after a promotion without a name it would promote the next copy: a script that tries twice.
  const isRemembered = standing !== null || archive !== null;
  const isSettled = to === undefined ? store !== primary : to === store && standing === null && isRemembered;
  return { store, archive, generation, cursor, isSettled };
}

/** Whether the store that was named was promoted already, and holds what it did then: an older state must be promoted anew. */
function isIntact(looked: readonly Looked[], { store, generation }: Present): boolean {
  const found = looked.find((one) => one.store === store)?.holding;
  return generation > 0 && found?.end.generation === generation;
}

async function lookAt({ config, stream, to }: Request, present: Present): Promise<Looked[]> {
  const { openStore } = await import('../wiring/stores.ts');
  const { plan } = stream;
  const others = plan.copies.filter((copy) => copy !== present.store);
  // Where nobody remembers anything, the highest generation is what the stores say, all of them.
  const forgotten = present.archive === null ? [plan.primary] : [];
  const names = [...new Set([...(to === undefined ? [] : [to]), ...others, ...forgotten])];
  if (names.length === 0) {
    throw new UsageError(
      `the plan of stream ${stream.name} has no copy that could be promoted`,
      `name the store with --to: ${Object.keys(config.stores).join(', ')}`,
    );
  }
  return Promise.all(
    names.map(async (store): Promise<Looked> => {
      const look = openStore(config, store).then((opened) => holdingOf(opened, stream.name));
      const limitMs = to === undefined || store === to ? NAMED_MS : OTHERS_MS;
      const { outcome: holding, hangs } = await inTime(limitMs, look);
      if (hangs) leftHanging();
      return holding instanceof Failed
        ? { store, holding: null, error: holding.error }
        : { store, holding, error: null };
    }),
  );
}

class Failed {
  readonly error: unknown;
  constructor(error: unknown) {
    this.error = error;
  }
}

/** What came of it, and whether it is still under way though the time is over. */
async function inTime<T>(limitMs: number, work: Promise<T>): Promise<{ outcome: T | Failed; hangs: boolean }> {
  let hangs = true;
  const settle = () => {
    hangs = false;
  };
  work.then(settle, settle);
  const outcome = await within(limitMs, work).catch((error: unknown) => new Failed(error));
  return { outcome, hangs };
}

/** What this host's log has of what the copy lacks; null where it can't be asked. */
async function locateHere(request: Request, { holding }: Candidate): Promise<Promoted['here']> {
  const { config, stream, coordination } = request;
  const { openSource, secretOf } = await import('../wiring.ts');
  const { archive, end } = holding;
  const locate = async () => {
    const source = openSource(stream, { node: config.node, log: createLog({ node: config.node, level: 'error' }) });
    try {
      const secret = secretOf(config, stream.name, coordination);
      return await source.locate(await headOf({ ...archive, secret }, end));
    } finally {
      await source.close();
    }
  };
  const { outcome: located, hangs } = await inTime(LOCATE_MS, locate());
  if (hangs) leftHanging();
  return located instanceof Failed ? null : { result: located.result, reason: located.reason };
}

function explain(
  { name }: StreamConfig,
  { store, holding }: Candidate,
  { store: primary, cursor }: Present,
  here: Promoted['here'],
): string[] {
  const { end, writtenMs } = holding;
  const written = writtenMs === null ? '' : `, written ${new Date(writtenMs).toISOString()} (${ago(writtenMs)})`;
  const reach = end.position ? positionText(end.position) : 'no byte yet';
  return [
    `Store ${store} holds ${name} up to ${reach}: ${end.last ? placeText(end.last) : 'an archive of no object'}${written}.`,
    ...cursorLines(store, holding, cursor),
    hereLine(here, store),
    `The daemons leave ${primary} within seconds. What it holds beyond that does not count any more, and when it comes back ` +
      'it is not taken for the primary.',
  ];
}

function cursorLines(store: string, { end, writtenMs }: Candidate['holding'], cursor: Cursor | null): string[] {
  if (!cursor?.position) return ['Where the archive ended is not known: etcd holds no cursor.'];
  if (end.last && comparePlaces(end.last, cursor) >= 0) return [`It lacks nothing that the last cursor tells of.`];
  const savedMs = Date.parse(cursor.time);
  const behind =
    writtenMs === null ? 'all of it' : `the last ${secondsText(Math.max(0, (savedMs - writtenMs) / 1000))}`;
  return [
    `The archive ended at ${positionText(cursor.position)}: ${placeText(cursor)}, saved ${cursor.time} (${ago(savedMs)}). ` +
      `Store ${store} lacks ${behind}.`,
  ];
}

function hereLine(here: Promoted['here'], store: string): string {
  if (here === null) {
    return 'Whether this host still has what is lacking could not be found out: "shipmate status" will tell of each twin.';
  }
  const { result, reason } = here;
  if (result === 'gap') {
    return (
      `WARNING: this host's log does not reach back to where ${store} ends: ${reason}. Unless another twin has those bytes, ` +
      'shipping stands still until "shipmate accept-gap", and they are lost to the archive'
    );
  }
  if (result === 'behind' || result === 'fork') return `This host can't go on from there: ${result}: ${reason}.`;
  return `This host can go on from there, and ships again what is lacking (${result}: ${reason}).`;
}

/** Names of the daemons that have opened the promoted store, once all that live have, or the time is over. */
async function following({ stream, coordination, say }: Request, promotion: Promotion): Promise<string[]> {
  const untilMs = performance.now() + FOLLOW_MS;
  for (;;) {
    const twins = await coordination.overview().then(
      (overview) => overview.twins,
      () => [],
    );
    const own = twins.flatMap((twin) =>
      twin.streams.filter(({ name }) => name === stream.name).map((state) => ({ node: twin.node, ...state })),
    );
    const [followed, others] = [own.filter(hasFollowed), own.filter((twin) => !hasFollowed(twin))].map((some) =>
      some.map(({ node }) => node),
    ) as [string[], string[]];
    if (own.length === 0) say('No daemon of this stream is alive: start them; they go on with the promoted store.');
    else if (others.length === 0) say(`These daemons have followed: ${followed.join(', ')}.`);
    else if (performance.now() < untilMs) {
      await sleep(POLL_MS);
      continue;
    } else say(`Not followed within ${FOLLOW_MS / 1000} s: ${others.join(', ')}; "shipmate status" tells why.`);
    return followed;
  }
  function hasFollowed({ generation = 0 }: { readonly generation?: number }): boolean {
    return generation >= promotion.generation;
  }
}

function warnOfConfig({ stream, say }: Request, { store }: Promotion): void {
  const { primary } = stream.plan;
  if (store === primary) return;
  say(
    `Now correct the configs of all hosts: primary: ${store} in the plan of ${stream.name}. Until then fetch, restore, ls and ` +
      `verify look into ${primary} unless told --store ${store}.`,
  );
}

const ago = (ms: number) => `${secondsText(Math.max(0, (Date.now() - ms) / 1000))} ago`;
const failed = (message: string, hint: string) => new ShipmateError(message, { code: 'PROMOTE_FAILED', hint });
