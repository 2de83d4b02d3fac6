import { readFile } from 'node:fs/promises';
import type { Identity } from '../codec/age-keys.ts';
import { messageOf, UsageError } from '../errors.ts';

/** The keys of an age identity file; none without a path. Throws UsageError, which never holds any of the file's text. */
export async function readIdentities(path: string | undefined): Promise<readonly Identity[]> {
  if (path === undefined) return [];
  const { parseIdentities } = await import('../codec/age-keys.ts');
  return parseIdentities(await read(path), path);
}

async function read(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw new UsageError(`identity file ${path} can't be read: ${messageOf(error)}`, 'age-keygen -o FILE makes one');
  }
}
