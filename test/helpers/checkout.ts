import { execFile, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { serverUser } from './postgres.ts';

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const run = promisify(execFile);

/** This checkout as a server's user can read it: itself, or a copy in `folder` where it lies in a closed directory. */
export async function checkoutForServers(folder: string): Promise<string> {
  const programs = [join('bin', 'shipmate'), join('node_modules', '.bin', 'node')].flatMap((path) => [
    '-a',
    '-x',
    join(ROOT, path),
  ]);
  if (spawnSync('test', programs.slice(1), { ...serverUser, cwd: '/' }).status === 0) return ROOT;
  const copy = join(folder, 'checkout');
  if (existsSync(copy)) return copy;
  await mkdir(copy, { mode: 0o755 });
  const parts = ['bin', 'src', 'package.json', 'node_modules'].map((name) => join(ROOT, name));
  await run('cp', ['-a', ...parts, copy]);
  await run('chmod', ['-R', 'a+rX', copy]);
  return copy;
}
