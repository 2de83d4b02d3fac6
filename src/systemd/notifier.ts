import { execFile } from 'node:child_process';
import type { Log } from '../core/log.ts';
import { codeOf, messageOf } from '../errors.ts';

/** What systemd is told: assignments of sd_notify(3), such as `{ READY: '1', STATUS: 'orders: standby' }`. One line each. */
export type Notification = Readonly<Record<string, string>>;

export interface Notifier {
  /** Who is not told `WATCHDOG=1` for so long, milliseconds, kills the daemon; null: nobody. */
  readonly watchdogMs: number | null;
  /** One after the other, in order. Resolves when it was told; where it can't be, that is logged once. Never throws. */
  tell(notification: Notification): Promise<void>;
}

/** What the service manager put into the environment. */
export interface NotifyAddress {
  readonly socket: string;
  readonly watchdogMs: number | null;
}

/**
 * systemd-notify stays until the manager has seen who it is, for its notification counts by its cgroup. One that does not
 * know of that lets it wait in vain: what was to be told was told long before.
 */
const SEEN_MS = 2_000;

/**
 * Takes the service manager's address out of the environment, so that no process which is started later can speak in the
 * daemon's name; null where there is none.
 */
export function takeNotifyAddress(environment: NodeJS.ProcessEnv = process.env): NotifyAddress | null {
  const { NOTIFY_SOCKET: socket, WATCHDOG_USEC: usec, WATCHDOG_PID: pid } = environment;
  for (const name of ['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID']) delete environment[name];
  if (!socket) return null;
  const isOurs = pid === undefined || pid === String(process.pid);
  const watchdogMs = Number(usec) / 1000;
  return { socket, watchdogMs: isOurs && watchdogMs > 0 ? watchdogMs : null };
}

/**
 * Node has no sockets for datagrams between processes: systemd's own program sends each notification. Where nobody listens
 * nothing is told.
 */
export function openNotifier(address: NotifyAddress | null, { log }: { readonly log: Log }): Notifier {
  if (address === null) return { watchdogMs: null, tell: async () => {} };
  const { socket, watchdogMs } = address;
  const env = { PATH: process.env.PATH, NOTIFY_SOCKET: socket };
  let hasFailed = false;
  let last = Promise.resolve();

  const send = (assignments: readonly string[]) =>
    new Promise<void>((resolve) => {
      let isLate = false;
      const late = setTimeout(() => {
        isLate = true;
        resolve();
      }, SEEN_MS);
      const done = (error: Error | null) => {
        clearTimeout(late);
        if (isLate) return;
        if (error && !hasFailed) log.warn(`systemd can't be told how the daemon is: ${reasonOf(error)}`);
        hasFailed = error !== null;
        resolve();
      };
      // Some failures are thrown instead: no memory for another process is one.
      try {
        execFile('systemd-notify', assignments, { env }, done);
      } catch (error) {
        done(error instanceof Error ? error : new Error(messageOf(error)));
      }
    });

  return {
    watchdogMs,
    tell(notification) {
      const assignments = Object.entries(notification).map(([name, value]) => `${name}=${value.replace(/\s+/g, ' ')}`);
      last = last.then(() => send(assignments));
      return last;
    },
  };
}

const reasonOf = (error: Error) =>
  codeOf(error) === 'ENOENT' ? 'the program systemd-notify is not there' : messageOf(error).trim();
