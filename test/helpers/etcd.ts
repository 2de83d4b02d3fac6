import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { type Certificates, makeCertificates } from './certificates.ts';
import { freePorts } from './ports.ts';

const run = promisify(execFile);

export interface EtcdOptions {
  readonly nodes?: 1 | 3;
  /** Serves TLS; `mutual` also demands a client certificate. */
  readonly tls?: boolean | 'mutual';
  /** How long its certificates are good. */
  readonly tlsDays?: number;
  /** Turns passwords on: a root user, and one `shipmate` with rights on /shipmate/ only. */
  readonly auth?: boolean;
  /** How large its database may grow before it takes no more writes. */
  readonly quotaBytes?: number;
}

export interface EtcdNode {
  readonly endpoint: string;
  readonly pid: number;
  kill(signal: NodeJS.Signals): Promise<void>;
  freeze(): void;
  thaw(): void;
  /** Ends it if it runs, and starts it on the same ports: empty (`wipe`), or on what `copyData` returned (`from`). */
  restart(options?: { wipe?: boolean; from?: string }): Promise<void>;
  /** Ends it, copies its data aside and starts it again. */
  copyData(): Promise<string>;
  stop(): Promise<void>;
}

export interface Etcd {
  readonly endpoints: string[];
  readonly nodes: EtcdNode[];
  readonly tls: Certificates | null;
  readonly login: { readonly username: string; readonly password: string } | null;
  /** What etcdctl prints, as root. */
  ctl(...args: string[]): Promise<string>;
  /** Turns passwords on again, after a wipe. */
  demandPasswords(): Promise<void>;
  stop(): Promise<void>;
}

const ROOT_PASSWORD = 'root-password';
const LOGIN = { username: 'shipmate', password: 'shipmate-password' };
const READY_WITHIN_MS = 15_000;

/** Starts a real etcd on free loopback ports, in a temporary folder; `stop` ends and removes it. */
export async function startEtcd(options: EtcdOptions = {}): Promise<Etcd> {
  const { nodes: count = 1, tls = false, tlsDays, auth = false, quotaBytes } = options;
  const dir = await mkdtemp(join(tmpdir(), 'shipmate-etcd-'));
  const certificates = tls ? makeCertificates(dir, { ...(tlsDays && { days: tlsDays }) }) : null;
  const scheme = tls ? 'https' : 'http';
  const ports = await freePorts(count * 2);
  const peers = Array.from({ length: count }, (_, n) => `http://127.0.0.1:${ports[count + n]}`);
  const cluster = peers.map((peer, n) => `n${n}=${peer}`).join(',');

  const servers = peers.map((peer, n) => {
    const endpoint = `${scheme}://127.0.0.1:${ports[n]}`;
    const dataDir = join(dir, `n${n}`);
    const args = [
      ...['--name', `n${n}`, '--data-dir', dataDir, '--logger', 'zap', '--log-level', 'error'],
      ...['--listen-client-urls', endpoint, '--advertise-client-urls', endpoint],
      ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer, '--initial-cluster', cluster],
      // Quick elections, and leases as short as one second.
      ...['--heartbeat-interval', '60', '--election-timeout', '300'],
      ...(quotaBytes === undefined ? [] : ['--quota-backend-bytes', String(quotaBytes)]),
      ...(certificates ? ['--cert-file', certificates.cert, '--key-file', certificates.key] : []),
      ...(tls === 'mutual' && certificates ? ['--client-cert-auth', '--trusted-ca-file', certificates.ca] : []),
    ];
    return new Server({ endpoint, dataDir, args });
  });

  const endpoints = servers.map((server) => server.endpoint);
  const stop = async () => {
    await Promise.all(servers.map((server) => server.stop()));
    await rm(dir, { recursive: true, force: true });
  };
  const etcdctl = async (user: string[], ...args: string[]) => {
    const trust = certificates
      ? ['--cacert', certificates.ca, '--cert', certificates.cert, '--key', certificates.key]
      : [];
    const env = { ...process.env, ETCDCTL_API: '3' };
    return (await run('etcdctl', ['--endpoints', endpoints.join(','), ...trust, ...user, ...args], { env })).stdout;
  };
  try {
    await Promise.all(servers.map((server) => server.start()));
    await until('etcd serves', READY_WITHIN_MS, async () => {
      await etcdctl(['--command-timeout', '1s'], 'get', 'any');
      return true;
    });
    if (auth) await demandPasswords((...args) => etcdctl([], ...args));
  } catch (error) {
    await stop();
    throw error;
  }
  const asRoot = auth ? ['--user', `root:${ROOT_PASSWORD}`] : [];
  return {
    endpoints,
    nodes: servers,
    tls: certificates,
    login: auth ? LOGIN : null,
    ctl: (...args) => etcdctl(asRoot, ...args),
    demandPasswords: () => demandPasswords((...args) => etcdctl([], ...args)),
    stop,
  };
}

async function demandPasswords(etcdctl: (...args: string[]) => Promise<string>): Promise<void> {
  await etcdctl('user', 'add', `root:${ROOT_PASSWORD}`);
  await etcdctl('user', 'grant-role', 'root', 'root');
  await etcdctl('role', 'add', 'shipmate');
  await etcdctl('role', 'grant-permission', '--prefix=true', 'shipmate', 'readwrite', '/shipmate/');
  await etcdctl('user', 'add', `${LOGIN.username}:${LOGIN.password}`);
  await etcdctl('user', 'grant-role', LOGIN.username, 'shipmate');
  await etcdctl('auth', 'enable');
}

class Server implements EtcdNode {
  readonly endpoint: string;
  readonly #dataDir: string;
  readonly #args: readonly string[];
  #child: ChildProcess | null = null;
  #copies = 0;

  constructor({ endpoint, dataDir, args }: { endpoint: string; dataDir: string; args: readonly string[] }) {
    this.endpoint = endpoint;
    this.#dataDir = dataDir;
    this.#args = args;
  }

  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new Error(`etcd at ${this.endpoint} does not run`);
    return pid;
  }

  /** Returns once its port answers. */
  async start(): Promise<void> {
    // Ends with the test that started it, however that ends.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', 'etcd', ...this.#args], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let stderr = '';
    child.stderr.on('data', (text) => {
      stderr = `${stderr}${text}`.slice(-4_000);
    });
    this.#child = child;
    await until(`etcd listens at ${this.endpoint}`, READY_WITHIN_MS, async () => {
      if (child.exitCode !== null) throw new Error(`etcd ended: ${stderr}`);
      return listens(Number(new URL(this.endpoint).port));
    });
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    await gone;
  }

  freeze(): void {
    process.kill(this.pid, 'SIGSTOP');
  }

  thaw(): void {
    process.kill(this.pid, 'SIGCONT');
  }

  async restart({ wipe = false, from }: { wipe?: boolean; from?: string } = {}): Promise<void> {
    await this.stop();
    if (wipe || from) await rm(this.#dataDir, { recursive: true, force: true });
    if (from) await cp(from, this.#dataDir, { recursive: true });
    await this.start();
  }

  async copyData(): Promise<string> {
    await this.stop();
    const copy = `${this.#dataDir}-copy-${this.#copies++}`;
    await cp(this.#dataDir, copy, { recursive: true });
    await this.start();
    return copy;
  }

  async stop(): Promise<void> {
    await this.kill('SIGKILL');
  }
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

async function until(what: string, withinMs: number, holds: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const failure = await holds().then(
      (held) => (held ? null : new Error('not yet')),
      (error: unknown) => error,
    );
    if (failure === null) return;
    if (performance.now() > deadline) throw new Error(`waited ${withinMs} ms in vain: ${what}`, { cause: failure });
    await delay(20);
  }
}
