import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ConfigMap } from 'kubernetes-models/v1/ConfigMap';
import type { IContainer } from 'kubernetes-models/v1/Container';
import type { IProbe } from 'kubernetes-models/v1/Probe';
import type { IVolume } from 'kubernetes-models/v1/Volume';
import type { Resource } from './manifests.ts';
import { mortal, type PodNode } from './pod-node.ts';
import { type Pods, podsOf } from './pod-policy.ts';
import { until } from './wait.ts';

const ROOT = join(import.meta.dirname, '..', '..');

/** What the images are known for: whom uid 999 is called, and the signal that stops the program. */
const IMAGES = [
  { image: 'library/mariadb', user: 'mysql', stopSignal: 'SIGTERM' },
  { image: 'library/postgres', user: 'postgres', stopSignal: 'SIGINT' },
] as const;
const imageOf = ({ image = '' }: IContainer) =>
  IMAGES.find((one) => image.includes(one.image)) ?? { user: 'nobody', stopSignal: 'SIGTERM' as const };
const PATH =
  '/opt/shipmate/bin:/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

export interface Ran {
  readonly code: number | null;
  readonly output: string;
}

export interface PodOptions {
  readonly node: PodNode;
  /** As rendered. */
  readonly resources: readonly Resource[];
  readonly set: string;
  readonly ordinal: number;
  readonly secrets?: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

interface Running {
  readonly container: IContainer;
  readonly child: ChildProcess;
  readonly exited: Promise<unknown>;
}

/**
 * A pod of a StatefulSet as its resources say: its containers with the file system, volumes, user, groups, rights, names and
 * network that the kubelet would give them; only the images' own files are this machine's. Claims outlive `delete`.
 */
export class Pod {
  readonly name: string;
  readonly #options: PodOptions;
  readonly #pods: Pods;
  readonly #dir: string;
  readonly #running = new Map<string, Running>();
  #output = '';

  constructor(options: PodOptions) {
    this.#options = options;
    this.name = `${options.set}-${options.ordinal}`;
    this.#pods = podsOf(options.resources).find(({ name }) => name === options.set)!;
    this.#dir = join(options.node.dir, this.name);
  }

  get containers(): readonly IContainer[] {
    return this.#pods.spec.containers;
  }

  /** The end of what its containers wrote, for the report of a failure. */
  get tail(): string {
    return `${this.name}:\n${this.#output.slice(-4000)}`;
  }

  /** Carries out the init containers, one after the other, and starts the others. */
  async start(): Promise<void> {
    const { spec, claims } = this.#pods;
    for (const name of claims) this.#directory(name, 0o2775);
    for (const volume of spec.volumes ?? []) this.#provide(volume);
    for (const container of spec.initContainers ?? []) {
      const { child, exited } = this.#run(container);
      await exited;
      if (child.exitCode !== 0) throw new Error(`${container.name} ended with ${child.exitCode}\n${this.tail}`);
    }
    for (const container of spec.containers) this.#running.set(container.name, this.#run(container));
  }

  /** Resolves once every container's probes pass. */
  async ready(): Promise<void> {
    await until(
      `${this.name} is ready`,
      async () => {
        for (const { name, startupProbe, readinessProbe } of this.containers) {
          if (!(await this.probe(name, startupProbe)) || !(await this.probe(name, readinessProbe))) return false;
        }
        return true;
      },
      { describe: () => this.tail, everyMs: 200 },
    );
  }

  /** Looks as the kubelet does; a container without that probe passes. */
  async probe(container: string, probe: IProbe | undefined): Promise<boolean> {
    const { node } = this.#options;
    const ports = this.#containerOf(container).ports ?? [];
    const portOf = (name: unknown) => ports.find((port) => port.name === name)?.containerPort;
    if (probe?.exec) return (await this.exec(container, ...(probe.exec.command ?? []))).code === 0;
    if (probe?.httpGet) {
      const url = this.urlOf(portOf(probe.httpGet.port) ?? 0, probe.httpGet.path);
      const status = await node.httpStatus(url, { timeoutSeconds: probe.timeoutSeconds ?? 1 });
      return status !== null && status >= 200 && status < 400;
    }
    if (probe?.tcpSocket) return node.accepts(node.addressOf(this.name), portOf(probe.tcpSocket.port) ?? 0);
    return true;
  }

  /** As the node reaches it. */
  urlOf(port: number, path = '/'): string {
    return `http://${this.#options.node.addressOf(this.name)}:${port}${path}`;
  }

  /** `kubectl exec`: in the container's file system, names and network, as its user. */
  async exec(container: string, ...command: string[]): Promise<Ran> {
    const running = this.#running.get(container);
    const pid = running ? insideOf(running.child) : undefined;
    if (pid === undefined) return { code: null, output: `${container} does not run` };
    const enter = ['--target', String(pid), '--mount', '--uts', '--net', '--pid', '--root', '--wd'];
    const args = [...enter, ...this.#asItsUser(this.#containerOf(container)), ...command];
    const child = spawn('nsenter', args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        output += text;
      });
    }
    await once(child, 'close');
    return { code: child.exitCode, output };
  }

  /** `exec` that must succeed; what it wrote. */
  async run(container: string, ...command: string[]): Promise<string> {
    const { code, output } = await this.exec(container, ...command);
    if (code !== 0) throw new Error(`${this.name}: ${command.join(' ')} ended with ${code}: ${output}`);
    return output.trim();
  }

  /**
   * Ends it as the kubelet does: every container's preStop hook and then its signal, all containers at once, bounded by the
   * grace period. Returns what the hooks and the containers ended with, `shipmate preStop` and `shipmate`.
   */
  async delete(): Promise<Record<string, Ran>> {
    const ends: Record<string, Ran> = {};
    const graceMs = (this.#pods.spec.terminationGracePeriodSeconds ?? 30) * 1000;
    const one = async ({ container, child, exited }: Running) => {
      const hook = container.lifecycle?.preStop?.exec?.command;
      if (hook) ends[`${container.name} preStop`] = await this.exec(container.name, ...hook);
      kill(insideOf(child), imageOf(container).stopSignal);
      const timer = setTimeout(() => kill(insideOf(child), 'SIGKILL'), graceMs);
      await exited;
      clearTimeout(timer);
      ends[container.name] = { code: child.exitCode, output: '' };
    };
    await Promise.all([...this.#running.values()].map(one));
    this.#running.clear();
    return ends;
  }

  /** Its host dies. */
  async die(): Promise<void> {
    const all = [...this.#running.values()];
    for (const { child } of all) kill(insideOf(child), 'SIGKILL');
    await Promise.all(all.map(({ exited }) => exited));
    this.#running.clear();
  }

  /** To every container's program. */
  signal(signal: NodeJS.Signals): void {
    for (const { child } of this.#running.values()) kill(insideOf(child), signal);
  }

  /** Its claims are deleted with what is on them. */
  loseVolumes(): void {
    rmSync(this.#dir, { recursive: true });
  }

  /** Of a container's program: resident memory and processor time so far. */
  usage(container: string): { residentBytes: number; cpuSeconds: number } {
    const pid = insideOf(this.#running.get(container)!.child);
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /, '')
      .split(' ');
    return {
      residentBytes: Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) * 1024,
      cpuSeconds: (Number(fields[11]) + Number(fields[12])) / 100,
    };
  }

  #containerOf(name: string): IContainer {
    return [...this.containers, ...(this.#pods.spec.initContainers ?? [])].find((one) => one.name === name)!;
  }

  #directory(name: string, mode: number): string {
    const path = join(this.#dir, 'volumes', name);
    mkdirSync(path, { recursive: true });
    chownSync(path, 0, this.#pods.spec.securityContext?.fsGroup ?? 0);
    chmodSync(path, mode);
    return path;
  }

  /** Makes what a volume holds when a pod begins. */
  #provide({ name, emptyDir, configMap, secret }: IVolume): void {
    const path = join(this.#dir, 'volumes', name);
    rmSync(path, { recursive: true, force: true });
    this.#directory(name, emptyDir ? 0o2777 : 0o2755);
    const { resources, secrets = {} } = this.#options;
    const map = resources.filter(ConfigMap.is).find(({ metadata }) => metadata?.name === configMap?.name);
    const data = secret ? (secrets[secret.secretName ?? ''] ?? {}) : (map?.data ?? {});
    const items = (configMap ?? secret)?.items ?? Object.keys(data).map((key) => ({ key, path: key }));
    for (const item of items) {
      const file = join(path, item.path);
      writeFileSync(file, data[item.key] ?? '');
      chownSync(file, 0, this.#pods.spec.securityContext?.fsGroup ?? 0);
      chmodSync(file, (configMap ?? secret)?.defaultMode ?? 0o644);
    }
  }

  #run(container: IContainer): Running {
    const script = join(this.#dir, `${container.name}.sh`);
    writeFileSync(script, this.#script(container));
    const { node } = this.#options;
    const namespaces = ['unshare', '--mount', '--uts', '--pid', '--fork', '--kill-child=KILL'];
    const command = [...mortal, 'nsenter', node.network(this.name), ...namespaces, 'sh', '-e', script];
    const child = spawn('setpriv', command, { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        this.#output += text.replace(/^(?=.)/gm, `${container.name}| `);
      });
    }
    return { container, child, exited: once(child, 'close') };
  }

  /** Builds the container's file system, and becomes its program. */
  #script(container: IContainer): string {
    const { node } = this.#options;
    const root = join(this.#dir, `${container.name}.root`);
    mkdirSync(root, { recursive: true });
    const mounts = (container.volumeMounts ?? []).map(({ name, mountPath, subPath, readOnly }) => ({
      from: join(this.#dir, 'volumes', name, subPath ?? ''),
      to: `"$root"${quoted(mountPath)}`,
      readOnly,
    }));
    return `
hostname ${quoted(this.name)}
mount -t tmpfs tmpfs ${quoted(root)}
cd ${quoted(root)} && mkdir upper work root && root=$PWD/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$PWD/upper,workdir=$PWD/work" "$root"
printf 'root:x:0:0::/:/bin/sh\\n%s:x:999:999::/:/bin/sh\\n' ${imageOf(container).user} >"$root/etc/passwd"
rm -f "$root/etc/hosts" && cp ${quoted(node.hosts)} "$root/etc/hosts"
rm -rf "$root/run" "$root/opt/shipmate" && mkdir -p "$root/run" "$root/opt/shipmate"
mount --bind ${quoted(ROOT)} "$root/opt/shipmate" && mount -o remount,bind,ro "$root/opt/shipmate"
mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev"
mkdir -p ${mounts.map(({ to }) => to).join(' ')}
${container.securityContext?.readOnlyRootFilesystem ? 'mount -o remount,ro "$root"' : ''}
${mounts
  .map(
    ({ from, to, readOnly }) =>
      `mount --bind ${quoted(from)} ${to}${readOnly ? ` && mount -o remount,bind,ro ${to}` : ''}`,
  )
  .join('\n')}
cd / && exec chroot "$root" ${this.#program(container).map(quoted).join(' ')}
`;
  }

  #program(container: IContainer): string[] {
    const { command = ['shipmate'], args = [] } = container;
    const environment = new Map(this.#environment(container));
    const given = [...command, ...args].map((text) =>
      text.replace(/\$\((\w+)\)/g, (same, name: string) => environment.get(name) ?? same),
    );
    return [...this.#asItsUser(container), ...given];
  }

  #asItsUser(container: IContainer): string[] {
    const { runAsUser, runAsGroup } = container.securityContext ?? {};
    // With this process' user its wish to end with its parent would be lost: it is told last.
    const rights = ['--no-new-privs', '--bounding-set=-all', '--inh-caps=-all', '--pdeathsig=KILL'];
    const user = [
      `--reuid=${runAsUser}`,
      `--regid=${runAsGroup}`,
      `--groups=${this.#pods.spec.securityContext?.fsGroup}`,
    ];
    const variables = this.#environment(container).map(([name, value]) => `${name}=${value}`);
    return ['setpriv', ...user, ...rights, 'env', '-i', `PATH=${PATH}`, ...variables];
  }

  #environment({ env = [] }: IContainer): [string, string][] {
    return env.map(({ name, value, valueFrom }) => [
      name,
      valueFrom?.fieldRef?.fieldPath === 'metadata.name' ? this.name : (value ?? ''),
    ]);
  }
}

const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

/** The first process within a container's own namespace of processes. */
function insideOf({ pid }: ChildProcess): number | undefined {
  const children = `/proc/${pid}/task/${pid}/children`;
  const [first] = existsSync(children) ? readFileSync(children, 'utf8').split(' ') : [];
  return first ? Number(first) : undefined;
}

function kill(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid !== undefined) process.kill(pid, signal);
}
