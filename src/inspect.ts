import { headOf } from './archive/head.ts';
import { raceProbe, readArchive } from './archive/identity.ts';
import { cursorOf } from './archive/prune.ts';
import { within } from './archive/retry.ts';
import { findEnd } from './archive/walk.ts';
import { fingerprintOf } from './codec/age-keys.ts';
import type { Config, StreamConfig } from './config.ts';
import type { Coordination } from './coordination/coordination.ts';
import { bytesText, countText } from './core/format.ts';
import type { Result } from './core/header.ts';
import { placeText } from './core/keys.ts';
import { changeText, inForce } from './core/limits.ts';
import type { Position } from './core/position.ts';
import { messageOf, ShipmateError } from './errors.ts';
import { hostZone } from './host-zone.ts';
import { inspectEndpoints } from './inspect/etcd.ts';
import { inspectHost } from './inspect/host.ts';
import { certificateFindings, inspectTwins } from './inspect/twins.ts';
import { createLog } from './log.ts';
import { copiesOf } from './ship/primary.ts';
import type { Finding, LogSource } from './source/source.ts';
import { openStore } from './wiring/stores.ts';
import { demandRecipients, inspectBackend, openCoordination, openSource, primaryOf, secretOf } from './wiring.ts';

/** A finding, and what it is about: `etcd`, `store main`, `stream orders`. */
export interface About extends Finding {
  readonly about: string;
}

/** What takes longer hangs: a mount whose server is gone ends by nothing. */
const ANSWER_MS = 60_000;

/** Looks at everything that a daemon with this config would need; changes nothing but one probe object a store. */
export async function inspect(config: Config): Promise<About[]> {
  const log = createLog({ node: config.node, level: 'error' });
  const failures: Finding[] = [];
  const coordination = await openCoordination(config, log).catch((error: unknown) => {
    failures.push(...failed(error));
    return openCoordination({ ...config, coordination: { kind: 'solo' } }, log); // what is not in etcd is looked at all the same
  });
  try {
    const streams = Object.values(config.streams);
    const chosen = new Map(
      await Promise.all(
        streams.map(async (stream) => {
          // Where etcd can't be asked, which is a finding of its own, the config's.
          const primary = await primaryOf(config, stream, coordination).catch(() => null);
          return [stream, primary] as const;
        }),
      ),
    );
    const primaries = new Map(streams.map((stream) => [stream, chosen.get(stream)?.store ?? stream.plan.primary]));
    const stores = new Map(
      [...primaries].flatMap(([{ plan, name }, primary]) =>
        [primary, ...plan.copies].map((store): [string, string] => [store, name]),
      ),
    );
    const { kind } = config.coordination;
    const findings = [
      about('config', async () => [
        { level: 'ok', message: `${countText(streams.length, 'stream')}, node ${config.node}` },
      ]),
      about('host', () => inspectHost(config)),
      about(kind, async () => (failures.length > 0 ? failures : inspectTwins(coordination, config, chosen))),
      about(kind, async () => certificateFindings(await coordination.certificates(), Date.now())),
      about(kind, async () => (config.coordination.kind === 'etcd' ? inspectEndpoints(config.coordination) : [])),
      about('limits', () => inspectLimits(coordination, config)),
      ...[...stores].map(([name, stream]) => about(`store ${name}`, () => inspectStore(config, name, stream))),
      ...[...primaries].flatMap(([{ name, plan }, primary]) =>
        copiesOf(plan, primary).map((copy) =>
          about(`store ${copy}`, () => inspectCopy(config, { stream: name, primary, copy })),
        ),
      ),
      ...streams.map(async (stream) => {
        const source = openSource(stream, { node: config.node, log });
        try {
          return await about(`stream ${stream.name}`, async () => [
            ...inspectPlan(stream, primaries.get(stream)!),
            ...inspectRecipients(stream),
            ...(await inspectStream(config, stream, { source, coordination, primary: primaries.get(stream)! })),
          ]);
        } finally {
          await source.close();
        }
      }),
    ];
    return toldOnce((await Promise.all(findings)).flat());
  } finally {
    await coordination.close();
  }
}

/** What stands in the way of several subjects, such as a store that is away, is told of the first. */
function toldOnce(findings: readonly About[]): About[] {
  const told = new Set<string>();
  return findings.filter(({ about: subject, level, message }) => {
    if (level === 'ok') return true;
    const cause = /^(store |etcd )/.test(message) ? message : `${subject}: ${message}`;
    if (told.has(cause)) return false;
    told.add(cause);
    return true;
  });
}

function inspectPlan({ name, plan }: StreamConfig, primary: string): Finding[] {
  if (primary === plan.primary) return [];
  return [
    {
      level: 'warning',
      message: `store ${primary} was promoted, but the plan says primary: ${plan.primary}`,
      hint: `correct it on all hosts: until then fetch, restore, ls and verify of ${name} look into ${plan.primary}`,
    },
  ];
}

async function about(subject: string, look: () => Promise<Finding[]>): Promise<About[]> {
  const findings = await within(ANSWER_MS, look()).catch(failed);
  const named = `${subject}: `; // is said already
  return findings.map((finding) => {
    const { message } = finding;
    return { about: subject, ...finding, message: message.startsWith(named) ? message.slice(named.length) : message };
  });
}

function failed(error: unknown): Finding[] {
  const hint = error instanceof ShipmateError ? error.hint : undefined;
  return [{ level: 'error', message: messageOf(error), ...(hint !== undefined && { hint }) }];
}

/** What a daemon with this config goes by now; nothing where nothing is limited. */
async function inspectLimits({ limits: board }: Coordination, { limits, node }: Config): Promise<Finding[]> {
  const overrides = await board.list();
  const { reservation, refused } = inForce({ limits, overrides, node, zone: hostZone() }, Date.now());
  const hint = '"shipmate limits" shows it, "shipmate limits clear" takes it back';
  return [
    ...(reservation ? [{ level: 'ok' as const, message: `in force: ${changeText(reservation)}` }] : []),
    ...refused.map(({ reason }) => ({ level: 'warning' as const, message: `without effect: ${reason}`, hint })),
  ];
}

async function inspectStore(config: Config, name: string, stream: string): Promise<Finding[]> {
  const readable = await inspectBackend(config, name);
  return [...readable, ...(await about(`store ${name}`, () => inspectCreating(config, name, stream)))];
}

async function inspectCreating(config: Config, name: string, stream: string): Promise<Finding[]> {
  const store = await openStore(config, name);
  const key = await raceProbe(store, stream, AbortSignal.timeout(30_000));
  const refusal = await store.delete([key]).catch((error: unknown) => error); // the daemon needs no right to delete
  const isPruned = Object.values(config.streams).some(
    ({ keep, plan }) => keep !== null && [plan.primary, ...plan.copies].includes(name),
  );
  const capacity = await store.capacity();
  const room = capacity ? `; ${(capacity.freeBytes / 2 ** 30).toFixed(1)} GiB free` : '';
  const isNearlyFull = capacity !== null && capacity.freeBytes < LITTLE_ROOM_BYTES;
  return [
    { level: 'ok', message: `creates an object only where its name is free${room}` },
    ...(isNearlyFull ? [nearlyFull(capacity.freeBytes)] : []),
    ...(isPruned ? [inspectDeleting(refusal)] : []),
  ];
}

const LITTLE_ROOM_BYTES = 2 ** 30;

const nearlyFull = (freeBytes: number): Finding => ({
  level: 'warning',
  message: `only ${bytesText(freeBytes)} are free: when it is full nothing is shipped, and the database keeps its log`,
  hint: 'make room, or let "shipmate prune" delete what need not be kept: see docs/retention.md',
});

/** The daemon deletes nothing, and is safer without the right: it is no fault that it lacks what `prune` needs. */
function inspectDeleting(refusal: unknown): Finding {
  const isDenied = refusal instanceof ShipmateError && refusal.code === 'STORE_DENIED';
  const who = isDenied
    ? 'may not delete, as a daemon need not: "prune" takes another account'
    : 'may delete, as "prune" must';
  return { level: 'ok', message: `this account ${who}` };
}

/** How far a copy has come; that it is a copy at all. */
async function inspectCopy(
  config: Config,
  { stream, ...names }: Record<'stream' | 'primary' | 'copy', string>,
): Promise<Finding[]> {
  const [primary, copy] = await Promise.all(
    [names.primary, names.copy].map(async (name) => readArchive(await openStore(config, name), stream)),
  );
  if (!primary) return []; // told of the stream
  if (!copy) return [{ level: 'ok', message: `holds nothing of ${stream} yet` }];
  const cursor = await cursorOf(copy, primary);
  return [{ level: 'ok', message: `a copy of ${stream}; it goes on at ${placeText(cursor)}` }];
}

/** A key that is lost takes all with it that was shipped for it alone. */
function inspectRecipients(stream: StreamConfig): Finding[] {
  demandRecipients(stream);
  const names = stream.recipients.map(fingerprintOf);
  if (names.length === 0) return [];
  const message = `encrypts for ${names.join(', ')}`;
  const hint = 'name a second one, whose key lies somewhere else: with the only key all that was shipped is lost';
  return [names.length > 1 ? { level: 'ok', message } : { level: 'warning', message: `${message} alone`, hint }];
}

interface Means {
  readonly source: LogSource;
  readonly coordination: Coordination;
  /** Name of the store. */
  readonly primary: string;
}

/** The source by itself, whatever becomes of the store, and how it goes on from the archive's end. */
async function inspectStream(config: Config, stream: StreamConfig, means: Means): Promise<Finding[]> {
  let at: Position | undefined;
  const onLocated = (place: Position) => {
    at = place;
  };
  const findings = await aboutArchive(config, stream, { ...means, onLocated }).catch(failed);
  return [...(await means.source.inspect(at)), ...findings];
}

async function aboutArchive(
  config: Config,
  { name }: StreamConfig,
  { source, coordination, primary, onLocated }: Means & { onLocated: (at: Position) => void },
): Promise<Finding[]> {
  const found = await readArchive(await openStore(config, primary), name);
  if (found === null) {
    return [{ level: 'ok', message: `no archive in store ${primary} yet: "shipmate run --init" creates it` }];
  }
  const archive = { ...found, secret: secretOf(config, name, coordination) };
  const known = await coordination.archives.load(name).catch(() => null); // told of etcd
  if (known !== null && known.id !== archive.info.archive) {
    return [
      {
        level: 'error',
        message: `store ${primary} holds archive ${archive.info.archive}, but the twins know ${known.id}`,
        hint: `another cluster's store or prefix? If it is this database's archive: shipmate adopt ${name}`,
      },
    ];
  }
  const { result, at, allowed, reason } = await source.locate(await headOf(archive, await findEnd(archive, null)));
  if (at) onLocated(at);
  const message = `this twin against the archive's end: ${result}: ${reason}`;
  if (allowed) return [{ level: 'ok', message }];
  // Where no term could begin there is nothing to accept.
  const hint = at === null && result !== 'behind' ? undefined : WAYS_ON[result]?.replace('STREAM', name);
  return [{ level: result === 'behind' ? 'warning' : 'error', message, ...(hint !== undefined && { hint }) }];
}

/** What an operator can do where a twin could not take over. */
const WAYS_ON: Readonly<Partial<Record<Result, string>>> = {
  behind: 'wait until this server has caught up: until then this twin could not take over',
  gap: 'let a twin lead whose server still has the bytes ("shipmate status"); where none has them: shipmate accept-gap STREAM',
  fork: 'find out which server is the living one; if it is this one: shipmate accept-fork STREAM',
};
