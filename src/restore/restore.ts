import { constants } from 'node:fs';
import { type FileHandle, open, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { bytesText } from '../core/format.ts';
import type { Piece } from '../core/ranges.ts';
import { WitnessDigest } from '../core/witness.ts';
import { ShipmateError } from '../errors.ts';
import type { LogFormat } from '../source/source.ts';
import { aloneIn } from './alone.ts';
import { type Beside, besideOf, writeBeside } from './beside.ts';
import type { ChunkReader } from './chunks.ts';
import { fileBytes, type PlannedSegment, type RestorePlan } from './plan.ts';
import type { Progress } from './progress.ts';
import { attempt, finishTarget, lengthOf, makeTarget, type Note, prepareTarget } from './target.ts';
import { untilText } from './until.ts';

export interface RestoreOptions {
  readonly chunks: ChunkReader;
  readonly format: LogFormat;
  readonly directory: string;
  readonly progress: Progress;
  /** What belongs to it once the files are there: until that is done too, the same call goes on. */
  readonly afterwards?: () => Promise<void>;
}

/** A segment's file, and how much of it is there already. */
interface Target {
  readonly path: string;
  readonly segment: PlannedSegment;
  readonly pieces: number;
  readonly bytes: number;
}

/**
 * Writes what was planned: every byte proven, and durable when this returns. After an interruption the same call goes on:
 * what is there and proves to be right is kept. Returns the bytes that were still to be written.
 */
export async function restore(plan: RestorePlan, options: RestoreOptions): Promise<number> {
  const { format, directory } = options;
  const beside = besideOf(plan, format, directory);
  await makeTarget(directory);
  return aloneIn(directory, () => writeAll(plan, beside, options));
}

async function writeAll(plan: RestorePlan, beside: Beside, options: RestoreOptions): Promise<number> {
  const { chunks, directory, progress } = options;
  const note = noteOf(plan, beside);
  await prepareTarget(directory, note);
  return attempt(directory, async () => {
    const targets = await lookAtTargets(plan, options);
    const missingBytes = targets.reduce((sum, { segment, bytes }) => sum + fileBytes(segment) - bytes, 0);
    await demandRoom(directory, missingBytes);
    progress.stage('restoring', { unit: 'bytes', total: missingBytes });
    try {
      await writeTargets(chunks, targets, options);
    } finally {
      progress.end();
    }
    await writeBeside(beside, directory);
    await options.afterwards?.();
    await finishTarget(directory, note);
    return missingBytes;
  });
}

function noteOf(plan: RestorePlan, beside: Beside): Note {
  const segments = plan.runs.flatMap((run) => run.segments.map(({ name }) => join(run.directory, name)));
  const { archive, stream, until, from, afterGap, throughTerm } = plan;
  return {
    v: 1,
    archive,
    stream,
    until: untilText(until),
    from,
    afterGap,
    throughTerm,
    files: [...segments, ...beside.files.map(({ path }) => path)],
    links: beside.links.map(({ path }) => path),
  };
}

async function demandRoom(directory: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  if (bavail * bsize >= bytes) return;
  throw new ShipmateError(
    `${directory} has room for ${bytesText(bavail * bsize)}, but ${bytesText(bytes)} are to be written`,
    { code: 'RESTORE_NO_ROOM', hint: 'make room, or restore to another file system' },
  );
}

/** What an earlier, interrupted restore left there. */
async function lookAtTargets({ runs }: RestorePlan, { directory, progress }: RestoreOptions): Promise<Target[]> {
  const targets: Target[] = [];
  progress.stage('checking what is there', { unit: 'bytes' });
  try {
    for (const run of runs) {
      for (const segment of run.segments) {
        const path = join(directory, run.directory, segment.name);
        const there = (await lengthOf(path)) === null ? 0 : await provenPieces(path, segment, progress);
        const bytes = segment.pieces
          .slice(0, there)
          .reduce((sum, { length }) => sum + length, segment.fileStart.length);
        targets.push({ path, segment, pieces: there, bytes: there === 0 ? 0 : bytes });
      }
    }
  } finally {
    progress.end();
  }
  return targets;
}

const READ_BYTES = 1 << 20;
/** Of a file, to tell how long it must be. */
const START_BYTES = 64;
const CREATE_OR_OPEN = constants.O_RDWR | constants.O_CREAT;

/** How many of the segment's first pieces the file holds, by their witnesses. What was cut, or encrypted, can't be proven so. */
async function provenPieces(path: string, segment: PlannedSegment, progress: Progress): Promise<number> {
  const { pieces } = segment;
  const handle = await open(path, 'r');
  try {
    const buffer = Buffer.allocUnsafe(READ_BYTES);
    for (const [index, piece] of pieces.entries()) {
      const there = { ...piece, offset: offsetInFile(segment, piece) };
      if (piece.encrypted || piece.length !== piece.chunkLength) return index;
      if (!(await holds(handle, there, buffer))) return index;
      progress.advance(piece.length);
    }
    return pieces.length;
  } finally {
    await handle.close();
  }
}

/** A file that was made of the bytes from inside a segment on is shorter than the server's. */
const offsetInFile = ({ offset, fileStart }: PlannedSegment, piece: Piece) => piece.offset - offset + fileStart.length;

async function holds(handle: FileHandle, { offset, length, witness }: Piece, buffer: Buffer): Promise<boolean> {
  const digest = new WitnessDigest();
  for (let done = 0; done < length; ) {
    const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, length - done), offset + done);
    if (bytesRead === 0) return false;
    digest.update(buffer.subarray(0, bytesRead));
    done += bytesRead;
  }
  return digest.digest() === witness;
}

/** Chunks are read ahead over the ends of segments, so that many small segments are no slower than a large one. */
async function writeTargets(
  chunks: ChunkReader,
  targets: readonly Target[],
  { format, progress }: RestoreOptions,
): Promise<void> {
  const files = new OpenFile(format);
  try {
    // Files that are whole: what the interrupted restore wrote may not be durable yet.
    for (const target of targets) if (target.pieces === target.segment.pieces.length) await files.use(target);
    for await (const { ref, bytes } of chunks.readInOrder(missingPieces(targets))) {
      const handle = await files.use(ref.target);
      await writeFully(handle, bytes.subarray(0, ref.length), offsetInFile(ref.target.segment, ref));
      progress.advance(ref.length);
    }
  } finally {
    await files.close();
  }
}

function* missingPieces(targets: readonly Target[]) {
  for (const target of targets) {
    for (const piece of target.segment.pieces.slice(target.pieces)) yield { ...piece, target };
  }
}

async function writeFully(handle: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += (await handle.write(bytes, done, bytes.length - done, offset + done)).bytesWritten;
  }
}

/** The one file that is written; the one before is made durable while it is. */
class OpenFile {
  readonly #format: LogFormat;
  #target: Target | null = null;
  #handle: FileHandle | null = null;
  #closing: Promise<void> = Promise.resolve();

  constructor(format: LogFormat) {
    this.#format = format;
  }

  async use(target: Target): Promise<FileHandle> {
    if (this.#handle !== null && this.#target === target) return this.#handle;
    await this.#leave();
    const handle = await open(target.path, CREATE_OR_OPEN, 0o640);
    this.#handle = handle;
    this.#target = target;
    await handle.truncate(target.bytes);
    await writeFully(handle, target.segment.fileStart, 0);
    return handle;
  }

  async close(): Promise<void> {
    await this.#leave();
    await this.#closing;
  }

  async #leave(): Promise<void> {
    const handle = this.#handle;
    if (handle === null) return;
    this.#handle = null;
    await this.#closing;
    this.#closing = this.#complete(handle).finally(() => handle.close());
    this.#closing.catch(() => {}); // thrown by whoever waits for it next
  }

  async #complete(handle: FileHandle): Promise<void> {
    const whole = await this.#wholeBytes(handle);
    if (whole !== null && whole > (await handle.stat()).size) await handle.truncate(whole);
    await handle.sync();
  }

  async #wholeBytes(handle: FileHandle): Promise<number | null> {
    if (!this.#format.wholeBytes) return null;
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(START_BYTES), 0, START_BYTES, 0);
    return this.#format.wholeBytes(buffer.subarray(0, bytesRead));
  }
}
