import { bytesText, lagText } from '../src/core/format.ts';
import type { StreamStatus } from '../src/core/status.ts';
import type { Cluster } from '../test/helpers/cluster.ts';
import type { Daemon } from '../test/helpers/daemon.ts';
import type { Load } from '../test/helpers/load.ts';
import type { Screen } from './screen.ts';

const REDRAW_MS = 200;
/** Without a terminal: one line now and then, so that a log of the demo stays readable. */
const PLAIN_EVERY_MS = 3_000;

/** Shows roles, cursor and lag as they are, until `stop`. */
export function showLive(screen: Screen, cluster: Cluster, load: () => Load | null): { stop(): void } {
  let stopped = false;
  let plain = { line: '', atMs: 0 };
  let seen = { commits: 0, atMs: performance.now(), perSecond: 0 };
  const show = async () => {
    while (!stopped) {
      const status = await cluster.told().catch(() => null);
      const links = await cluster.chain.read().catch(() => []);
      const commits = load()?.commits ?? 0;
      const nowMs = performance.now();
      if (nowMs - seen.atMs > 1_000) {
        const perSecond = Math.max(0, Math.round(((commits - seen.commits) * 1000) / (nowMs - seen.atMs)));
        seen = { commits, atMs: nowMs, perSecond };
      }
      const rate = load() ? `${seen.perSecond} commits a second` : 'quiet';
      if (stopped) return;
      if (screen.live) {
        screen.panel(panel(screen, { cluster, status, rate, objects: links.length }));
      } else if (nowMs - plain.atMs > PLAIN_EVERY_MS) {
        const line = plainLine(cluster, status, rate);
        if (line !== plain.line) screen.lines(line);
        plain = { line, atMs: nowMs };
      }
      await new Promise((resolve) => setTimeout(resolve, REDRAW_MS));
    }
  };
  show();
  return {
    stop() {
      stopped = true;
      screen.panel([]);
    },
  };
}

interface Seen {
  readonly cluster: Cluster;
  readonly status: StreamStatus | null;
  readonly rate: string;
  readonly objects: number;
}

function panel(screen: Screen, { cluster, status, rate, objects }: Seen): string[] {
  const dim = (text: string) => screen.paint('gray', text);
  const row = (name: string, ...rest: string[]) =>
    `   ${dim('│')} ${screen.paint('bold', name.padEnd(10))}${rest.join('')}`;
  const cursor = status?.cursor;
  return [
    '',
    row('database', rate),
    ...cluster.daemons.map((daemon) => {
      const { role, note } = stateOf(daemon, status);
      return row(daemon.node, screen.paint(COLOURS[role] ?? 'white', role.padEnd(12)), dim(note));
    }),
    row('archive', `term ${status?.term ?? '-'}`.padEnd(12), dim(`${objects} objects`)),
    row('cursor', cursor ? `${cursor.id.padEnd(12)}${dim(`${cursor.segment}:${cursor.offset}`)}` : '-'),
    row('lag', lagText({ lagBytes: status?.lagBytes ?? null, lagSeconds: status?.lagSeconds ?? null })),
  ];
}

function plainLine(cluster: Cluster, status: StreamStatus | null, rate: string): string {
  const roles = cluster.daemons.map((daemon) => `${daemon.node} ${stateOf(daemon, status).role}`);
  const at = status?.cursor ? `, at GTID ${status.cursor.id}` : '';
  const lag = bytesText(status?.lagBytes ?? 0);
  return `     [${roles.join(', ')}; ${rate}; archive in term ${status?.term ?? '-'}${at}, lag ${lag}]`;
}

const COLOURS: Readonly<Record<string, 'green' | 'cyan' | 'red' | 'blue' | 'yellow'>> = {
  master: 'green',
  standby: 'cyan',
  dead: 'red',
  frozen: 'blue',
  'taking-over': 'yellow',
};

function stateOf(daemon: Daemon, status: StreamStatus | null): { role: string; note: string } {
  if (!daemon.running) return { role: 'dead', note: '' };
  if (daemon.frozen) return { role: 'frozen', note: 'it knows nothing of it' };
  const { role } = daemon;
  const twin = status?.twins.find(({ node }) => node === daemon.node);
  if (role === 'master') return { role, note: 'ships' };
  if (!twin || role !== 'standby') return { role, note: '' };
  const note = twin.ready ? 'could take over at this moment' : twin.reason;
  return { role, note: note.slice(0, 70) };
}
