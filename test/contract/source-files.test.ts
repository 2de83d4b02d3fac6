import { LogFiles } from '../helpers/log-files.ts';
import { sourceContract } from './source.contract.ts';

const never = ['reset', 'rollBack', 'finishedPurge'] as const;

async function startFiles(live?: string) {
  const files = new LogFiles(live === undefined ? {} : { live });
  files.rotate();
  return {
    open: () => files.open({ settleMs: 0 }),
    append: async (options?: { bytes?: number }) => files.append(options),
    rotate: async () => files.rotate(),
    purge: async () => files.purge(),
    contents: async () => files.contents(),
    close: async () => files.remove(),
  };
}

sourceContract('files', () => startFiles(), { never });
