import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { freePort } from './ports.ts';
import { until, type WaitOptions } from './wait.ts';

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
export const SHIPMATE = join(ROOT, 'bin', 'shipmate');
const NODE = join(ROOT, 'node_modules', '.bin', 'node');
const FAULTY_DAEMON = join(ROOT, 'test', 'helpers', 'faulty-daemon.ts');
/** What bin/shipmate sets for a daemon. */
const FAULTY_ENV = { UV_THREADPOOL_SIZE: '32', NODE_COMPILE_CACHE: join(ROOT, 'node_modules', '.cache', 'shipmate') };

export interface DaemonOptions {
  readonly node: string;
  /** A folder for this daemon alone; made here. Holds its config and its stateDir. */
  readonly dir: string;
  readonly cluster?: string;
  /** etcd's client URLs; without them the daemon runs solo. */
  readonly endpoints?: readonly string[];
  /** Default: 2s, the shortest that etcd leases are told apart at. */
  readonly ttl?: string;
  /** Paths of PEM files, where etcd speaks TLS. */
  readonly tls?: { readonly ca: string; readonly cert: string; readonly key: string } | null;
  readonly onEtcdLoss?: 'continue' | 'stop';
  readonly storePath: string;
  /** Another store's config in place of the directory `storePath`. */
  readonly store?: Readonly<Record<string, unknown>>;
  /** More stores, directories by their names: the plan's copies. */
  readonly copies?: Readonly<Record<string, string>>;
  /** How much later they get what the store has. */
  readonly delay?: string;
  /** How many stores must hold what the source is acknowledged. */
  readonly ack?: number;
  readonly prefix?: string;
  readonly stream?: string;
  /** As the config has it; MariaDB by default. */
  readonly source: { readonly dir: string; readonly [key: string]: unknown };
  readonly chunk?: { readonly maxBytes?: string; readonly maxDelay?: string };
  /** Of the bandwidth, as the config has it. */
  readonly limits?: Readonly<Record<string, unknown>>;
  /** Of age: what it ships is encrypted for them. */
  readonly recipients?: readonly string[];
  /** A FaultPlan in this file rules the daemon's store; without it the daemon is started by `bin/shipmate`. */
  readonly faults?: string;
}

/** A line of the daemon's log. */
export interface LogLine {
  readonly level: string;
  readonly message: string;
  /** When it was read here, monotonic, milliseconds. */
  readonly atMs: number;
  readonly [field: string]: unknown;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** What it wrote to stderr that is no log line: `error: …`, `hint: …`. */
  readonly stderr: string;
}

/** One `shipmate run` with its config; it can be ended and started again, as a host's init system would. */
export class Daemon {
  readonly node: string;
  readonly configFile: string;
  /** Of its admin port. */
  readonly url: string;
  /** Of all its lives, oldest first. */
  readonly lines: LogLine[] = [];
  /** Rules its store, where it was prepared with one. */
  readonly faultsFile: string | undefined;
  #child: ChildProcess | null = null;
  #exited: Promise<Exit> | null = null;
  #frozen = false;
  #toldToEnd = false;
  #bornAt = 0;

  constructor(options: { node: string; configFile: string; url: string; faultsFile: string | undefined }) {
    this.node = options.node;
    this.configFile = options.configFile;
    this.url = options.url;
    this.faultsFile = options.faultsFile;
  }

  /** Starts the process; resolves once it runs, not when it has a role. */
  async start(...extraArgs: string[]): Promise<void> {
    if (this.running) throw new Error(`${this.node} runs already`);
    await this.demandNoSurprise();
    const args = ['run', '--init', '-c', this.configFile, ...extraArgs];
    const { faultsFile } = this;
    const env = { ...process.env, ...(faultsFile && { ...FAULTY_ENV, SHIPMATE_TEST_FAULTS: faultsFile }) };
    const stdio: ['ignore', 'ignore', 'pipe'] = ['ignore', 'ignore', 'pipe'];
    const program = faultsFile ? [NODE, '--max-semi-space-size=1', FAULTY_DAEMON] : [SHIPMATE];
    // Ends with the test that started it, however that ends.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...program, ...args], { stdio, env });
    this.#child = child;
    this.#frozen = false;
    this.#toldToEnd = false;
    this.#bornAt = this.mark();
    this.#exited = this.#follow(child);
    await once(child, 'spawn');
  }

  get running(): boolean {
    return this.#child !== null && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  get frozen(): boolean {
    return this.running && this.#frozen;
  }

  /** As it last said itself. */
  get role(): string {
    const said = this.lines.slice(this.#bornAt).findLast(({ message }) => message.startsWith('role: '));
    return said?.message.slice('role: '.length) ?? 'starting';
  }

  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new Error(`${this.node} was not started`);
    return pid;
  }

  /** How its present (or last) life ended. */
  get exited(): Promise<Exit> {
    if (this.#exited === null) throw new Error(`${this.node} was not started`);
    return this.#exited;
  }

  signal(signal: NodeJS.Signals): void {
    if (signal !== 'SIGSTOP' && signal !== 'SIGCONT') this.#toldToEnd = true;
    this.#child?.kill(signal);
  }

  /** Throws where its last life ended without being told to: a test must not pass over that. */
  async demandNoSurprise(): Promise<void> {
    if (this.#exited === null || this.running || this.#toldToEnd) return;
    throw new Error(`${this.node} ended by itself: ${JSON.stringify(await this.#exited)}\n${this.tail()}`);
  }

  freeze(): void {
    this.#frozen = true;
    this.signal('SIGSTOP');
  }

  thaw(): void {
    this.#frozen = false;
    this.signal('SIGCONT');
  }

  /** SIGKILL, and waits until it is gone. */
  async kill(): Promise<void> {
    if (!this.running) return;
    this.signal('SIGKILL');
    await this.exited;
  }

  /** SIGTERM, and waits until it has left in order; SIGKILL when it does not. */
  async stop(withinMs = 10_000): Promise<Exit> {
    if (this.frozen) this.thaw();
    if (this.running) this.signal('SIGTERM');
    const timer = setTimeout(() => this.signal('SIGKILL'), withinMs);
    const exit = await this.exited;
    clearTimeout(timer);
    return exit;
  }

  /** A mark in its log: what comes later is found with `logged(…, {since})`. */
  mark(): number {
    return this.lines.length;
  }

  /** The first line, after the mark, whose message matches. */
  async logged(pattern: RegExp, { since = 0, ...wait }: WaitOptions & { since?: number } = {}): Promise<LogLine> {
    return until(
      `${this.node} logs ${pattern}`,
      () => this.lines.slice(since).find(({ message }) => pattern.test(message)),
      { everyMs: 5, describe: () => this.tail(), ...wait },
    );
  }

  /** The next term that it opens after the mark: its number, and when that was heard of. */
  async becomesMaster(options: WaitOptions & { since?: number } = {}): Promise<{ term: number; atMs: number }> {
    const line = await this.logged(/^master of term \d+/, options);
    return { term: Number(/\d+/.exec(line.message)?.[0]), atMs: line.atMs };
  }

  /** Its last lines, for the report of a failure. */
  tail(count = 25): string {
    const lines = this.lines.slice(-count).map(({ level, message, atMs: _, time, ...fields }) => {
      return `  ${this.node} ${time} ${level} ${message} ${JSON.stringify(fields).slice(0, 400)}`;
    });
    return [`last lines of ${this.node}${this.running ? '' : ' (ended)'}:`, ...lines].join('\n');
  }

  async #follow(child: ChildProcess): Promise<Exit> {
    let stderr = '';
    const lines = createInterface({ input: child.stderr! });
    lines.on('line', (text) => {
      const line = logLine(text);
      if (line) this.lines.push(line);
      else stderr += `${text}\n`;
    });
    const [[code, signal]] = await Promise.all([once(child, 'exit'), once(lines, 'close')]);
    return { code, signal, stderr };
  }
}

function logLine(text: string): LogLine | null {
  try {
    const { level, message, ...fields } = JSON.parse(text);
    return typeof message === 'string' ? { ...fields, level, message, atMs: performance.now() } : null;
  } catch {
    return null;
  }
}

/** Writes the daemon's config; `start` it when it is wanted. */
export async function prepareDaemon(options: DaemonOptions): Promise<Daemon> {
  const { node, dir, faults } = options;
  const configFile = join(dir, 'shipmate.yaml');
  const listen = `127.0.0.1:${await freePort()}`;
  await mkdir(dir, { recursive: true });
  await writeFile(configFile, stringify(configOf(options, listen)));
  return new Daemon({ node, configFile, url: `http://${listen}`, faultsFile: faults });
}

export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const daemon = await prepareDaemon(options);
  await daemon.start();
  return daemon;
}

function configOf(options: DaemonOptions, listen: string): object {
  const { node, dir, cluster = 'acme', endpoints, ttl = '2s', tls, onEtcdLoss = 'continue', limits } = options;
  const { storePath, prefix = '', stream = 'orders', source, chunk = {}, recipients } = options;
  const store = options.store ?? { type: 'file', path: storePath };
  const { copies = {}, delay = '0s', ack = 1 } = options;
  // Their order is given: how much room their file system has may differ from one look to the next.
  const plan = { copies: Object.keys(copies), order: Object.keys(copies), delay, ack };
  const others = Object.entries(copies).map(([name, path]) => [name, { type: 'file', path }]);
  return {
    node,
    cluster,
    stateDir: join(dir, 'state'),
    coordination: endpoints ? { etcd: { endpoints, ttl, ...(tls && { tls }) } } : 'solo',
    onEtcdLoss,
    stores: { main: { ...store, ...(prefix && { prefix }) }, ...Object.fromEntries(others) },
    ...(others.length > 0 && { plans: { several: { primary: 'main', ...plan } } }),
    streams: {
      [stream]: {
        source: { type: 'mariadb', ...source },
        ...(others.length > 0 ? { plan: 'several' } : { store: 'main' }),
        chunk: { maxDelay: '20ms', ...chunk },
        ...(recipients && { encrypt: { recipients } }),
      },
    },
    ...(limits && { limits }),
    admin: { listen },
  };
}

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly tookMs: number;
}

/** Carries out a `shipmate` command with a config; never throws for its exit code. */
export async function shipmate(configFile: string, ...args: string[]): Promise<Outcome> {
  const beganMs = performance.now();
  const child = spawn(SHIPMATE, [...args, '-c', configFile], { stdio: ['ignore', 'pipe', 'pipe'], env: process.env });
  const endWithUs = () => child.kill('SIGKILL');
  process.once('exit', endWithUs);
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text;
  });
  const [code] = await once(child, 'close');
  process.off('exit', endWithUs);
  return { code: typeof code === 'number' ? code : -1, stdout, stderr, tookMs: performance.now() - beganMs };
}
