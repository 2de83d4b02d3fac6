import { z } from 'zod';
import { ShipmateError } from '../errors.ts';
import type { ChainEnd } from './chain.ts';
import { demandReadable, digestOf, FORMAT_VERSION } from './header.ts';

const file = z.object({
  v: z.literal(FORMAT_VERSION),
  archive: z.string().min(1),
  stream: z.string().min(1),
  cluster: z.string(),
  /** The claim that owns term 1. */
  owner: z.string().min(1),
  node: z.string(),
  identity: z.object({ type: z.string(), name: z.string().nullable() }),
  /** W of protocol rule 6: no slot is begun this many or more above the lowest unsettled one. */
  window: z.int().positive(),
  created: z.string(),
});

/** What stream.json says; created once, never changed. */
export type ArchiveFile = z.infer<typeof file>;

/** An archive as opened: stream.json, and the digest that term 1 links to. */
export interface ArchiveInfo extends ArchiveFile {
  readonly digest: string;
}

export const DEFAULT_WINDOW = 8;

export function encodeArchiveFile(value: ArchiveFile): Buffer {
  return Buffer.from(`${JSON.stringify(value, null, 2)}\n`);
}

export function decodeArchiveFile(bytes: Uint8Array, where: string): ArchiveInfo {
  try {
    const value: unknown = JSON.parse(Buffer.from(bytes).toString('utf8'));
    demandReadable(value, where);
    return { ...file.parse(value), digest: digestOf(bytes) };
  } catch (cause) {
    if (cause instanceof ShipmateError) throw cause;
    throw new ShipmateError(`${where} can't be read as a Shipmate archive`, {
      code: 'BAD_ARCHIVE_FILE',
      hint: 'it was damaged, or written by something else',
      cause,
    });
  }
}

/** The walk's state before term 1, slot 0. */
export function chainStart({ archive, stream, owner, digest }: ArchiveInfo): ChainEnd {
  return {
    archive,
    stream,
    term: 1,
    slot: 0,
    owner,
    digest,
    position: null,
    last: null,
    generation: 0,
    foreign: false,
  };
}
