import { afterEach } from '@jest/globals';
import { Binlogs } from '../../src/source/mariadb/binlogs.ts';
import { Branches } from '../../src/source/mariadb/fork.ts';
import { locate } from '../../src/source/mariadb/locate.ts';
import { LogIndex } from '../../src/source/mariadb/log-index.ts';
import type { ServerState } from '../../src/source/mariadb/server.ts';
import { openMariadbSource } from '../../src/source/mariadb.ts';
import type { Head, Located } from '../../src/source/source.ts';
import { Shipping } from '../contract/source-shipping.ts';
import { ServerLog } from './server-log.ts';

const log = { debug() {}, info() {}, warn() {}, error() {} };
const logs: ServerLog[] = [];
const closing: { close(): Promise<void> }[] = [];

afterEach(async () => {
  for (const each of closing.splice(0)) await each.close();
  for (const each of logs.splice(0)) each.remove();
});

/** A server's log, removed after the test. */
export function server(id: number, options: { seconds?: number } = {}): ServerLog {
  const made = new ServerLog(id, options);
  logs.push(made);
  return made;
}

export const LIVING = { isWritable: true, isReplicating: false } as const;
export const REPLICA = { isWritable: false, isReplicating: true } as const;
const stateOf = ({ serverId }: ServerLog, facts: Partial<ServerState>): ServerState => ({
  serverId,
  isWritable: true,
  isReplicating: null,
  isInRing: false,
  slavePosition: '',
  ...facts,
});

/** A twin beside a server, which remembers what it saw; `facts` are what SQL says, null: nothing, for it is down, or silent. */
export function twinAt(here: ServerLog, { isSilent = false } = {}) {
  const binlogs = new Binlogs({ dir: here.dir, flavour: 'mariadb' });
  const [index, branches] = [new LogIndex('mariadb'), new Branches()];
  closing.push(binlogs);
  return async (head: Head, facts: Partial<ServerState> | null, asked = facts): Promise<Located> => {
    const stateFor = (told: Partial<ServerState> | null) => told && stateOf(here, told);
    const server = stateFor(facts);
    const own = { lineage: await binlogs.look(), index, flavour: 'mariadb', server, lastKnown: server } as const;
    return locate({ ...own, isSilent, askServer: async () => stateFor(asked) }, head, branches);
  };
}

/** An archive of a server's log, a chunk for each run of transactions. */
export async function archiveOf(
  from: ServerLog,
  runs: readonly string[],
  shipping = new Shipping(),
): Promise<Shipping> {
  const source = openMariadbSource({ stream: 'orders', dir: from.dir, flavour: 'mariadb', busyPollMs: 5, log });
  closing.push(source);
  if (shipping.position) shipping.open(await source.locate(shipping.head()));
  for (const gtids of runs) {
    from.apply(gtids);
    await shipping.ship(source);
  }
  return shipping;
}
