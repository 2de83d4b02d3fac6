import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { codeOf, ShipmateError } from '../../errors.ts';
import { type KeptDaemon, readDaemon } from '../formats.ts';
import type { Folder } from './folder.ts';

const NAME = 'daemon';

/** The daemon that lives on this folder now, or null. */
export async function livingDaemon(folder: Folder): Promise<KeptDaemon | null> {
  const daemon = readDaemon(await folder.read(NAME));
  return daemon && (await isAlive(daemon)) ? daemon : null;
}

/** Makes this process the folder's daemon; throws STATE_DIR_IN_USE while another is. */
export async function lock(folder: Folder, node: string): Promise<KeptDaemon> {
  const own: KeptDaemon = { node, pid: process.pid, life: await lifeOf(process.pid) };
  while (!(await folder.create(NAME, own))) {
    const text = await folder.read(NAME);
    const other = readDaemon(text);
    if (other && (await isAlive(other))) throw inUse(other);
    await clear(folder, text);
  }
  return own;
}

export async function unlock(folder: Folder): Promise<void> {
  await folder.remove(NAME);
}

/** Takes away what a dead daemon left; what another daemon has put there meanwhile is put back. */
async function clear(folder: Folder, left: string | null): Promise<void> {
  const aside = `daemon-${randomUUID()}`;
  if (!(await folder.move(NAME, aside))) return;
  const taken = await folder.read(aside);
  const other = taken === left ? null : readDaemon(taken);
  if (other) await folder.create(NAME, other);
  await folder.remove(aside);
}

async function isAlive({ pid, life }: KeptDaemon): Promise<boolean> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (codeOf(error) !== 'EPERM') return false; // with EPERM it lives, and belongs to another user
  }
  return life === (await lifeOf(pid));
}

/** The machine's boot and the process's start since then, in clock ticks; empty where there is no /proc. */
async function lifeOf(pid: number): Promise<string> {
  try {
    const boot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
    const line = await readFile(`/proc/${pid}/stat`, 'utf8');
    // The name, in parentheses, may hold anything; the start time is the 20th field behind it.
    const started = line.slice(line.lastIndexOf(')') + 2).split(' ')[19];
    return `${boot}/${started}`;
  } catch {
    return '';
  }
}

function inUse({ node, pid }: KeptDaemon): ShipmateError {
  return new ShipmateError(`another daemon, process ${pid} (node "${node}"), uses this state directory`, {
    code: 'STATE_DIR_IN_USE',
    hint: `end process ${pid} first, or give this daemon a "stateDir" of its own`,
  });
}
