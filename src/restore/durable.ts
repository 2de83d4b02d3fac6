import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import type { Archive } from '../archive/walk.ts';
import type { Position } from '../core/position.ts';
import { keyedWitness } from '../core/witness.ts';
import type { FilesByName } from '../source/source.ts';
import type { ChunkReader } from './chunks.ts';
import { type FoundFile, findFile } from './fetch-find.ts';
import { openFile, witnessIn } from './file-witness.ts';

export interface DurableQuestion {
  readonly chunks: ChunkReader;
  readonly files: FilesByName;
  /** Where the server has its log. */
  readonly directory: string;
  readonly name: string;
  /** Of the file that is asked about: in another server's directory one may lie under the same name. */
  readonly inode: bigint;
  /** Of all of its bytes, which show the same where inodes can't. */
  readonly witness?: string | null;
  /** What was shipped from there itself, without a break, and is durable; null: that is not known. */
  readonly shipped: { readonly from: Position; readonly to: Position } | null;
  /** Up to where the archive is durable; null: not known. */
  readonly archiveEnd: Position | null;
}

export interface DurableAnswer {
  readonly durable: boolean;
  readonly reason: string;
  /** Where something other than to ask again is to be done. */
  readonly hint?: string;
  /** Nothing shows that the file is the one that was asked about. */
  readonly isOther?: boolean;
}

/**
 * Whether the server may let go of a file. Yes only where all of its very bytes are in the living archive: they were
 * shipped from here, or what is in the store agrees with them digest for digest. Whose log it is, and which timeline,
 * does not matter then.
 */
export async function askDurable(question: DurableQuestion): Promise<DurableAnswer> {
  const { files, name, archiveEnd, directory } = question;
  const kind = files.kindOf(name);
  if (kind === null) return no(`${name} is no name of a file of this log`);
  if (kind === 'never') return yes('it holds nothing that is not in segments, or in the base backup itself');
  const file = await openFile(join(directory, name));
  if (file === null) return no(`${name} is not in ${directory}`);
  try {
    const stat = await file.stat({ bigint: true });
    const size = Number(stat.size);
    if (!(await isAskedAbout(question, file, stat))) return other(question);
    if (kind === 'segment' && isShipped(question, size)) return yes('it was shipped from here');
    if (archiveEnd !== null && files.isBehind(name, archiveEnd)) return no(`the archive ends at ${archiveEnd.id}`);
    return await askStore(question, file, size);
  } finally {
    await file.close();
  }
}

const yes = (reason: string): DurableAnswer => ({ durable: true, reason });
const no = (reason: string): DurableAnswer => ({ durable: false, reason });
const other = ({ name, directory }: DurableQuestion): DurableAnswer => ({
  ...no(`the daemon that was asked ships another ${name}: the one in ${directory}`),
  hint: "see that admin.listen and the stream are those of this server's own daemon",
  isOther: true,
});

/** Through another mount or a virtual machine's file system the same file may have another inode. */
async function isAskedAbout(
  { inode, witness }: DurableQuestion,
  file: FileHandle,
  { ino, size }: { ino: bigint; size: bigint },
): Promise<boolean> {
  return ino === inode || (!!witness && witness === (await witnessIn(file, 0, Number(size))));
}

/** IDs are ordered by timeline, then place: between two of one timeline there is none of another. */
function isShipped({ files, name, shipped }: DurableQuestion, size: number): boolean {
  if (shipped === null || size === 0 || size !== (files.segmentBytesAt(shipped.to) ?? size)) return false;
  const { from, to } = files.span(name, size);
  const isOneTimeline = shipped.from.origin === shipped.to.origin;
  return isOneTimeline && files.covers(from, shipped.from.id) && files.covers(shipped.to.id, to);
}

async function askStore(question: DurableQuestion, file: FileHandle, size: number): Promise<DurableAnswer> {
  const { chunks, files, name, archiveEnd } = question;
  const found = await findFile(chunks, name, files);
  if ('absent' in found) {
    const isRepeated = archiveEnd !== null && (await isRepeatedBy(files.historyAt(archiveEnd), question, file));
    if (isRepeated) return yes('a later history file, which is in the archive, begins with it');
    return found.isBefore ? { ...no(found.absent), hint: letGo(name) } : no(found.absent);
  }
  if (found.length < size) return no(`${found.length} of its ${size} bytes are in the archive`);
  const isSame = found.length === size && (await holds(file, found, chunks.archive));
  return isSame ? yes('the archive has the same bytes') : no('what the archive has under this name is another file');
}

/** A server asks for one file after the other: for one that is never to come it would wait until its disk is full. */
function letGo(name: string): string {
  const status = `pg_wal/archive_status/${name}`;
  return (
    'the archive began later and will never hold it; only base backups that are older than the archive need it. ' +
    `The server goes on with the next one after: mv ${status}.ready ${status}.done`
  );
}

/** A history file begins with that of the timeline before. */
async function isRepeatedBy(later: string | null, question: DurableQuestion, file: FileHandle): Promise<boolean> {
  const { chunks, files, name } = question;
  if (later === null || later === name || files.kindOf(name) !== 'history') return false;
  const found = await findFile(chunks, later, files);
  if ('absent' in found) return false;
  const laterBytes = await bytesOf(found, question, later);
  if (laterBytes === null) return false;
  const { buffer, bytesRead } = await file.read(Buffer.alloc(found.length + 1), 0, found.length + 1, 0);
  return bytesRead > 0 && laterBytes.subarray(0, bytesRead).equals(buffer.subarray(0, bytesRead));
}

/** Of an encrypted file those here, if they are the same; null: they are not, or not here. */
async function bytesOf(found: FoundFile, { chunks, directory }: DurableQuestion, name: string): Promise<Buffer | null> {
  if (!found.pieces.some(({ encrypted }) => encrypted)) {
    const pieces: Uint8Array[] = [];
    for await (const { bytes } of chunks.readInOrder(found.pieces)) pieces.push(Buffer.from(bytes));
    return Buffer.concat(pieces);
  }
  const file = await openFile(join(directory, name));
  try {
    if (file === null || !(await holds(file, found, chunks.archive))) return null;
    const { buffer, bytesRead } = await file.read(Buffer.alloc(found.length), 0, found.length, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file?.close();
  }
}

async function holds(file: FileHandle, { pieces }: FoundFile, { secret }: Archive): Promise<boolean> {
  for (const { offset, length, chunkLength, witness, encrypted } of pieces) {
    if (length !== chunkLength) return false; // of a part the archive tells no digest
    const plain = await witnessIn(file, offset, length);
    if (plain === null) return false;
    const found = encrypted ? secret && keyedWitness(plain, await secret.read()) : plain;
    if (found !== witness) return false;
  }
  return true;
}
