import { setTimeout as sleep } from 'node:timers/promises';
import type { Primary } from '../archive/generation.ts';
import { type Config, type StreamConfig, sharedDigest } from '../config.ts';
import type { Coordination, Twin } from '../coordination/coordination.ts';
import type { Finding } from '../source/source.ts';
import { listenerOf } from './host.ts';

/** Twins whose clocks differ by more write times into the archive that contradict each other. */
const CLOCK_MS = 2_000;
const SILENT_MS = 5_000;
const LOOK_AGAIN_MS = 200;
const DAY_MS = 86_400_000;
const EXPIRES_SOON_MS = 21 * DAY_MS;

/** Who is alive, and whether their clocks, names and configs fit to this one. */
export async function inspectTwins(
  coordination: Coordination,
  config: Config,
  primaries: ReadonlyMap<StreamConfig, Primary | null>,
): Promise<Finding[]> {
  const { twins } = await coordination.overview();
  const others = twins.filter(({ node }) => node !== config.node);
  return [
    { level: 'ok', message: `answers; daemons alive: ${twins.map((twin) => twin.node).join(', ') || 'none'}` },
    ...(await namesakeFindings(config, twins)),
    ...(await Promise.all(others.map((twin) => clockFindings(coordination, twin)))).flat(),
    ...differences(config, primaries, others),
  ];
}

/** With the admin port it can be told whether a daemon that bears this node's name is this host's own. */
async function namesakeFindings(config: Config, twins: readonly Twin[]): Promise<Finding[]> {
  const { node, admin } = config;
  if (admin === null || admin.port === 0 || !twins.some((twin) => twin.node === node)) return [];
  if ((await listenerOf(config))?.node === node) return [];
  return [
    {
      level: 'error',
      message: `a living daemon calls itself node ${node}, but none of that name answers here, at ${admin.host}:${admin.port}`,
      hint: 'give each twin a "node" of its own. If the daemon of this host has just died: its name is free when its lease (coordination.etcd.ttl) runs out',
    },
  ];
}

/** Daemons tell of themselves twice a second. What one told a while ago shows no clock: it is looked at when it tells again. */
async function clockFindings(coordination: Coordination, twin: Twin): Promise<Finding[]> {
  if (Math.abs(aheadMs(twin)) < CLOCK_MS) return [];
  const { node } = twin;
  for (const untilMs = performance.now() + SILENT_MS; performance.now() < untilMs; ) {
    await sleep(LOOK_AGAIN_MS);
    const { twins } = await coordination.overview();
    const again = twins.find((one) => one.node === node);
    if (again?.time === twin.time) continue;
    if (!again || Math.abs(aheadMs(again)) < CLOCK_MS) return [];
    return [
      {
        level: 'warning',
        message: `the clock of ${node} differs from this one by ${(aheadMs(again) / 1000).toFixed(1)} s`,
        hint: 'synchronise both with NTP: restore by time goes by them',
      },
    ];
  }
  const message = `the daemon of ${node} has told nothing for more than ${SILENT_MS / 1000} s: it hangs, or is cut off`;
  return [
    { level: 'warning', message, hint: `look at its log on ${node}: when its lease runs out another twin takes over` },
  ];
}

const aheadMs = ({ time }: Twin) => Date.parse(time) - Date.now();

/** What the later daemon refuses to start with. */
function differences(
  config: Config,
  primaries: ReadonlyMap<StreamConfig, Primary | null>,
  others: readonly Twin[],
): Finding[] {
  const differing = [...primaries].map(([stream, primary]) => {
    const own = sharedDigest(config, stream, primary?.store);
    const differs = ({ streams }: Twin) => {
      const theirs = streams.find(({ name }) => name === stream.name);
      if (!theirs || theirs.role === 'starting' || theirs.role === 'stopped' || theirs.config === own) return false;
      return primary === null || (theirs.generation ?? 0) === primary.generation; // else one has yet to hear of a promotion
    };
    const nodes = others.filter(differs).map(({ node }) => node);
    return { name: stream.name, nodes: nodes.join(', ') };
  });
  const byNodes = Map.groupBy(differing, ({ nodes }) => nodes);
  return [...byNodes].flatMap(([nodes, streams]): Finding[] => {
    if (nodes === '') return [];
    const names = streams.map(({ name }) => name).join(', ');
    return [
      {
        level: 'error',
        message: `the primary store of ${names}, its name, place or prefix, is another in this config than on ${nodes}`,
        hint: `twins must ship to the same place, and a daemon with this config would refuse to: compare "stores" with the config on ${nodes}`,
      },
    ];
  });
}

/** Of those that this config names, by what they are, with the time when they expire. */
export function certificateFindings(certificates: ReadonlyMap<string, number>, nowMs: number): Finding[] {
  return [...certificates].map(([which, untilMs]): Finding => {
    const date = new Date(untilMs).toISOString().slice(0, 10);
    const hint = `renew it, and put it where "tls.${which}" of the config says: without it no daemon can reach etcd`;
    if (untilMs <= nowMs) return { level: 'error', message: `the certificate tls.${which} expired on ${date}`, hint };
    const days = Math.floor((untilMs - nowMs) / DAY_MS);
    if (untilMs - nowMs < EXPIRES_SOON_MS) {
      return { level: 'warning', message: `the certificate tls.${which} expires in ${days} days, on ${date}`, hint };
    }
    return { level: 'ok', message: `the certificate tls.${which} is good until ${date}` };
  });
}
