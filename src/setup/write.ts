import { randomUUID } from 'node:crypto';
import { chown, copyFile, mkdir, open, rename, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { codeOf, messageOf, ShipmateError } from '../errors.ts';

const MODE = 0o640;

export interface WriteOptions {
  readonly file: string;
  readonly text: string;
  /** Whom it belongs to beside root, who alone can give it away; null: whoever writes it. */
  readonly gid: number | null;
  /** Where what was there is kept; null: nothing may be there. */
  readonly keepAs: string | null;
}

/** Writes a config file whole or not at all, readable to its owner and group. Throws a ShipmateError. */
export async function writeConfig({ file, text, gid, keepAs }: WriteOptions): Promise<void> {
  const temporary = join(dirname(file), `.${randomUUID()}.tmp`);
  try {
    const made = await mkdir(dirname(file), { recursive: true, mode: 0o750 });
    if (made !== undefined && gid !== null) await chown(dirname(file), 0, gid);
    const handle = await open(temporary, 'wx', MODE);
    try {
      await handle.chmod(MODE); // whatever the umask is
      if (gid !== null) await handle.chown(0, gid);
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    if (keepAs !== null) await copyFile(file, keepAs).catch(unlessAbsent);
    await rename(temporary, file);
  } catch (cause) {
    throw new ShipmateError(`${file} can't be written: ${messageOf(cause)}`, {
      code: 'SETUP_FAILED',
      hint: 'run setup as root, or name a file elsewhere with -c',
      cause,
    });
  } finally {
    await unlink(temporary).catch(() => {}); // renamed, or never made
  }
}

function unlessAbsent(error: unknown): void {
  if (codeOf(error) !== 'ENOENT') throw error;
}
