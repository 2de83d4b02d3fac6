import { type FileHandle, open } from 'node:fs/promises';
import { WitnessDigest } from '../core/witness.ts';
import { codeOf } from '../errors.ts';

const READ_BYTES = 1 << 20;

/** The witness of a range of a file; null where it ends before. */
export async function witnessIn(file: FileHandle, offset: number, length: number): Promise<string | null> {
  const digest = new WitnessDigest();
  const buffer = Buffer.allocUnsafe(Math.min(length, READ_BYTES));
  for (let done = 0; done < length; ) {
    const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, length - done), offset + done);
    if (bytesRead === 0) return null;
    digest.update(buffer.subarray(0, bytesRead));
    done += bytesRead;
  }
  return digest.digest();
}

/** Null where no file is. */
export async function openFile(path: string): Promise<FileHandle | null> {
  try {
    return await open(path, 'r');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null;
    throw error;
  }
}

/** Whether two files begin with the same bytes; false where one of them is not there, or ends before. */
export async function beginAlike(one: string, other: string, length: number): Promise<boolean> {
  const witnesses = await Promise.all(
    [one, other].map(async (path) => {
      const file = await openFile(path);
      try {
        return file && (await witnessIn(file, 0, length));
      } finally {
        await file?.close();
      }
    }),
  );
  return witnesses[0] !== null && witnesses[0] === witnesses[1];
}
