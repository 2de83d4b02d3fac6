import { type FaultRule, switchFaults } from '../fakes/faulty-store.ts';
import type { Cluster } from '../helpers/cluster.ts';
import { type Daemon, shipmate } from '../helpers/daemon.ts';
import type { EtcdNode } from '../helpers/etcd.ts';
import { STREAM, type Twins } from '../helpers/twins.ts';
import type { Trouble } from './schedule.ts';

export const nothing = async () => {};

/** Everything that the chaos test does to a cluster; `random` (0 to 1) chooses victims. */
export function troubles(cluster: Cluster, random: () => number): Trouble[] {
  return [
    ...daemonTroubles(cluster, random),
    ...etcdTroubles(cluster, random),
    ...storeTroubles(cluster, random),
  ].concat(serverTroubles(cluster));
}

export const oneOf = <T>(all: readonly T[], random: () => number): T => all[Math.floor(random() * all.length)]!;

export function daemonTroubles(cluster: Twins, random: () => number): Trouble[] {
  const master = () => cluster.master();
  const any = async () => oneOf(cluster.daemons, random);
  const touches = ['daemons'] as const;
  const killed = (whom: () => Promise<Daemon>) => async () => {
    const daemon = await whom();
    await daemon.kill();
    return () => daemon.start();
  };
  const frozen = (whom: () => Promise<Daemon>) => async () => {
    const daemon = await whom();
    daemon.freeze();
    return async () => daemon.thaw();
  };
  return [
    { name: 'SIGKILL of the master', touches, begin: killed(master) },
    { name: 'SIGKILL of a daemon', touches, begin: killed(any) },
    { name: 'SIGSTOP of the master', touches, begin: frozen(master) },
    { name: 'SIGSTOP of a daemon', touches, begin: frozen(any) },
    {
      name: 'SIGTERM of the master',
      touches,
      async begin() {
        const daemon = await master();
        await daemon.stop();
        return () => daemon.start();
      },
    },
    {
      name: 'SIGKILL of both daemons',
      touches,
      async begin() {
        await Promise.all(cluster.daemons.map((daemon) => daemon.kill()));
        return async () => {
          await Promise.all(cluster.daemons.map((daemon) => daemon.start()));
        };
      },
    },
    {
      name: 'handover by command',
      touches,
      async begin() {
        // Whether it can be carried out depends on what else goes wrong: either is fine.
        await shipmate(oneOf(cluster.daemons, random).configFile, 'handover', STREAM);
        return nothing;
      },
    },
  ];
}

export function etcdTroubles(cluster: Twins, random: () => number): Trouble[] {
  const cut = (whom: () => Promise<readonly Daemon[]>) => async () => {
    const links = (await whom()).map((daemon) => cluster.link(daemon));
    for (const link of links) link.cut();
    return async () => {
      for (const link of links) link.heal();
    };
  };
  const { nodes } = cluster.etcd;
  const frozen = (whom: () => readonly EtcdNode[]) => async () => {
    const victims = whom();
    for (const node of victims) node.freeze();
    return async () => {
      for (const node of victims) node.thaw();
    };
  };
  return [
    { name: 'etcd cut off from the master', touches: ['network'], begin: cut(async () => [await cluster.master()]) },
    {
      name: 'etcd cut off from a daemon',
      touches: ['network'],
      begin: cut(async () => [oneOf(cluster.daemons, random)]),
    },
    { name: 'etcd cut off from both daemons', touches: ['network'], begin: cut(async () => cluster.daemons) },
    { name: 'an etcd node frozen', touches: ['etcd'], begin: frozen(() => [oneOf(nodes, random)]) },
    { name: 'all of etcd frozen', touches: ['etcd'], begin: frozen(() => nodes) },
    {
      name: 'an etcd node killed',
      touches: ['etcd'],
      async begin() {
        const node = oneOf(nodes, random);
        await node.kill('SIGKILL');
        return () => node.restart();
      },
    },
    {
      name: 'etcd put back to a backup',
      touches: ['etcd'],
      async begin() {
        const copies: string[] = [];
        for (const node of nodes) copies.push(await node.copyData());
        return async () => {
          await Promise.all(nodes.map((node) => node.stop()));
          await Promise.all(nodes.map((node, n) => node.restart({ from: copies[n]! })));
        };
      },
    },
    {
      name: 'etcd wiped',
      touches: ['etcd'],
      async begin() {
        await Promise.all(nodes.map((node) => node.stop()));
        return async () => {
          await Promise.all(nodes.map((node) => node.restart({ wipe: true })));
        };
      },
    },
  ];
}

function storeTroubles(cluster: Cluster, random: () => number): Trouble[] {
  const touches = ['store'] as const;
  const faulty = (name: string, rules: readonly FaultRule[]): Trouble => ({
    name,
    touches,
    async begin() {
      const seed = Math.floor(random() * 2 ** 31);
      for (const { faultsFile } of cluster.daemons) switchFaults(faultsFile!, { seed, rules });
      return async () => {
        for (const { faultsFile } of cluster.daemons) switchFaults(faultsFile!, { seed, rules: [] });
      };
    },
  });
  const reads = ['readStart', 'read', 'head', 'list'] as const;
  return [
    faulty('a store without room', [{ kind: 'full' }]),
    faulty('a store with I/O errors', [{ kind: 'error', probability: 0.6, operations: ['create', ...reads] }]),
    faulty('a slow store', [{ kind: 'slow', slowMs: 300, probability: 0.5, operations: ['create', ...reads] }]),
    faulty('a store that creates, and reports failure', [{ kind: 'ambiguous', probability: 0.6 }]),
    faulty('a store with everything at once', [
      { kind: 'ambiguous', probability: 0.3 },
      { kind: 'error', probability: 0.3, operations: ['create', ...reads] },
      { kind: 'slow', slowMs: 500, probability: 0.3 },
    ]),
  ];
}

function serverTroubles(cluster: Cluster): Trouble[] {
  const { server } = cluster;
  const touches = ['server'] as const;
  return [
    {
      name: 'a rotation of the binlog',
      touches,
      async begin() {
        await server.query('FLUSH BINARY LOGS');
        return nothing;
      },
    },
    {
      name: 'SIGKILL of the database server',
      touches,
      async begin() {
        await server.kill9();
        return () => server.restart();
      },
    },
    {
      name: 'power loss of the database server',
      touches,
      async begin() {
        const copy = await cluster.copyServer();
        return () => cluster.loseServersTail(copy);
      },
    },
  ];
}
