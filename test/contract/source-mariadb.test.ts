import { openMariadbSource } from '../../src/source/mariadb.ts';
import { BinlogDir, type Flavour } from '../helpers/binlog.ts';
import { sourceContract } from './source.contract.ts';

const log = { debug() {}, info() {}, warn() {}, error() {} };

async function startBinlogs(flavour: Flavour) {
  const binlogs = new BinlogDir({ flavour });
  let putBack = () => {};
  binlogs.start();
  binlogs.transaction();
  return {
    open: () => openMariadbSource({ stream: 'orders', dir: binlogs.dir, flavour, busyPollMs: 10, log }),
    append: async (options?: { bytes?: number }) => binlogs.transaction(options),
    rotate: () => binlogs.rotate(),
    purge: async () => binlogs.purge(),
    reset: async () => binlogs.reset(),
    remember: async () => {
      putBack = binlogs.remember();
    },
    rollBack: async () => {
      putBack();
      binlogs.transaction();
    },
    contents: async () => binlogs.contents(),
    close: async () => binlogs.remove(),
  };
}

sourceContract('mariadb', () => startBinlogs('mariadb'));
sourceContract('mysql', () => startBinlogs('mysql'), { never: ['finishedPurge'] });
