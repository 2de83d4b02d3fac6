import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { unreadable } from './errors.ts';

/** What tells a cluster's data directories from those of others, and those of its servers from each other. */
export interface ControlFile {
  /** Decimal. */
  readonly systemId: string;
  /** When this server last wrote the file, seconds since 1970. */
  readonly writtenSeconds: number;
  /** LSN of its last checkpoint, or restart point. */
  readonly checkpoint: bigint;
}

// The same in all versions since 9.4: only what comes behind has changed.
const AT = { systemId: 0, written: 24, checkpoint: 32 };
const BYTES = 40;

/** Reads `global/pg_control` below a data directory. Throws SOURCE_UNREADABLE. */
export async function readControlFile(dir: string): Promise<ControlFile> {
  const path = join(dir, 'global', 'pg_control');
  try {
    const bytes = await readFile(path);
    if (bytes.length < BYTES) throw new Error('it is too short');
    return {
      systemId: bytes.readBigUInt64LE(AT.systemId).toString(),
      writtenSeconds: Number(bytes.readBigInt64LE(AT.written)),
      checkpoint: bytes.readBigUInt64LE(AT.checkpoint),
    };
  } catch (cause) {
    throw unreadable(path, cause);
  }
}
