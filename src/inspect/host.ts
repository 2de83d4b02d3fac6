import { constants } from 'node:fs';
import { access, readFile, stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname } from 'node:path';
import { listen } from '../admin/server.ts';
import { adminUrl } from '../admin-url.ts';
import type { Config } from '../config.ts';
import { codeOf, ShipmateError } from '../errors.ts';
import type { Finding } from '../source/source.ts';

/** Held binlogs, sockets, uploads: a daemon with a long backlog needs as many. */
const ENOUGH_FILES = 4_096;
const ASK_MS = 2_000;

/** What the daemon needs of this host itself: a state directory, a free port, descriptors. */
export async function inspectHost(config: Config): Promise<Finding[]> {
  const looks = await Promise.all([inspectStateDir(config), inspectPort(config), inspectDescriptors()]);
  return looks.flat();
}

async function inspectStateDir({ stateDir }: Config): Promise<Finding[]> {
  const found = await stat(stateDir).catch((error: unknown) => codeOf(error) ?? 'unknown');
  if (found === 'ENOENT') return inspectParent(stateDir);
  if (typeof found === 'string') return [notWritable(stateDir)];
  if (!found.isDirectory()) {
    return [
      { level: 'error', message: `stateDir ${stateDir} is no directory`, hint: 'correct "stateDir" in the config' },
    ];
  }
  const mode = found.mode & 0o777;
  const isDenied = await isUnwritable(stateDir);
  return [
    ...(isDenied ? [notWritable(stateDir)] : []),
    mode & 0o077
      ? {
          level: 'warning' as const,
          message: `stateDir ${stateDir} has mode ${mode.toString(8).padStart(4, '0')}: others can look into it, and secrets are kept there`,
          hint: `chmod 0700 ${stateDir}`,
        }
      : { level: 'ok' as const, message: `stateDir ${stateDir} has mode ${mode.toString(8).padStart(4, '0')}` },
  ];
}

/** The daemon makes the directory itself, where it may. */
async function inspectParent(stateDir: string): Promise<Finding[]> {
  let parent = dirname(stateDir);
  while ((await isAbsent(parent)) && parent !== dirname(parent)) parent = dirname(parent);
  if (!(await isUnwritable(parent))) {
    return [{ level: 'ok', message: `stateDir ${stateDir} is not there yet: a running daemon makes it` }];
  }
  return [{ ...notWritable(stateDir), message: `stateDir ${stateDir} is not there, and ${user()} may not make it` }];
}

const isUnwritable = (path: string) =>
  access(path, constants.W_OK | constants.X_OK).then(
    () => false,
    () => true,
  );
const isAbsent = (path: string) =>
  access(path).then(
    () => false,
    (error) => codeOf(error) === 'ENOENT',
  );
const user = () => `uid ${process.getuid?.()}`;
const notWritable = (stateDir: string): Finding => ({
  level: 'error',
  message: `${user()} may not write to stateDir ${stateDir}: no daemon of this user can start`,
  hint: `check as the user that the daemon runs as; for it: install -d -m 0700 -o USER -g GROUP ${stateDir}`,
});

async function inspectPort(config: Config): Promise<Finding[]> {
  const { admin, node, cluster } = config;
  if (admin === null) return [];
  const where = `${admin.host}:${admin.port}`;
  try {
    const server = createServer();
    await listen(server, admin);
    await new Promise((resolve) => server.close(resolve));
    return [{ level: 'ok', message: `${where} is free for metrics and status` }];
  } catch (error) {
    const owner = await listenerOf(config);
    if (owner?.node === node && owner.cluster === cluster) {
      return [{ level: 'ok', message: `the daemon of this config runs, and answers at ${where}` }];
    }
    if (!(error instanceof ShipmateError)) throw error;
    const who = owner && `the daemon of node ${owner.node} in cluster ${owner.cluster} has it`;
    return [{ level: 'error', message: [error.message, who].filter(Boolean).join('; '), hint: error.hint ?? '' }];
  }
}

/** Whose daemon answers at this config's address; null: nobody's. */
export async function listenerOf(config: Config): Promise<{ node: string; cluster: string } | null> {
  try {
    const answer = await fetch(`${adminUrl(config)}/metrics`, { signal: AbortSignal.timeout(ASK_MS) });
    const line = /^shipmate_build_info\{(.*)\}/m.exec(await answer.text())?.[1] ?? '';
    const label = (name: string) => new RegExp(`\\b${name}="([^"]*)"`).exec(line)?.[1];
    const [node, cluster] = [label('node'), label('cluster')];
    return node !== undefined && cluster !== undefined ? { node, cluster } : null;
  } catch {
    return null; // another program
  }
}

/** Of this process, which has raised it as far as it may: a service has a limit of its own (LimitNOFILE). */
async function inspectDescriptors(): Promise<Finding[]> {
  const limits = await readFile('/proc/self/limits', 'utf8').catch(() => '');
  const allowed = Number(/^Max open files +\d+ +(\d+)/m.exec(limits)?.[1] ?? Number.POSITIVE_INFINITY);
  if (allowed >= ENOUGH_FILES) return [];
  return [
    {
      level: 'warning',
      message: `at most ${allowed} files may be open: a long backlog is held open, so that the database can't purge it`,
      hint: `raise the limit: LimitNOFILE=65536 in the service, or "ulimit -n 65536" where the daemon is started`,
    },
  ];
}
