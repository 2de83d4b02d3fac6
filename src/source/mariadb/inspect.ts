import { messageOf, ShipmateError } from '../../errors.ts';
import type { Finding } from '../source.ts';
import type { Binlogs } from './binlogs.ts';
import type { SegmentHeader } from './segment.ts';

/** What the files alone tell: readable, not encrypted, with checksums. */
export async function inspectBinlogs(binlogs: Binlogs): Promise<Finding[]> {
  try {
    await binlogs.demandOneIndex();
    const lineage = await binlogs.look();
    const { segments } = lineage;
    const newest = await lineage.newestUsable();
    if (!newest) return [{ level: 'warning', message: `there are no binlogs in ${binlogs.dir} yet` }];
    const { segment, header } = newest;
    const bytes = segments.reduce((sum, { size }) => sum + size, 0);
    const found = `${segments.length} binlogs, ${segments[0]!.name} to ${segment.name}, ${bytes} bytes, of ${header.origin}`;
    return [{ level: 'ok', message: found }, checksums(header)];
  } catch (error) {
    const hint = error instanceof ShipmateError ? error.hint : undefined;
    return [{ level: 'error', message: messageOf(error), ...(hint !== undefined && { hint }) }];
  }
}

function checksums(header: SegmentHeader): Finding {
  if (header.checksums) return { level: 'ok', message: 'events carry checksums' };
  return {
    level: 'warning',
    message: "events carry no checksums: damage on the database's disk would be shipped unseen",
    hint: "SET GLOBAL binlog_checksum = CRC32, and in the server's configuration",
  };
}

/** The newest binlog here. */
export interface Newest {
  readonly name: string;
  /** Its origin as its first events say: `mariadb-1`. */
  readonly writtenBy: string;
}

/** Null where it can't be told, as `inspectBinlogs` says why. */
export async function newestOf(binlogs: Binlogs): Promise<Newest | null> {
  try {
    const newest = await (await binlogs.look()).newestUsable();
    return newest && { name: newest.segment.name, writtenBy: newest.header.origin };
  } catch {
    return null;
  }
}
