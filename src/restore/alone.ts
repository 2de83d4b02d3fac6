import { once } from 'node:events';
import { stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { codeOf, ShipmateError } from '../errors.ts';

/**
 * Runs `work` unless another process of this host does so in the same directory. They know of each other by a name in the
 * kernel (an abstract socket's), which goes with its process however that ends.
 */
export async function aloneIn<T>(directory: string, work: () => Promise<T>): Promise<T> {
  const { dev, ino } = await stat(directory, { bigint: true });
  const name = createServer().unref().listen(`\0shipmate-restore-${dev}-${ino}`);
  try {
    await once(name, 'listening').catch((error: unknown) => {
      if (codeOf(error) === 'EADDRINUSE') throw taken(directory); // where there are no such names, nobody is told
    });
    return await work();
  } finally {
    name.close();
  }
}

const taken = (directory: string) =>
  new ShipmateError(`another restore is writing to ${directory}`, {
    code: 'RESTORE_RUNNING',
    hint: 'wait until it is done, or end it: then the same command goes on where it stopped',
  });
