import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { StatusReport, StreamStatus, TwinStatus } from '../../src/core/status.ts';
import { ChainReader } from './archive.ts';
import { type Daemon, type Outcome, shipmate } from './daemon.ts';
import type { Etcd } from './etcd.ts';
import { type Proxy as NetworkProxy, startProxy } from './proxy.ts';
import { until, type WaitOptions } from './wait.ts';

export const STREAM = 'orders';
export const TTL_MS = 2_000;

/** The network between one daemon and etcd. */
export interface EtcdLink {
  cut(): void;
  heal(): void;
}

export type Proxies = ReadonlyMap<string, readonly NetworkProxy[]>;

/** One proxy in front of each etcd node, for each daemon. */
export async function startProxies(etcd: Etcd, nodes: readonly string[]): Promise<Proxies> {
  const links = await Promise.all(
    nodes.map(async (node) => [node, await Promise.all(etcd.endpoints.map(startProxy))] as const),
  );
  return new Map(links);
}

export interface TwinsParts {
  /** A folder for all of them. */
  readonly dir: string;
  readonly etcd: Etcd;
  /** Where the archive's objects can be read as files. */
  readonly storePath: string;
  readonly daemons: readonly Daemon[];
  /** By node, in front of each etcd node. */
  readonly proxies: Proxies;
}

/** Real daemons of one stream, with their etcd and store: what every test of them asks and waits for. */
export class Twins {
  readonly dir: string;
  readonly etcd: Etcd;
  readonly storePath: string;
  readonly daemons: readonly Daemon[];
  readonly chain: ChainReader;
  protected readonly proxies: Proxies;
  #restores = 0;

  constructor({ dir, etcd, storePath, daemons, proxies }: TwinsParts) {
    this.dir = dir;
    this.etcd = etcd;
    this.storePath = storePath;
    this.daemons = daemons;
    this.proxies = proxies;
    this.chain = new ChainReader({ root: storePath });
  }

  protected async stopDaemons(): Promise<void> {
    await Promise.all(this.daemons.map((daemon) => daemon.kill()));
    await Promise.all([...this.proxies.values()].flat().map((proxy) => proxy.stop()));
  }

  daemon(node: string): Daemon {
    const found = this.daemons.find((daemon) => daemon.node === node);
    if (!found) throw new Error(`no daemon ${node}`);
    return found;
  }

  /** The twin of a daemon. */
  other(daemon: Daemon): Daemon {
    return this.daemons.find((one) => one !== daemon)!;
  }

  link(daemon: Daemon): EtcdLink {
    const proxies = this.proxies.get(daemon.node) ?? [];
    return {
      cut: () => {
        for (const proxy of proxies) proxy.cut();
      },
      heal: () => {
        for (const proxy of proxies) proxy.heal();
      },
    };
  }

  /** The daemon that owns the open term, as the store tells it. */
  async master(wait: WaitOptions = {}): Promise<Daemon> {
    const node = await until(
      'a term is open',
      async () => {
        const last = (await this.chain.reigns()).at(-1);
        return last && last.sealedBy === null ? last.node : null;
      },
      { describe: () => this.tails(), ...wait },
    );
    return this.daemon(node);
  }

  /** Starts the daemons that do not run, and waits until one leads and every other could take over. */
  async ready(wait: WaitOptions = {}): Promise<{ master: Daemon; standby: Daemon }> {
    for (const daemon of this.daemons) if (!daemon.running) await daemon.start();
    const stream = await until(
      'one daemon leads, and the others are ready',
      async () => {
        const told = await this.told();
        const leads = told.twins.some(({ node, role }) => role === 'master' && node === told.master);
        return leads && told.twins.length === this.daemons.length && told.twins.every(({ ready }) => ready) && told;
      },
      // Daemons that start have better things to do than to answer.
      { everyMs: 100, describe: () => this.tails(), ...wait },
    );
    const master = this.daemon(stream.master ?? '');
    return { master, standby: this.other(master) };
  }

  /** Hands the term to the daemon of a host. */
  async leads({ daemon }: { readonly daemon: Daemon }): Promise<void> {
    const { master } = await this.ready();
    if (master === daemon) return;
    await this.succeed(master, 'handover', STREAM, '--to', daemon.node);
    await until(`${daemon.node} leads`, async () => (await this.ready()).master === daemon);
  }

  /** Waits until what the daemon of a host tells the twins of itself matches. */
  async says({ daemon }: { readonly daemon: Daemon }, reason: RegExp): Promise<TwinStatus> {
    let last = '';
    return until(
      `${daemon.node} says ${reason}`,
      async () => {
        const twin = (await this.told()).twins.find(({ node }) => node === daemon.node);
        last = JSON.stringify(twin);
        return twin && reason.test(twin.reason) && twin;
      },
      { describe: () => `${last}\n${this.tails()}` },
    );
  }

  /** The stream as some running daemon tells it over HTTP: cheaper than a command. */
  async told(): Promise<StreamStatus> {
    const running = this.daemons.filter((one) => one.running && !one.frozen);
    return Promise.any(running.map((daemon) => this.#ask(daemon)));
  }

  async #ask({ node, url }: Daemon): Promise<StreamStatus> {
    const response = await fetch(`${url}/api/v1/status`, { signal: AbortSignal.timeout(5_000) });
    if (!response.ok) throw new Error(`${node} answers ${response.status}: ${await response.text()}`);
    return streamIn(JSON.parse(await response.text()));
  }

  /** What `shipmate status --json` prints. */
  async status(from: Daemon = this.daemons[0]!): Promise<StreamStatus> {
    const { stdout } = await this.succeed(from, 'status', '--json');
    return streamIn(JSON.parse(stdout));
  }

  /** A command that must succeed. */
  async succeed(from: Daemon, ...args: string[]): Promise<Outcome> {
    const outcome = await shipmate(from.configFile, ...args);
    if (outcome.code !== 0) throw new Error(`shipmate ${args.join(' ')}: exit ${outcome.code}\n${outcome.stderr}`);
    return outcome;
  }

  /** Waits until something that was committed just now is in the archive: it is shipped on. */
  async ships(wait: WaitOptions = {}): Promise<void> {
    const count = (await this.chain.read()).filter(({ header }) => header.kind === 'chunk').length;
    await until(
      'further chunks are shipped',
      async () => (await this.chain.read()).filter(({ header }) => header.kind === 'chunk').length >= count + 3,
      { describe: () => this.tails(), ...wait },
    );
  }

  /** Restores into a new folder, and returns it. */
  async restore(...args: string[]): Promise<string> {
    const to = join(this.dir, `restored-${this.#restores++}`);
    await mkdir(to);
    await this.succeed(this.daemons[0]!, 'restore', STREAM, '--to', to, ...args);
    return to;
  }

  /** One line on the archive as it is now. */
  async figures(): Promise<string> {
    const [reigns, links, orphans] = await Promise.all([this.chain.reigns(), this.chain.read(), this.chain.orphans()]);
    return `${reigns.length} terms, ${links.length} objects, ${orphans.length} of deposed masters outside the chain`;
  }

  tails(): string {
    return this.daemons.map((daemon) => daemon.tail()).join('\n');
  }
}

function streamIn(report: StatusReport): StreamStatus {
  const stream = report.streams.find(({ name }) => name === STREAM);
  if (!stream) throw new Error(`the status has no stream ${STREAM}: ${JSON.stringify(report)}`);
  return stream;
}
