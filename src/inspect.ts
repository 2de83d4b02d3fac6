import { headOf } from './archive/head.ts';
import { raceProbe, readArchive } from './archive/identity.ts';
import { cursorOf } from './archive/prune.ts';
import { within } from './archive/retry.ts';
import { findEnd } from './archive/walk.ts';
import { fingerprintOf } from './codec/age-keys.ts';
import type { Config, StreamConfig } from './config.ts';
import type { Coordination } from './coordination/coordination.ts';
import { placeText } from './core/keys.ts';
import { changeText, inForce } from './core/limits.ts';
import { messageOf, ShipmateError } from './errors.ts';
import { hostZone } from './host-zone.ts';
import { createLog } from './log.ts';
import { copiesOf } from './ship/primary.ts';
import type { Finding, LogSource } from './source/source.ts';
import { openStore } from './wiring/stores.ts';
import { demandRecipients, inspectBackend, openCoordination, openSource, primaryOf, secretOf } from './wiring.ts';

/** A finding, and what it is about: `etcd`, `store main`, `stream orders`. */
export interface About extends Finding {
  readonly about: string;
}

/** Twins whose clocks differ by more write times into the archive that contradict each other. */
const CLOCK_MS = 2_000;

/** What takes longer hangs: a mount whose server is gone ends by nothing. */
const ANSWER_MS = 60_000;

/** Looks at everything that a daemon with this config would need; changes nothing but one probe object a store. */
export async function inspect(config: Config): Promise<About[]> {
  const log = createLog({ node: config.node, level: 'error' });
  const coordination = await openCoordination(config, log);
  try {
    const streams = Object.values(config.streams);
    const primaries = new Map<StreamConfig, string>();
    for (const stream of streams) primaries.set(stream, await primaryNow(config, stream, coordination));
    const stores = new Map(
      [...primaries].flatMap(([{ plan, name }, primary]) =>
        [primary, ...plan.copies].map((store): [string, string] => [store, name]),
      ),
    );
    const findings = [
      about('config', async () => [{ level: 'ok', message: `${streams.length} stream(s), node ${config.node}` }]),
      about(coordination.kind, () => inspectTwins(coordination, config)),
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
    return (await Promise.all(findings)).flat();
  } finally {
    await coordination.close();
  }
}

/** Where etcd can't be asked, which is a finding of its own, the config's. */
const primaryNow = (config: Config, stream: StreamConfig, coordination: Coordination): Promise<string> =>
  primaryOf(config, stream, coordination).then(
    ({ store }) => store,
    () => stream.plan.primary,
  );

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
  try {
    return (await within(ANSWER_MS, look())).map((finding) => ({ about: subject, ...finding }));
  } catch (error) {
    const hint = error instanceof ShipmateError ? error.hint : undefined;
    const message = messageOf(error).replace(`${subject}: `, '');
    return [{ about: subject, level: 'error', message, ...(hint !== undefined && { hint }) }];
  }
}

async function inspectTwins(coordination: Coordination, { node }: Config): Promise<Finding[]> {
  const { twins } = await coordination.overview();
  const findings: Finding[] = [
    { level: 'ok', message: `answers; daemons alive: ${twins.map((twin) => twin.node).join(', ') || 'none'}` },
  ];
  for (const twin of twins.filter((other) => other.node !== node)) {
    const aheadMs = Date.parse(twin.time) - Date.now();
    if (Math.abs(aheadMs) < CLOCK_MS) continue;
    findings.push({
      level: 'warning',
      message: `the clock of ${twin.node} differs from this one by ${(aheadMs / 1000).toFixed(1)} s`,
      hint: 'synchronise both with NTP: restore by time goes by them',
    });
  }
  return findings;
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
  return [
    { level: 'ok', message: `creates an object only where its name is free${room}` },
    ...(isPruned ? [inspectDeleting(refusal)] : []),
  ];
}

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

async function inspectStream(
  config: Config,
  stream: StreamConfig,
  { source, coordination, primary }: { source: LogSource; coordination: Coordination; primary: string },
): Promise<Finding[]> {
  const { name } = stream;
  const found = await readArchive(await openStore(config, primary), name);
  if (found === null) {
    return [
      ...(await source.inspect()),
      { level: 'ok', message: `no archive in store ${primary} yet: "shipmate run --init" creates it` },
    ];
  }
  const archive = { ...found, secret: secretOf(config, name, coordination) };
  const known = await coordination.archives.load(name);
  if (known !== null && known.id !== archive.info.archive) {
    return [
      ...(await source.inspect()),
      {
        level: 'error',
        message: `store ${primary} holds archive ${archive.info.archive}, but the twins know ${known.id}`,
        hint: `another cluster's store or prefix? If it is this database's archive: shipmate adopt ${name}`,
      },
    ];
  }
  const { result, at, allowed, reason } = await source.locate(await headOf(archive, await findEnd(archive, null)));
  return [
    ...(await source.inspect(at ?? undefined)),
    { level: allowed ? 'ok' : 'error', message: `this twin against the archive's end: ${result}: ${reason}` },
  ];
}
