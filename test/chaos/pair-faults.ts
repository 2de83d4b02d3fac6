import { setTimeout as delay } from 'node:timers/promises';
import type { GcsFault } from '../helpers/gcs-double-faults.ts';
import type { TwoServers } from '../helpers/two-servers.ts';
import { daemonTroubles, etcdTroubles, nothing, oneOf } from './faults.ts';
import type { Trouble } from './schedule.ts';

/** Whatever writes to the database. */
export interface Application {
  /** From now on to the server that is the primary now. */
  write(): Promise<void>;
  rest(): Promise<void>;
}

export interface PairTroublesOptions {
  readonly pair: TwoServers;
  /** 0 to 1: chooses victims. */
  readonly random: () => number;
  readonly application: Application;
}

/** Everything that the chaos test does to two hosts. */
export function pairTroubles(options: PairTroublesOptions): Trouble[] {
  const { pair, random } = options;
  return [
    ...daemonTroubles(pair, random),
    ...etcdTroubles(pair, random),
    ...gcsTroubles(options),
    ...serverTroubles(options),
    ...failovers(options),
  ];
}

function gcsTroubles({ pair, random }: PairTroublesOptions): Trouble[] {
  const gcs = pair.gcs!;
  const touches = ['store'] as const;
  const operations = ['upload', 'session', 'piece', 'read', 'head', 'list'] as const;
  const faulty = (name: string, rules: readonly GcsFault[]): Trouble => ({
    name,
    touches,
    async begin() {
      await gcs.setFaults({ seed: Math.floor(random() * 2 ** 31), rules });
      return () => gcs.setFaults({ rules: [] });
    },
  });
  return [
    faulty('503 from the store', [{ kind: 'refuse', status: 503, probability: 0.6, operations }]),
    faulty('429 from the store', [{ kind: 'refuse', status: 429, retryAfterSeconds: 1, probability: 0.6, operations }]),
    faulty('a store that never answers', [{ kind: 'hang', probability: 0.2, operations }]),
    faulty('a store that creates, and never answers', [{ kind: 'hang-after', probability: 0.2 }]),
    faulty('connections to the store that break after success', [{ kind: 'drop-after', probability: 0.6 }]),
    faulty('a slow store', [{ kind: 'slow', delayMs: 400, probability: 0.5, operations }]),
    faulty('damage on the way to and from the store', [{ kind: 'damage', probability: 0.1, operations }]),
    faulty('a store with everything at once', [
      { kind: 'drop-after', probability: 0.3 },
      { kind: 'drop-before', probability: 0.2, operations },
      { kind: 'refuse', status: 503, probability: 0.2, operations },
      { kind: 'slow', delayMs: 300, probability: 0.5, operations },
    ]),
    {
      name: 'a store behind a cut network',
      touches,
      async begin() {
        gcs.freeze();
        return async () => gcs.thaw();
      },
    },
  ];
}

/** What happens to the servers while they keep their parts. */
function serverTroubles({ pair, random }: PairTroublesOptions): Trouble[] {
  const touches = ['server'] as const;
  const killed = (name: string, whom: () => TwoServers['primary']): Trouble => ({
    name,
    touches,
    async begin() {
      const { server } = whom();
      await server.kill9();
      return () => server.restart();
    },
  });
  return [
    killed('SIGKILL of the primary server', () => pair.primary),
    killed('SIGKILL of the replica server', () => pair.replica),
    {
      name: 'a replica that lags',
      touches,
      async begin() {
        await pair.replica.server.stopReplica({ applierOnly: true });
        return () => pair.replica.server.startReplica();
      },
    },
    {
      name: 'replication cut',
      touches,
      async begin() {
        await pair.replica.server.stopReplica();
        return () => pair.replica.server.startReplica();
      },
    },
    {
      name: 'a rotation of the binlog',
      touches,
      async begin() {
        await oneOf(pair.hosts, random).server.query('FLUSH BINARY LOGS');
        return nothing;
      },
    },
  ];
}

/**
 * What changes the servers' parts, or takes a host with its daemon; as a DBA does it, only while the twins are ready. One
 * failover after the other, each server built anew meanwhile, leaves the archive a gap that is none of its making.
 */
function failovers({ pair, application }: PairTroublesOptions): Trouble[] {
  const touches = ['server', 'daemons'] as const;
  const rejoins = async () => void (await pair.rejoins());
  const failOver = async () => {
    await pair.dies(pair.primary);
    await pair.promote();
    await application.write();
  };
  return [
    {
      name: 'death of the primary’s host, and a failover',
      touches,
      async begin() {
        await pair.ready();
        await failOver();
        return rejoins;
      },
    },
    {
      name: 'death of the primary’s host with a tail that its replica never had, and a failover',
      touches,
      async begin() {
        await pair.ready();
        await pair.replica.server.stopReplica();
        await delay(500);
        await failOver();
        return rejoins;
      },
    },
    {
      name: 'death of the replica’s host',
      touches,
      async begin() {
        await pair.dies(pair.replica);
        return rejoins;
      },
    },
    {
      name: 'a planned switchover',
      touches: ['server'],
      async begin() {
        await pair.ready();
        await application.rest();
        await pair.switchOver();
        await application.write();
        return nothing;
      },
    },
    {
      name: 'an errant write on the replica',
      touches: ['server'],
      async begin() {
        await pair.replica.server.query('CREATE TABLE IF NOT EXISTS shop.errands (note TEXT)');
        await pair.replica.server.query("INSERT INTO shop.errands VALUES ('an errant write')");
        return async () => void (await pair.rejoins({ anew: true }));
      },
    },
    {
      name: 'the primary’s host cut off while it lives on, and a failover',
      touches: ['server', 'daemons', 'network'],
      async begin() {
        await pair.ready();
        const link = pair.link(pair.primary.daemon);
        link.cut();
        await pair.promote();
        await delay(500); // what is written meanwhile is written on an island
        await application.write();
        return async () => {
          link.heal();
          await rejoins();
        };
      },
    },
  ];
}
