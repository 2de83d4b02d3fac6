import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { StatefulSet } from 'kubernetes-models/apps/v1/StatefulSet';
import { ConfigMap } from 'kubernetes-models/v1/ConfigMap';
import type { StatusReport } from '../../src/core/status.ts';
import { type Resource, render } from './manifests.ts';
import { Pod } from './pod.ts';
import { PodNode } from './pod-node.ts';
import { until } from './wait.ts';

const FAKE_GCS = join(import.meta.dirname, '..', '..', '.cache', 'bin', 'fake-gcs-server-v1.56.1');
const STORE_PORT = 4443;

/** Why there can be no cluster; null where there can. */
export const noStore = existsSync(FAKE_GCS)
  ? null
  : 'fake-gcs-server is not here (scripts/setup builds it where there is Go)';

/** A database's pair in the cluster. */
export interface Pair {
  readonly name: 'mariadb' | 'postgres';
  readonly stream: string;
  readonly pods: readonly [Pod, Pod];
  /** One statement, in a pod's server, as its superuser; what it gives, as text. */
  sql(pod: Pod, statement: string): Promise<string>;
  /** What `kubectl apply` of another "primary" in the kustomization does. */
  setPrimary(pod: Pod): void;
}

const CLIENTS = {
  mariadb: ['mariadb', '--no-defaults', '--socket=/run/mysqld/mysqld.sock', '--user=mysql', '-NBe'],
  postgres: ['psql', '--no-psqlrc', '--host=/run/postgresql', '--username=postgres', '-qAtc'],
};
const STREAMS = { mariadb: 'orders', postgres: 'billing' } as const;
const SECRETS = Object.fromEntries(
  ['mariadb', 'postgres'].map((name) => [`${name}-passwords`, { replication: 'copyme1', shipmate: 'shipme1' }]),
);

/** Both pairs and etcd's three members, as the overlay for GKE has them; only their bucket is a double of Google's. */
export class PodCluster {
  readonly node: PodNode;
  readonly etcd: readonly Pod[];
  readonly pairs: readonly [Pair, Pair];

  private constructor(node: PodNode, resources: readonly Resource[]) {
    const pod = (set: string, ordinal: number) => new Pod({ node, resources, set, ordinal, secrets: SECRETS });
    const pair = (name: Pair['name']): Pair => ({
      name,
      stream: STREAMS[name],
      pods: [pod(name, 0), pod(name, 1)],
      sql: (at, statement) => at.run(name, ...CLIENTS[name], statement),
      setPrimary: (primary) => {
        const map = resources.filter(ConfigMap.is).find(({ metadata }) => metadata?.name === `${name}-pair`);
        map!.data!.primary = primary.name;
      },
    });
    this.node = node;
    this.etcd = [0, 1, 2].map((ordinal) => pod('etcd', ordinal));
    this.pairs = [pair('mariadb'), pair('postgres')];
  }

  /** Resolves once every probe of every pod passes. */
  static async start(): Promise<PodCluster> {
    const names = ['etcd-0', 'etcd-1', 'etcd-2', 'mariadb-0', 'mariadb-1', 'postgres-0', 'postgres-1'];
    const node = await PodNode.start(names);
    const store = `http://${node.address}:${STORE_PORT}`;
    const cluster = new PodCluster(node, adapted(render('overlays/gke'), store));
    const listen = ['-scheme', 'http', '-host', '0.0.0.0', '-port', String(STORE_PORT), '-backend', 'memory'];
    node.spawn(FAKE_GCS, ...listen, '-public-host', `${node.address}:${STORE_PORT}`, '-log-level', 'error');
    try {
      await until('there is a bucket', () =>
        node.httpStatus(`${store}/storage/v1/b?project=x`, { body: { name: 'acme-logs' } }),
      );
      await Promise.all(cluster.#pods.map((pod) => pod.start()));
      await Promise.all(cluster.#pods.map((pod) => pod.ready()));
      return cluster;
    } catch (error) {
      await cluster.stop();
      throw error;
    }
  }

  get #pods(): Pod[] {
    return [...this.etcd, ...this.pairs.flatMap(({ pods }) => pods)];
  }

  async stop(): Promise<void> {
    await Promise.all(this.#pods.map((pod) => pod.die()));
    await this.node.stop();
  }
}

/** What is not as rendered: a bucket of Google's can't be had here, and at a first start one look at the other server is enough. */
function adapted(all: Resource[], store: string): Resource[] {
  for (const { spec } of all.filter(StatefulSet.is)) {
    for (const { env = [] } of spec?.template.spec?.initContainers ?? []) {
      for (const variable of env) if (variable.name === 'LOOKS') variable.value = '1';
    }
  }
  for (const { data } of all.filter(ConfigMap.is)) {
    const text = data?.['shipmate.yaml'];
    if (text !== undefined) data!['shipmate.yaml'] = text.replace('type: gcs,', `type: gcs, apiEndpoint: "${store}",`);
  }
  return all;
}

/** What `shipmate status` says in a pod. */
export async function statusIn(pod: Pod): Promise<StatusReport['streams'][number]> {
  const report: StatusReport = JSON.parse(await pod.run('shipmate', 'shipmate', 'status', '--json'));
  return report.streams[0]!;
}

/** Waits until the archive has all, one twin leads, and the other could. */
export function untilBothAreReady({ name, pods }: Pair, ask: Pod = pods[0]): Promise<StatusReport['streams'][number]> {
  let stand = '';
  return until(
    `both twins of ${name} are ready`,
    async () => {
      const stream = await statusIn(ask);
      stand = JSON.stringify(stream);
      const ready = stream.twins.filter((twin) => twin.ready);
      return stream.master !== null && ready.length === 2 && stream.lagBytes === 0 && stream;
    },
    { everyMs: 250, describe: () => [stand, ...pods.map(({ tail }) => tail)].join('\n') },
  );
}
