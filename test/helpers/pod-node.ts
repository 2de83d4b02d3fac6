import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/**
 * As much of a Kubernetes node as this machine can give without a container engine: a network of its own with an address
 * for each pod, and the names by which pods find each other. It takes root, and namespaces.
 */

/** Why there can be no node, for the report of a test that is skipped; null where there can. */
export const noNode = canMakePods() ? null : 'this user may make no namespaces, bridges and overlays (root may)';

function canMakePods(): boolean {
  const script = `
    ip link add br0 type bridge
    mount -t tmpfs tmpfs /mnt && mkdir /mnt/upper /mnt/work /mnt/root
    mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root`;
  return spawnSync('unshare', ['--net', '--mount', '--pid', '--fork', 'sh', '-ec', script]).status === 0;
}

const NETWORK = '10.99.0';

/** Ends with the test that started it, however that ends. */
export const mortal = ['--pdeathsig', 'KILL', '--'];

interface HttpAsk {
  readonly body?: object;
  readonly timeoutSeconds?: number;
}

export class PodNode {
  readonly dir: string;
  readonly address = `${NETWORK}.1`;
  readonly #anchor: ChildProcess;
  readonly #addresses: ReadonlyMap<string, string>;
  readonly #pods = new Map<string, ChildProcess>();
  readonly #processes: ChildProcess[] = [];

  private constructor(dir: string, anchor: ChildProcess, addresses: ReadonlyMap<string, string>) {
    this.dir = dir;
    this.#anchor = anchor;
    this.#addresses = addresses;
  }

  /** `pods`: their names, `mariadb-0`; each is found as `mariadb-0.mariadb`, as by its headless Service. */
  static async start(pods: readonly string[]): Promise<PodNode> {
    const dir = mkdtempSync(join(tmpdir(), 'shipmate-node-'));
    const addresses = new Map(pods.map((pod, at) => [pod, `${NETWORK}.${at + 2}`]));
    const names = [...addresses].map(([pod, address]) => `${address} ${pod}.${pod.replace(/-\d+$/, '')} ${pod}`);
    writeFileSync(join(dir, 'hosts'), ['127.0.0.1 localhost', ...names, ''].join('\n'));
    const anchor = await hold(['unshare', '--net']);
    const node = new PodNode(dir, anchor, addresses);
    node.#ip('link add br0 type bridge');
    node.#ip(`addr add ${node.address}/24 dev br0`);
    node.#ip('link set br0 up');
    node.#ip('link set lo up');
    for (const pod of pods) await node.#connect(pod);
    return node;
  }

  /** The pods' /etc/hosts. */
  get hosts(): string {
    return join(this.dir, 'hosts');
  }

  addressOf(pod: string): string {
    return this.#addresses.get(pod) ?? '';
  }

  /** The arguments of nsenter that lead into a pod's network, or into the node's. */
  network(pod?: string): string {
    const { pid } = pod === undefined ? this.#anchor : this.#pods.get(pod)!;
    return `--net=/proc/${pid}/ns/net`;
  }

  /** A process in the node's network; it ends with the node. */
  spawn(program: string, ...args: string[]): void {
    const command = [...mortal, 'nsenter', this.network(), program, ...args];
    this.#processes.push(spawn('setpriv', command, { stdio: ['ignore', 'ignore', 'inherit'] }));
  }

  /** The status of an HTTP answer, as the kubelet would get it; null where there is none. `body`: what is posted. */
  async httpStatus(url: string, { body, timeoutSeconds = 1 }: HttpAsk = {}): Promise<number | null> {
    const options = body && {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    };
    const ask = `fetch('${url}', { ...${JSON.stringify(options ?? {})}, signal: AbortSignal.timeout(${timeoutSeconds * 1000}) })
      .then(({ status }) => status, () => null).then(console.log)`;
    const args = [this.network(), process.execPath, '-e', ask];
    const child = spawn('nsenter', args, { stdio: ['ignore', 'pipe', 'inherit'] });
    let text = '';
    child.stdout.on('data', (piece) => {
      text += piece;
    });
    await once(child, 'close');
    return JSON.parse(text);
  }

  /** Whether anybody listens there. */
  accepts(address: string, port: number): boolean {
    return spawnSync('nsenter', [this.network(), 'bash', '-c', `: </dev/tcp/${address}/${port}`]).status === 0;
  }

  /** Ends what runs in the node's network, and the network. Pods are deleted before. */
  async stop(): Promise<void> {
    const all = [...this.#processes, ...this.#pods.values(), this.#anchor];
    await Promise.all(all.map(end));
    rmSync(this.dir, { recursive: true, force: true });
  }

  async #connect(pod: string): Promise<void> {
    const anchor = await hold(['unshare', '--net']);
    this.#pods.set(pod, anchor);
    const link = `pod${this.#pods.size}`;
    this.#ip(`link add ${link} type veth peer name eth0 netns ${anchor.pid}`);
    this.#ip(`link set ${link} master br0 up`);
    this.#ip(`addr add ${this.addressOf(pod)}/24 dev eth0`, pod);
    this.#ip('link set eth0 up', pod);
    this.#ip('link set lo up', pod);
  }

  #ip(command: string, pod?: string): void {
    execFileSync('nsenter', [this.network(pod), 'ip', ...command.split(' ')], { stdio: ['ignore', 'ignore', 'pipe'] });
  }
}

/** A process that does nothing but keep its namespaces; resolves once it has them. */
async function hold(unshare: readonly string[]): Promise<ChildProcess> {
  const command = [...mortal, ...unshare, 'sh', '-c', 'echo ready; exec sleep infinity'];
  const child = spawn('setpriv', command, { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(createInterface({ input: child.stdout }), 'line');
  return child;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill('SIGKILL');
  await gone;
}
