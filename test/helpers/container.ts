import { type ChildProcess, execFile } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, readFile, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { DebianTree, firstProcessOf, type Ran, runBeside, succeeded } from './debian-tree.ts';
import { commandOf, isInContext, pairsOf, parseDockerfile, type Stage, type Step } from './dockerfile.ts';
import { until } from './wait.ts';

const run = promisify(execFile);
const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const NODE = join(ROOT, 'node_modules', 'node', 'bin', 'node');

/** What an image says about its containers. */
interface Settings {
  readonly env: Readonly<Record<string, string>>;
  readonly workdir: string;
  readonly user: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly stopSignal: string;
  readonly healthcheck: readonly string[];
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
}

const UNSET: Settings = {
  env: {},
  workdir: '/',
  user: '0:0',
  labels: {},
  stopSignal: 'SIGTERM',
  healthcheck: [],
  entrypoint: [],
  cmd: [],
};

/** A Dockerfile's steps carried out, without Docker: each stage is a Debian tree in place of its base image. */
export class Image {
  readonly settings: Settings;
  readonly tree: DebianTree;

  private constructor(tree: DebianTree, settings: Settings) {
    this.tree = tree;
    this.settings = settings;
  }

  /** `context`: the folder that a builder would be given. Throws with what a step printed where it fails. */
  static async build(context: string): Promise<Image> {
    const stages = parseDockerfile(await readFile(join(context, 'Dockerfile'), 'utf8'));
    const inContext = isInContext(await readFile(join(context, '.dockerignore'), 'utf8'));
    const built = new Map<string, Image>();
    try {
      for (const stage of stages) built.set(stage.name, await buildStage(stage, { context, inContext, built }));
    } finally {
      for (const { name } of stages.slice(0, -1)) await built.get(name)?.remove();
    }
    const last = built.get(stages.at(-1)?.name ?? '');
    if (!last) throw new Error('the Dockerfile has no stage');
    return last;
  }

  static of(tree: DebianTree, settings: Settings): Image {
    return new Image(tree, settings);
  }

  /** Starts a container with a read-only root, as `docker run --read-only --tmpfs /tmp --cap-drop ALL -v …` does. */
  start(volumes: Readonly<Record<string, string>>): Promise<Container> {
    const command = this.#command(this.settings.cmd);
    const child = this.tree.spawn(command, { env: environmentOf(this.settings), binds: volumes, readOnly: true });
    return Container.of(child, this.settings);
  }

  /** The same, for a command that ends by itself. */
  run(volumes: Readonly<Record<string, string>>, ...args: string[]): Promise<Ran> {
    return this.tree.run(this.#command(args), { env: environmentOf(this.settings), binds: volumes, readOnly: true });
  }

  #command(args: readonly string[]): readonly string[] {
    return [...asUser(this.settings), ...this.settings.entrypoint, ...args];
  }

  remove(): Promise<void> {
    return this.tree.remove();
  }
}

export class Container {
  readonly #child: ChildProcess;
  readonly #settings: Settings;
  readonly #first: number;
  readonly #said: string[];
  readonly #exited: Promise<unknown[]>;

  private constructor(parts: { child: ChildProcess; settings: Settings; first: number; said: string[] }) {
    this.#child = parts.child;
    this.#settings = parts.settings;
    this.#first = parts.first;
    this.#said = parts.said;
    this.#exited = once(parts.child, 'close');
  }

  static async of(child: ChildProcess, settings: Settings): Promise<Container> {
    const said: string[] = [];
    for (const output of [child.stdout, child.stderr])
      output?.setEncoding('utf8').on('data', (text) => said.push(text));
    const first = await until('node is the first process of the container', () => firstProcessOf(child, 'node'), {
      describe: () => said.join(''),
    }).catch((error: unknown) => {
      child.kill('SIGKILL');
      throw error;
    });
    return new Container({ child, settings, first, said });
  }

  /** What it has written so far. */
  get log(): string {
    return this.#said.join('');
  }

  /** As `docker exec` does. */
  exec(command: readonly string[]): Promise<Ran> {
    return runBeside(this.#first, [...asUser(this.#settings), ...command], environmentOf(this.#settings));
  }

  /** The image's HEALTHCHECK: an exit code of 0 is health. */
  checkHealth(): Promise<Ran> {
    return this.exec(this.#settings.healthcheck);
  }

  /** As `docker stop` does, without its patience; the exit code. */
  async stop(): Promise<number | null> {
    process.kill(this.#first, this.#settings.stopSignal);
    const [code] = await this.#exited;
    return typeof code === 'number' ? code : null;
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }
}

/** Its user has no entry in passwd, so no home. */
const environmentOf = ({ env }: Settings) => ({ HOME: '/', ...env });

function asUser({ user, workdir }: Settings): string[] {
  const [uid = '0', gid = uid] = user.split(':');
  const rights = [
    '--clear-groups',
    '--no-new-privs',
    ...(uid === '0' ? [] : ['--bounding-set=-all', '--inh-caps=-all']),
  ];
  return ['env', '-C', workdir, 'setpriv', '--reuid', uid, '--regid', gid, ...rights, '--'];
}

interface Building {
  readonly context: string;
  readonly inContext: (path: string) => boolean;
  readonly built: ReadonlyMap<string, Image>;
}

async function buildStage(stage: Stage, building: Building): Promise<Image> {
  const tree = await baseImage(stage.base);
  try {
    let settings = UNSET;
    for (const step of stage.steps) settings = await carryOut(step, { tree, settings, ...building });
    return Image.of(tree, settings);
  } catch (error) {
    await tree.remove();
    throw error;
  }
}

/** A tree with what `node:VERSION-bookworm-slim` brings: Node and npm in /usr/local, and nothing else. */
async function baseImage(name: string): Promise<DebianTree> {
  const version = /^node:(\d+\.\d+\.\d+)-bookworm-slim$/.exec(name)?.[1];
  const { stdout: here } = await run(NODE, ['--version']);
  if (`v${version}` !== here.trim())
    throw new Error(`the base image ${name} has another Node than the tests, ${here.trim()}`);
  const tree = await DebianTree.unpack();
  await cp(NODE, tree.path('/usr/local/bin/node'));
  const npm = dirname(
    dirname((await run('readlink', ['-f', (await run('which', ['npm'])).stdout.trim()])).stdout.trim()),
  );
  await cp(npm, tree.path('/usr/local/lib/node_modules/npm'), { recursive: true });
  await tree.run(['ln', '-s', '../lib/node_modules/npm/bin/npm-cli.js', '/usr/local/bin/npm']);
  return tree;
}

type Carrying = Building & { readonly tree: DebianTree; readonly settings: Settings };

async function carryOut(step: Step, carrying: Carrying): Promise<Settings> {
  const { tree, settings } = carrying;
  const { instruction, text } = step;
  switch (instruction) {
    case 'RUN':
      await runStep(text, carrying);
      return settings;
    case 'COPY':
      await copyStep(step, carrying);
      return settings;
    case 'WORKDIR': {
      const workdir = resolve(settings.workdir, text);
      await mkdir(tree.path(workdir), { recursive: true });
      return { ...settings, workdir };
    }
    case 'ENV':
      return { ...settings, env: { ...settings.env, ...pairsOf(text) } };
    case 'LABEL':
      return { ...settings, labels: { ...settings.labels, ...pairsOf(text) } };
    case 'USER':
      return { ...settings, user: text };
    case 'STOPSIGNAL':
      return { ...settings, stopSignal: text };
    case 'HEALTHCHECK':
      return { ...settings, healthcheck: commandOf(text.replace(/^CMD\s+/, '')) };
    case 'ENTRYPOINT':
      return { ...settings, entrypoint: commandOf(text), cmd: [] };
    case 'CMD':
      return { ...settings, cmd: commandOf(text) };
    default:
      return settings; // EXPOSE is a remark
  }
}

async function runStep(text: string, { tree, settings }: Carrying): Promise<void> {
  const network = await networkOf(tree);
  const command = [...asUser(settings), ...commandOf(text)];
  succeeded(['RUN', text], await tree.run(command, { ...network, env: { ...settings.env, ...network.env } }));
}

/** The way to npm's registry, as this machine goes it, and npm's cache of what the registry told. */
async function networkOf(tree: DebianTree): Promise<{ env: Record<string, string>; binds: Record<string, string> }> {
  const config = async (key: string) => (await run('npm', ['config', 'get', key])).stdout.trim();
  await cp('/etc/resolv.conf', tree.path('/etc/resolv.conf'));
  const env: Record<string, string> = {
    npm_config_registry: await config('registry'),
    npm_config_prefer_offline: 'true',
  };
  const authorities = process.env.NODE_EXTRA_CA_CERTS;
  if (authorities) {
    env.NODE_EXTRA_CA_CERTS = '/var/tmp/authorities.pem';
    await cp(authorities, tree.path(env.NODE_EXTRA_CA_CERTS), { dereference: true });
  }
  const cache = await config('cache');
  await mkdir(cache, { recursive: true });
  return { env, binds: { '/root/.npm': cache } };
}

/** Into a path that ends with `/`, or several at once, go under their names; a folder's contents go where it is told. */
async function copyStep({ text, flags }: Step, { context, inContext, built, tree, settings }: Carrying): Promise<void> {
  const words = text.split(/\s+/);
  const to = words.pop() ?? '';
  const { from, ...others } = flags;
  if (Object.keys(others).length > 0) throw new Error(`not understood: COPY with ${Object.keys(others).join(', ')}`);
  const source = from === undefined ? null : built.get(from);
  if (source === undefined) throw new Error(`COPY --from=${from}: there is no such stage`);
  const target = tree.path(resolve(settings.workdir, to));
  if (words.length > 1 && !to.endsWith('/'))
    throw new Error(`COPY of several needs a folder, with a / at its end: ${text}`);
  for (const word of words) {
    if (source === null && !inContext(word)) throw new Error(`COPY ${word}: .dockerignore leaves it out`);
    const path = source ? source.tree.path(word) : join(context, word);
    const folder = (await stat(path)).isDirectory();
    await mkdir(folder || to.endsWith('/') ? target : dirname(target), { recursive: true });
    const into = folder || !to.endsWith('/') ? target : join(target, basename(word));
    await cp(path, into, { recursive: true, verbatimSymlinks: true });
  }
}
