import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { bytesText } from '../../core/format.ts';
import { messageOf, ShipmateError } from '../../errors.ts';
import type { Finding } from '../source.ts';
import type { Directory } from './directory.ts';
import { COPYTRUNCATE, late, misordered } from './errors.ts';

export interface Inspected {
  readonly directory: Directory;
  /** What was configured, for messages. */
  readonly match: string;
  readonly isRedis: boolean;
  readonly shared: boolean;
  readonly node: string;
}

const LOGROTATE = '/etc/logrotate.d';

/** What the directory tells: readable, files there, nobody shortens them. */
export async function inspectFiles(inspected: Inspected): Promise<Finding[]> {
  const { directory, shared, node } = inspected;
  try {
    await directory.look();
    const findings = [await contents(inspected)];
    if (!shared) {
      findings.push({
        level: 'ok',
        message: `"shared" is off: only ${node} ships these files, and no twin takes over from it`,
      });
    }
    const { shrunk, files } = directory;
    for (const { path, size, endedAt } of files) {
      if (endedAt !== null && size > endedAt) findings.push(told(late(path, { from: endedAt, size })));
    }
    for (const [i, file] of files.entries()) {
      const next = files[i + 1];
      if (next && directory.isMisordered(file, next)) findings.push(told(misordered(file.path, next.path)));
    }
    if (shrunk) findings.push({ level: 'error', message: `${shrunk.path} was shortened in place`, hint: COPYTRUNCATE });
    return [...findings, ...(await copytruncate(directory.dir))];
  } catch (error) {
    return [told(error)];
  }
}

function told(error: unknown): Finding {
  const hint = error instanceof ShipmateError ? error.hint : undefined;
  return { level: 'error', message: messageOf(error), ...(hint !== undefined && { hint }) };
}

async function contents({ directory, match, isRedis }: Inspected): Promise<Finding> {
  const { files, newest, dir } = directory;
  if (!newest) {
    return isRedis
      ? {
          level: 'warning',
          message: `there is no manifest in ${dir}`,
          hint: 'turn "appendonly" on; the multi-part AOF came with Redis 7, and lies in "appenddirname" below its "dir"',
        }
      : { level: 'warning', message: `no file in ${dir} matches ${match} yet` };
  }
  await newest.read(Buffer.alloc(1), 0, 1, 0); // may this user?
  const bytes = files.reduce((sum, { size }) => sum + size, 0);
  const { live } = directory.layout;
  if (live !== null && newest.name !== live) {
    return { level: 'warning', message: `"live: ${live}" is not there: the newest file is ${newest.name}` };
  }
  return { level: 'ok', message: `${files.length} files, ${files[0]!.name} to ${newest.name}, ${bytesText(bytes)}` };
}

/** The usual way to lose bytes where nobody can see it. */
async function copytruncate(dir: string): Promise<Finding[]> {
  const names = await readdir(LOGROTATE).catch(() => []);
  const texts = await Promise.all(names.map((name) => readFile(join(LOGROTATE, name), 'utf8').catch(() => '')));
  return texts.flatMap((text, i): Finding[] =>
    text.includes(`${dir}/`) && /^\s*copytruncate\b/m.test(text)
      ? [{ level: 'warning', message: `${join(LOGROTATE, names[i]!)} may shorten files in ${dir}`, hint: COPYTRUNCATE }]
      : [],
  );
}
