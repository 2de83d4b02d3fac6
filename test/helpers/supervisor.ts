import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { SHIPMATE } from './daemon.ts';
import { NotifyListener, type Told } from './notify-listener.ts';
import type { UnitFile } from './unit-file.ts';
import { until, type WaitOptions } from './wait.ts';

export interface SupervisorOptions {
  readonly unit: UnitFile;
  /** Of the template. */
  readonly instance: string;
  /** In place of /etc/shipmate; its configs are `INSTANCE.yaml`. What the supervisor needs is put there, too. */
  readonly dir: string;
  /** By default a file in `dir`. */
  readonly socket?: string;
  /** A file system of this one's own on a directory, for a disk that is full: mount's options for a tmpfs. */
  readonly disk?: { readonly at: string; readonly options: string };
}

/** How one life of the daemon ended. */
export interface Ended {
  readonly result: 'success' | 'exit-code' | 'signal' | 'watchdog';
  readonly code: number | null;
}

/** A line of the journal. */
export interface JournalLine {
  /** Of sd-daemon(3): 3 is an error, 4 a warning. */
  readonly priority: number;
  readonly text: string;
}

const PRIORITY_OF_STDERR = 6;

/**
 * Does with a unit file what systemd would: starts its ExecStart, hears its notifications, kills it when it misses its
 * watchdog, starts it again as Restart= says. Sets of the sandbox only what needs no mounts: no capabilities, no core.
 */
export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #listener: NotifyListener;
  readonly told: Told[] = [];
  readonly journal: JournalLine[] = [];
  /** Of all lives that are over, oldest first. */
  readonly ended: Ended[] = [];
  #child: ChildProcess | null = null;
  #life: Promise<void> = Promise.resolve();
  #watchdog: NodeJS.Timeout | undefined;
  #hasMissed = false;
  #isStopping = false;
  #bornAt = 0;

  private constructor(options: SupervisorOptions, listener: NotifyListener) {
    this.#options = options;
    this.#listener = listener;
  }

  static async of(options: SupervisorOptions): Promise<Supervisor> {
    const { dir, instance, socket = join(dir, `${instance}.notify`) } = options;
    const hear: { told: (told: Told) => void } = { told: () => {} };
    const supervisor = new Supervisor(options, await NotifyListener.on(socket, (told) => hear.told(told)));
    hear.told = (told) => supervisor.#hear(told);
    return supervisor;
  }

  /** Starts it; resolves at once. */
  start(): void {
    this.#isStopping = false;
    this.#life = this.#keepAlive();
  }

  /** Until it has told that it is ready, in this life. */
  async ready(options?: WaitOptions): Promise<void> {
    await this.#wait('is ready', () => this.#ofThisLife.some(({ READY }) => READY === '1'), options);
  }

  /** Until its last STATUS matches. */
  async status(pattern: RegExp, options?: WaitOptions): Promise<string> {
    return this.#wait(`is ${pattern}`, () => pattern.test(this.lastStatus) && this.lastStatus, options);
  }

  /** Of this life. */
  get lastStatus(): string {
    return this.#ofThisLife.findLast(({ STATUS }) => STATUS !== undefined)?.STATUS ?? '';
  }

  get #ofThisLife(): Told[] {
    return this.told.slice(this.#bornAt);
  }

  /** The first line of its journal, of all or of those after a mark, that matches. */
  async logs(pattern: RegExp, { since = 0, ...wait }: WaitOptions & { since?: number } = {}): Promise<JournalLine> {
    return this.#wait(`logs ${pattern}`, () => this.journal.slice(since).find(({ text }) => pattern.test(text)), wait);
  }

  /** ExecReload=. */
  async reload(): Promise<void> {
    const [program = '', ...args] = this.#words(this.#options.unit.get('ExecReload'));
    await once(spawn(program, args, { stdio: 'inherit' }), 'exit');
  }

  /** Sends a signal to the main process alone, as a fault would. */
  kill(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** A path as the daemon sees it, which may have a disk of its own there. */
  path(path: string): string {
    return `/proc/${this.pid}/root${path}`;
  }

  /** `systemctl stop`: SIGTERM, and SIGKILL after TimeoutStopSec=. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    clearTimeout(this.#watchdog);
    this.kill('SIGTERM');
    const late = setTimeout(() => this.kill('SIGKILL'), this.#options.unit.milliseconds('TimeoutStopSec'));
    await this.#life;
    clearTimeout(late);
  }

  /** Ends all that it started, however that stands. */
  async close(): Promise<void> {
    this.#isStopping = true;
    this.kill('SIGKILL');
    await this.#life;
    await this.#listener.close();
  }

  /** Life after life, as Restart= has it. */
  async #keepAlive(): Promise<void> {
    const { unit } = this.#options;
    const isFinal = unit.all('RestartPreventExitStatus').flatMap((codes) => codes.split(' ').map(Number));
    for (;;) {
      const ended = await this.#live();
      this.ended.push(ended);
      if (this.#isStopping || unit.get('Restart') !== 'on-failure') return;
      if (ended.result === 'success' || (ended.code !== null && isFinal.includes(ended.code))) return;
      await delay(unit.milliseconds('RestartSec'));
      if (this.#isStopping) return;
    }
  }

  async #live(): Promise<Ended> {
    this.#bornAt = this.told.length;
    this.#hasMissed = false;
    const [program = '', ...args] = this.#command();
    const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'], env: this.#environment() });
    this.#child = child;
    const lines = createInterface({ input: child.stderr });
    lines.on('line', (line) => this.journal.push(journalLine(line)));
    const [[code, signal]] = await Promise.all([once(child, 'exit'), once(lines, 'close')]);
    clearTimeout(this.#watchdog);
    this.#child = null;
    const isClean = code === 0 || signal === 'SIGTERM';
    const result = this.#hasMissed ? 'watchdog' : isClean ? 'success' : signal === null ? 'exit-code' : 'signal';
    return { result, code };
  }

  /** WATCHDOG_PID is known to the process itself alone, and so is which stream its stderr is. */
  #command(): string[] {
    const { unit, disk } = this.#options;
    const hasRoot = process.getuid?.() === 0;
    const isBounded = hasRoot && unit.isEmpty('CapabilityBoundingSet');
    const script = [
      `ulimit -c ${unit.get('LimitCORE')}`,
      'export WATCHDOG_PID=$$ JOURNAL_STREAM=$(stat -L -c %d:%i /proc/$$/fd/2)',
      'exec "$@"',
    ].join('; ');
    const mount = ['sh', '-c', 'mount -t tmpfs -o "$1" none "$2" && shift 2 && exec "$@"', 'sh'];
    const asRoot = hasRoot ? [] : ['--user', '--map-root-user'];
    return [
      ...(disk ? ['unshare', ...asRoot, '--mount', ...mount, disk.options, disk.at] : []),
      ...['setpriv', '--pdeathsig', 'KILL', ...(unit.get('NoNewPrivileges') === 'yes' ? ['--no-new-privs'] : [])],
      ...(isBounded ? ['--bounding-set', '-all', '--inh-caps', '-all'] : []),
      ...['--', 'sh', '-c', script, 'sh', ...this.#words(unit.get('ExecStart'))],
    ];
  }

  #environment(): NodeJS.ProcessEnv {
    const { unit } = this.#options;
    const given = unit.all('Environment').map((line) => this.#words(line)[0]?.split('=') ?? []);
    return {
      ...Object.fromEntries(given),
      PATH: process.env.PATH,
      NOTIFY_SOCKET: this.#listener.socket,
      WATCHDOG_USEC: String(unit.milliseconds('WatchdogSec') * 1_000),
    };
  }

  /** A command line, its specifiers and installed paths replaced by what is here. */
  #words(line: string): string[] {
    const { instance, dir } = this.#options;
    return line
      .replaceAll('%i', instance)
      .replaceAll('%C', join(dir, 'cache'))
      .replaceAll('$MAINPID', String(this.pid))
      .replace('/usr/bin/shipmate', SHIPMATE)
      .replace('/etc/shipmate', dir)
      .split(' ');
  }

  #hear(told: Told): void {
    if ('BARRIER' in told) return;
    this.told.push(told);
    if (told.READY === '1' || told.WATCHDOG === '1') this.#wind();
  }

  #wind(): void {
    clearTimeout(this.#watchdog);
    if (this.#isStopping) return;
    this.#watchdog = setTimeout(() => {
      this.#hasMissed = true;
      this.kill('SIGABRT');
      this.kill('SIGCONT'); // so does systemd: a process that was stopped would keep its signals for later
    }, this.#options.unit.milliseconds('WatchdogSec'));
  }

  /** Half of what a test may take here, on a machine that does much else. */
  #wait<T>(what: string, ask: () => T, options?: WaitOptions) {
    const describe = () => this.#tail();
    return until(`${this.#options.instance} ${what}`, ask, { withinMs: 120_000, describe, ...options });
  }

  #tail(): string {
    const lines = this.journal.slice(-25).map(({ priority, text }) => `  <${priority}>${text}`);
    return [`last status of ${this.#options.instance}: ${this.lastStatus}`, ...lines].join('\n');
  }
}

function journalLine(line: string): JournalLine {
  const [, priority, text] = /^<(\d)>(.*)$/.exec(line) ?? [];
  return { priority: priority === undefined ? PRIORITY_OF_STDERR : Number(priority), text: text ?? line };
}
