import { join } from 'node:path';
import type { AskedFile, Durable } from '../admin/server.ts';
import type { Archive } from '../archive/walk.ts';
import { ChunkReader } from '../restore/chunks.ts';
import { askDurable } from '../restore/durable.ts';
import { walFiles } from '../source/postgres/wal-files.ts';
import type { WiredStream } from './stream.ts';

/** Answers what `push` asks of one daemon's streams; `find` knows those that it has now. */
export function durableIn(find: (name: string) => WiredStream | undefined) {
  const files = walFiles();
  const readers = new WeakMap<Archive, ChunkReader>();
  return async (name: string, { segment, inode, witness }: AskedFile): Promise<Durable | null> => {
    const found = find(name);
    if (!found) return null;
    const { source } = found.stream;
    if (source.type !== 'postgres') return { durable: false, reason: `stream ${name} is no log of PostgreSQL` };
    const { archive, shipped, archiveEnd } = found.shipper;
    if (archive === null)
      return { durable: false, reason: found.shipper.notReady()[0] ?? 'the daemon has just started' };
    const chunks = readers.get(archive) ?? new ChunkReader(archive);
    readers.set(archive, chunks);
    const directory = join(source.dir, 'pg_wal');
    return askDurable({ chunks, files, directory, name: segment, inode, witness, shipped, archiveEnd });
  };
}
