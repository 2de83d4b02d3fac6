import { access, readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import type { Command } from 'commander';
import { stringify } from 'yaml';
import { type Config, parseConfig } from '../config.ts';
import { codeOf, messageOf, ShipmateError, UsageError } from '../errors.ts';
import { type Accounts, currentUser, readAccounts } from '../setup/accounts.ts';
import { type Database, databaseIn, findDatabases } from '../setup/databases.ts';
import { joinConfig } from '../setup/join.ts';
import { configOf, type NamedDatabase, preparationOf, storeOf } from '../setup/plan.ts';
import { findEtcd, findMounts } from '../setup/surroundings.ts';
import { unitPreparationOf } from '../setup/unit.ts';
import { writeConfig } from '../setup/write.ts';
import { addHelp } from './help.ts';
import { Questions } from './questions.ts';
import { setupText } from './setup-text.ts';
import { print, printJson, requireTerminal, viewOf } from './terminal.ts';

interface Options {
  node?: string;
  cluster?: string;
  etcd?: string;
  solo?: boolean;
  store?: string;
  source?: string[];
  user?: string;
  stateDir: string;
  listen: string;
  join?: string;
  overwrite?: boolean;
  dryRun?: boolean;
  yes?: boolean;
  json?: boolean;
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;
const SOLO = 'solo';
const LEAVE_OUT = '-';

export function defineSetup(command: Command): void {
  addHelp(command, {
    notes: [
      'Looks at the databases that run here, at an etcd on this host and at what is mounted, asks for the rest, and writes a config (mode 0640) that never holds a password. Changes nothing else: what an administrator has to run is printed. As root it sees the most.',
    ],
    examples: [
      'sudo shipmate setup',
      'sudo shipmate setup --yes --etcd http://10.0.0.1:2379 --store gs://acme-logs/prod',
      'sudo shipmate setup --join db-1.yaml     # on the second host',
      'shipmate setup --source orders=/var/lib/mysql --solo --dry-run',
    ],
  });
  command
    .option('--node <name>', "this twin's name; by default the host's")
    .option('--cluster <name>', "the twins' shared name")
    .option('--etcd <urls>', 'with "," between them; by default the one on this host')
    .option('--solo', 'without etcd: one daemon alone')
    .option('--store <place>', 'a directory, gs://BUCKET/PREFIX, s3://BUCKET/PREFIX or az://ACCOUNT/CONTAINER/PREFIX')
    .option(
      '--source <stream=dir>',
      'a database by its directory; may be repeated; by default all that run here',
      gather,
    )
    .option('--user <name>', 'the system user that the daemon will run as')
    .option('--state-dir <dir>', 'where the daemon keeps its state', '/var/lib/shipmate')
    .option('--listen <host:port>', 'where it answers for metrics and status', '127.0.0.1:9187')
    .option('--join <file>', "begin with the first twin's config: only what belongs to this host is changed")
    .option('--overwrite', 'take the place of a config that is there; it is kept beside, as FILE.old')
    .option('--dry-run', 'print the config, and write nothing')
    .option('--yes', 'ask nothing: take the defaults')
    .option('--json', 'print JSON')
    .action((options: Options) => carryOut(command, options));
}

const gather = (value: string, before: string[] = []) => [...before, value];

async function carryOut(command: Command, options: Options): Promise<void> {
  const { yes = false, dryRun = false, json = false } = options;
  requireTerminal({ yes }, 'give --yes to take the defaults; what has none is said by options');
  const file = command.optsWithGlobals<{ config: string }>().config;
  const questions = new Questions({ yes });
  try {
    const keepAs = dryRun ? null : await demandPlace(file, options, questions);
    const [databases, accounts] = await Promise.all([findDatabases(), readAccounts()]);
    const seen: Seen = { databases, accounts, given: await givenSources(options, databases) };
    const drawn =
      options.join === undefined ? await draw(options, seen, questions) : await join(options, seen, questions);
    const { text, user } = drawn;
    const config = parseConfig(text, { file, lazy: true });
    const ownGid = accounts.groupOf(user);
    const gid = process.getuid?.() === 0 ? ownGid : null;
    if (!dryRun) await writeConfig({ file, text, gid, keepAs });
    const preparations = drawn.streams.map((one) => preparationOf(one, { user }, accounts));
    const group = ownGid === null ? user : accounts.group(ownGid);
    const unit = unitPreparationOf({ user, group, ...placesOf(config) });
    const joins = options.join !== undefined;
    const hasTwin = joins || config.coordination.kind === 'etcd';
    const report = { file: dryRun ? null : file, kept: keepAs, user, joins, hasTwin, preparations, unit };
    if (json) printJson({ ...report, config: text });
    else {
      if (dryRun) print(text);
      print(setupText(report, process.stdout.isTTY ? viewOf().width : Number.POSITIVE_INFINITY));
    }
  } finally {
    questions.close();
  }
}

/** Where the daemon writes on this host. */
function placesOf(config: Config): { stateDir: string | null; directories: string[] } {
  const stores = Object.keys(config.stores).map((name) => known(() => config.stores[name]));
  return {
    stateDir: known(() => config.stateDir),
    directories: stores.flatMap((store) => (store?.type === 'file' ? [store.path] : [])),
  };
}

/** Null: a variable that a part of the config needs is not set here. */
function known<T>(read: () => T): T | null {
  try {
    return read();
  } catch (error) {
    if (error instanceof ShipmateError) return null;
    throw error;
  }
}

/** Where the config that is there is kept; null where there is none. Before anything is asked: nobody should answer in vain. */
async function demandPlace(
  file: string,
  { overwrite = false, yes = false }: Options,
  questions: Questions,
): Promise<string | null> {
  if (await isAbsent(file)) return null;
  let kept = `${file}.old`;
  for (let number = 2; !(await isAbsent(kept)); number++) kept = `${file}.old-${number}`;
  if (overwrite) return kept;
  const text = `${file} is there. Replace it, and keep it as ${kept}? (yes or no)`;
  const answer = yes ? 'no' : await questions.ask({ text, flag: '--overwrite', preset: 'no' });
  if (/^y(es)?$/i.test(answer)) return kept;
  throw new UsageError(
    `there is a config already: ${file}`,
    'give --overwrite to replace it (it is kept beside), or name another file with -c',
  );
}

const isAbsent = (path: string) =>
  access(path).then(
    () => false,
    (error) => codeOf(error) === 'ENOENT',
  );

interface Seen {
  readonly databases: readonly Database[];
  readonly accounts: Accounts;
  readonly given: ReadonlyMap<string, Database>;
}

interface Drawn {
  readonly text: string;
  readonly streams: readonly NamedDatabase[];
  readonly user: string;
}

async function givenSources({ source = [] }: Options, databases: readonly Database[]): Promise<Map<string, Database>> {
  const named = source.map(async (text) => {
    const [name = '', dir = ''] = text.split(/=(.*)/s);
    if (!NAME.test(name) || !dir.startsWith('/'))
      throw new UsageError(`--source: ${text} is not STREAM=DIR`, 'such as orders=/var/lib/mysql');
    const database = await databaseIn(dir, databases);
    if (database) return [name, database] as const;
    throw new UsageError(
      `--source: ${dir} holds no database that is known, or can't be read`,
      'give the directory of the binlogs, the data directory of PostgreSQL, or the append-only directory of Redis; as root',
    );
  });
  return new Map(await Promise.all(named));
}

async function draw(options: Options, seen: Seen, questions: Questions): Promise<Drawn> {
  const node = await askNode(options, questions);
  const preset = node.replace(/[-._]?\d+(\..*)?$/, '') || 'main';
  const cluster = await questions.ask({
    text: 'name that the twins share',
    flag: '--cluster NAME',
    given: options.cluster,
    preset,
    check: demandName,
  });
  const endpoints = await askEtcd(options, questions);
  const place = await questions.ask({
    text: 'place of the archive: a directory, gs://…, s3://… or az://…',
    flag: '--store PLACE',
    given: options.store,
    preset: (await findMounts())[0] ?? null,
    check: storeOf,
  });
  const streams = await askStreams(seen, questions);
  const user = options.user ?? defaultUser(streams, seen.accounts);
  const { stateDir, listen } = options;
  const config = configOf({ node, cluster, stateDir, listen, endpoints, store: storeOf(place), streams, user });
  return {
    text: `# Made by "shipmate setup"; "shipmate config example" explains every key.\n${stringify(config)}`,
    streams,
    user,
  };
}

async function join(options: Options, seen: Seen, questions: Questions): Promise<Drawn> {
  const { join: file = '' } = options;
  const node = await askNode(options, questions);
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    throw new UsageError(`--join: ${file} can't be read: ${messageOf(error)}`, "copy the first twin's config here");
  });
  const { databases, given, accounts } = seen;
  const find = (user: string) => joinConfig({ text, node, user, databases, given });
  const user = options.user ?? defaultUser(find(currentUser()).streams, accounts);
  return { ...find(user), user };
}

const askNode = ({ node }: Options, questions: Questions): Promise<string> =>
  questions.ask({
    text: 'name of this host among the twins',
    flag: '--node NAME',
    given: node,
    preset: hostname(),
    check: demandName,
  });

async function askEtcd({ etcd, solo = false }: Options, questions: Questions): Promise<string[] | null> {
  if (solo && etcd !== undefined) throw new UsageError('--solo and --etcd exclude each other', 'give one of them');
  if (solo) return null;
  const check = (text: string) => {
    if (text === SOLO || text.split(',').every((url) => /^https?:\/\/./.test(url.trim()))) return;
    throw new UsageError(`"${text}" is no list of URLs`, 'such as http://10.0.0.1:2379,http://10.0.0.2:2379');
  };
  const text = `etcd's URLs, with "," between ("solo": one daemon, no etcd)`;
  const answer = await questions.ask({
    text,
    flag: '--etcd URLS, or --solo',
    given: etcd,
    preset: await findEtcd(),
    check,
  });
  return answer === SOLO ? null : answer.split(',').map((url) => url.trim());
}

async function askStreams({ databases, given }: Seen, questions: Questions): Promise<NamedDatabase[]> {
  if (given.size > 0) return [...given].map(([name, database]) => ({ name, database }));
  const streams: NamedDatabase[] = [];
  for (const database of databases) {
    const number = streams.filter((one) => one.database.type === database.type).length;
    const preset = number === 0 ? database.type : `${database.type}-${number + 1}`;
    const problem = database.problem === null ? '' : ` (${database.problem})`;
    const text = `stream for ${database.type} in ${database.dir}${problem} ("-": none)`;
    const name = await questions.ask({
      text,
      flag: '--source STREAM=DIR',
      preset: database.problem === null ? preset : LEAVE_OUT,
      check: (answer) => demandStream(answer, streams),
    });
    if (name !== LEAVE_OUT) streams.push({ name, database });
  }
  if (streams.length > 0) return streams;
  throw new UsageError(
    databases.length === 0
      ? 'no MariaDB, MySQL, PostgreSQL or Redis with a log was seen on this host'
      : 'no database is left to ship',
    'start it, run setup as root to see more, or name its directory: --source STREAM=DIR',
  );
}

const demandName = (text: string) => {
  if (!NAME.test(text)) throw new UsageError(`"${text}" is not a valid name`, 'use letters, digits, "-", "_" and "."');
};
const demandStream = (text: string, others: readonly NamedDatabase[]) => {
  if (others.some(({ name }) => name === text))
    throw new UsageError(`"${text}" is taken`, 'give each stream a name of its own');
  if (text !== LEAVE_OUT && !/^[a-z0-9][a-z0-9._-]*$/.test(text)) {
    throw new UsageError(`"${text}" is not a valid name`, 'use lower-case letters, digits, "-", "_" and "."');
  }
};

/** The package's user, unless logs that their owner alone may read ask for that one. */
function defaultUser(streams: readonly NamedDatabase[], accounts: Accounts): string {
  const closed = streams.find(({ database }) => !database.isGroupReadable);
  if (closed) return accounts.user(closed.database.owner.uid);
  return accounts.groupOf('shipmate') === null ? currentUser() : 'shipmate';
}
