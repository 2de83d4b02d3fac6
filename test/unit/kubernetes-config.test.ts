import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { NetworkPolicy } from 'kubernetes-models/networking.k8s.io/v1/NetworkPolicy';
import { ConfigMap } from 'kubernetes-models/v1/ConfigMap';
import type { IContainer } from 'kubernetes-models/v1/Container';
import { COMMANDS } from '../../src/cli/commands.ts';
import { endpointOf } from '../../src/cli/drain.ts';
import { type Config, parseConfig, streamOf } from '../../src/config.ts';
import { noKustomize, type Resource, render } from '../helpers/manifests.ts';
import { type Pods, podsOf } from '../helpers/pod-policy.ts';

const DOCKERFILE = readFileSync(join(import.meta.dirname, '..', '..', 'Dockerfile'), 'utf8');

let password: string;
let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'shipmate-kubernetes-config-'));
  password = join(dir, 'password');
  writeFileSync(password, 'secret1\n');
});
afterAll(() => rmSync(dir, { recursive: true }));

const sidecarOf = ({ spec }: Pods): IContainer => spec.containers.find(({ name }) => name === 'shipmate')!;
const mountOf = ({ volumeMounts = [] }: IContainer, path: string) =>
  volumeMounts.filter(({ mountPath }) => `${path}/`.startsWith(`${mountPath}/`)).at(-1);

/** What the kubelet gives the sidecar of the pod NAME-0; a secret's file becomes one that is here. */
function environmentOf(pods: Pods): Record<string, string> {
  const sidecar = sidecarOf(pods);
  const given = (sidecar.env ?? []).map(({ name, value, valueFrom }): [string, string] => {
    if (valueFrom?.fieldRef?.fieldPath === 'metadata.name') return [name, `${pods.name}-0`];
    if (!name.endsWith('_FILE')) return [name, value ?? ''];
    const volume = pods.spec.volumes?.find((one) => one.name === mountOf(sidecar, value ?? '')?.name);
    expect(volume?.secret?.items?.map(({ path }) => path)).toContain(value?.split('/').at(-1));
    return [name, password];
  });
  return Object.fromEntries(given);
}

function configOf(pods: Pods, all: readonly Resource[]): Config {
  const volume = pods.spec.volumes?.find(({ name }) => name === mountOf(sidecarOf(pods), '/etc/shipmate')?.name);
  const map = all.filter(ConfigMap.is).find(({ metadata }) => metadata?.name === volume?.configMap?.name);
  const text = map?.data?.['shipmate.yaml'] ?? '';
  return parseConfig(text, { file: 'shipmate.yaml', environment: environmentOf(pods) });
}

const OF = { mariadb: 'orders', postgres: 'billing' };
const CASES = ['gke', 'eks', 'aks'].flatMap((overlay) =>
  Object.entries(OF).map(([name, stream]) => ({ overlay, name, stream })),
);

if (noKustomize !== null) {
  process.stderr.write(`      skipped: ${noKustomize}\n`);
  describe('the config in the pods', () => test.skip(noKustomize!, () => {}));
} else {
  describe.each(CASES)('the config in $overlay’s $name-0', ({ overlay, name, stream }) => {
    const all = render(`overlays/${overlay}`);
    const pods = podsOf(all).find((one) => one.name === name)!;
    const sidecar = sidecarOf(pods);
    const database = pods.spec.containers.find((one) => one.name === name)!;
    let config: Config;
    beforeAll(() => {
      config = configOf(pods, all);
    });

    test('is accepted with what the pod gives it, and names the node by the pod', () => {
      expect(config.node).toBe(`${name}-0`);
      const { source } = streamOf(config, stream);
      expect('url' in source && source.url).toContain('secret1');
    });

    test('reads what the database writes, without the right to change it', () => {
      const { dir: log } = streamOf(config, stream).source;
      const mount = mountOf(sidecar, log);
      expect(mount).toMatchObject({ name: 'data', readOnly: true });
      expect(mountOf(database, log)).toMatchObject({ name: 'data' });
    });

    test('asks the server at a socket that both containers see', () => {
      const { source } = streamOf(config, stream);
      const endpoint = endpointOf(('url' in source && source.url) || '');
      const path = 'path' in endpoint ? endpoint.path : '';
      expect(mountOf(sidecar, path)?.name).toBe('run');
      expect(mountOf(database, path)?.name).toBe('run');
    });

    test('remembers its archive on a volume that outlives the pod', () => {
      const mount = mountOf(sidecar, config.stateDir);
      expect(pods.claims).toContain(mount?.name);
      expect(mount?.readOnly).toBeUndefined();
      expect(config.stateDir).not.toBe(mount?.mountPath); // which belongs to root; the daemon makes its own, 0700
    });

    test('listens where the probes and Prometheus ask', () => {
      const port = sidecar.ports?.find((one) => one.name === sidecar.livenessProbe?.httpGet?.port);
      expect(config.admin).toEqual({ host: '0.0.0.0', port: port?.containerPort });
    });

    test('reaches etcd through the network policy', () => {
      const endpoints = config.coordination.kind === 'etcd' ? config.coordination.endpoints : [];
      const ports = new Set(endpoints.map((url) => Number(new URL(url).port)));
      const policy = all.filter(NetworkPolicy.is).find(({ metadata }) => metadata?.name === name);
      const open = (policy?.spec?.egress ?? []).flatMap(({ ports: some }) => (some ?? []).map(({ port }) => port));
      expect(endpoints).toHaveLength(3);
      for (const port of ports) expect(open).toContain(port);
    });

    test('is the image’s: its user, its port, and its program, which the arguments are given to', () => {
      const { runAsUser, runAsGroup } = sidecar.securityContext ?? {};
      expect(DOCKERFILE).toContain(`\nUSER ${runAsUser}:${runAsGroup}\n`);
      expect(DOCKERFILE).toContain(`\nEXPOSE ${sidecar.ports?.[0]?.containerPort}\n`);
      expect(DOCKERFILE).toContain('\nENTRYPOINT ["shipmate"]\n');
      expect(sidecar.command).toBeUndefined();
    });

    test('is run, and left, by commands that exist', () => {
      const commands = COMMANDS.map((command) => command.name);
      expect(commands).toContain(sidecar.args?.[0]);
      const [program, command] = sidecar.lifecycle?.preStop?.exec?.command ?? [];
      expect(program).toBe('shipmate');
      expect(commands).toContain(command);
    });
  });
}
