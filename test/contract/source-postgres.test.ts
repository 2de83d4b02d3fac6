import { WalServer } from '../helpers/wal-servers.ts';
import { sourceContract } from './source.contract.ts';

/** WAL is flushed before it is read, never starts again under its names, and may be cut anywhere. */
const never = ['reset', 'rollBack', 'openTransaction'] as const;

sourceContract(
  'postgres',
  async () => {
    const server = WalServer.primary();
    return {
      open: () => server.open(),
      append: async (options) => void server.transaction(options),
      rotate: async () => {
        server.switchLog();
        server.idle();
      },
      purge: async (options) => server.purge(options),
      contents: async () => server.contents(),
      close: async () => server.remove(),
    };
  },
  { never },
);
