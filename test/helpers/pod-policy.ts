import { PodMonitor } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor';
import { type IStatefulSet, StatefulSet } from 'kubernetes-models/apps/v1/StatefulSet';
import { NetworkPolicy } from 'kubernetes-models/networking.k8s.io/v1/NetworkPolicy';
import { PodDisruptionBudget } from 'kubernetes-models/policy/v1/PodDisruptionBudget';
import { ConfigMap } from 'kubernetes-models/v1/ConfigMap';
import type { IContainer } from 'kubernetes-models/v1/Container';
import type { IPodSpec } from 'kubernetes-models/v1/PodSpec';
import { Service } from 'kubernetes-models/v1/Service';
import { ServiceAccount } from 'kubernetes-models/v1/ServiceAccount';
import type { Resource } from './manifests.ts';

/** A StatefulSet's pods. */
export interface Pods {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly spec: IPodSpec;
  readonly claims: readonly string[];
}

export function podsOf(all: readonly Resource[]): Pods[] {
  return all.filter(StatefulSet.is).map(({ metadata, spec }: IStatefulSet) => ({
    name: metadata?.name ?? '',
    labels: spec?.template.metadata?.labels ?? {},
    spec: spec?.template.spec ?? { containers: [] },
    claims: (spec?.volumeClaimTemplates ?? []).map((claim) => claim.metadata?.name ?? ''),
  }));
}

const SIDECAR = 'shipmate';
const portsOf = ({ spec }: Pods) => spec.containers.flatMap(({ ports }) => (ports ?? []).map(({ name }) => name));
export const containersOf = ({ initContainers, containers }: IPodSpec) => [...(initContainers ?? []), ...containers];

/** What the schemas allow and this project does not: rights, probes, resources, and names that lead nowhere. */
export function policyProblems(all: readonly Resource[]): string[] {
  const pods = podsOf(all);
  return [
    ...pods.flatMap(podProblems),
    ...pods.flatMap((pod) => volumeProblems(pod, all)),
    ...pods.flatMap((pod) => coverProblems(pod, all)),
    ...selectorProblems(pods, all),
  ];
}

function podProblems(pods: Pods): string[] {
  const { name, spec } = pods;
  const spread = spec.affinity?.podAntiAffinity?.requiredDuringSchedulingIgnoredDuringExecution ?? [];
  const apart = spread.some(
    ({ topologyKey, labelSelector }) =>
      topologyKey === 'kubernetes.io/hostname' && matches(labelSelector?.matchLabels, pods.labels),
  );
  const wrong = [
    ...(spec.hostNetwork || spec.hostPID || spec.hostIPC ? ['shares a namespace with its host'] : []),
    ...(spec.automountServiceAccountToken === false ? [] : ['is given a token of Kubernetes']),
    ...(spec.securityContext?.fsGroup ? [] : ['has no fsGroup: nobody but root may write its volumes']),
    ...(apart ? [] : ['may share a host with its like']),
  ].map((problem) => `${name}: ${problem}`);
  const running = spec.containers.flatMap((container) => runningProblems(pods, container));
  return [...wrong, ...containersOf(spec).flatMap((container) => rightsProblems(name, container)), ...running];
}

function rightsProblems(pod: string, { name, image, securityContext, resources }: IContainer): string[] {
  const { runAsNonRoot, runAsUser, readOnlyRootFilesystem, allowPrivilegeEscalation } = securityContext ?? {};
  const { privileged, capabilities, seccompProfile } = securityContext ?? {};
  const demands: [boolean, string][] = [
    [runAsNonRoot === true && (runAsUser ?? 0) > 0, 'may run as root'],
    [readOnlyRootFilesystem === true, 'may write its root file system'],
    [allowPrivilegeEscalation === false && privileged !== true, 'may gain privileges'],
    [capabilities?.drop?.join() === 'ALL' && !capabilities.add?.length, 'has capabilities'],
    [seccompProfile?.type === 'RuntimeDefault', 'has no seccomp profile'],
    [Boolean(resources?.requests?.cpu && resources.requests.memory), 'requests no processor or memory'],
    [Boolean(resources?.limits?.memory), 'has no limit of memory'],
    [/:[\w.-]+$/.test(image ?? '') && !image?.endsWith(':latest'), 'has an image without a version'],
  ];
  return demands.filter(([met]) => !met).map(([, problem]) => `${pod}, ${name}: ${problem}`);
}

function runningProblems(pods: Pods, container: IContainer): string[] {
  const { name, startupProbe, livenessProbe, readinessProbe, ports = [] } = container;
  const probes = [startupProbe, livenessProbe, readinessProbe].filter((probe) => probe !== undefined);
  const asked = probes.map((probe) => (probe.httpGet ?? probe.tcpSocket)?.port).filter((port) => port !== undefined);
  const isSidecar = name === SIDECAR;
  const demands: [boolean, string][] = [
    [startupProbe !== undefined && livenessProbe !== undefined, 'has no probe of its start, or of its life'],
    [asked.every((port) => ports.some((own) => own.name === port)), 'is asked at a port that it does not have'],
    [
      isSidecar === (readinessProbe === undefined),
      isSidecar ? 'may take its database out of service' : 'has no readiness',
    ],
    [!isSidecar || livenessProbe?.httpGet?.path === '/healthz', 'is killed for something else than its health'],
    [!isSidecar || container.lifecycle?.preStop !== undefined, 'is stopped before its database'],
  ];
  return demands.filter(([met]) => !met).map(([, problem]) => `${pods.name}, ${name}: ${problem}`);
}

/** Mounts without a volume, volumes that nobody mounts, and ConfigMaps and accounts that are not there. */
function volumeProblems({ name, spec, claims }: Pods, all: readonly Resource[]): string[] {
  const volumes = [...claims, ...(spec.volumes ?? []).map((volume) => volume.name)];
  const mounted = containersOf(spec).flatMap(({ volumeMounts }) => (volumeMounts ?? []).map((mount) => mount.name));
  const configMaps = all.filter(ConfigMap.is).map(({ metadata }) => metadata?.name);
  const accounts = all.filter(ServiceAccount.is).map(({ metadata }) => metadata?.name);
  const asked = (spec.volumes ?? []).map(({ configMap }) => configMap?.name).filter((one) => one !== undefined);
  return [
    ...mounted.filter((mount) => !volumes.includes(mount)).map((mount) => `there is no volume ${mount}`),
    ...volumes.filter((volume) => !mounted.includes(volume)).map((volume) => `nobody mounts ${volume}`),
    ...(spec.volumes ?? []).filter(({ hostPath }) => hostPath).map((volume) => `${volume.name} is the host's`),
    ...asked.filter((map) => !configMaps.includes(map)).map((map) => `there is no ConfigMap ${map}`),
    ...(spec.serviceAccountName === undefined || accounts.includes(spec.serviceAccountName)
      ? []
      : [`there is no account ${spec.serviceAccountName}`]),
  ].map((problem) => `${name}: ${problem}`);
}

/** Whether each pod has a budget, a policy for what comes in, its headless Service and, with a sidecar, a monitor. */
function coverProblems(pods: Pods, all: readonly Resource[]): string[] {
  const { name, labels, spec } = pods;
  const budgets = all.filter(PodDisruptionBudget.is).filter((one) => matches(one.spec?.selector?.matchLabels, labels));
  const policies = all
    .filter(NetworkPolicy.is)
    .filter(({ spec: one }) => matches(one?.podSelector?.matchLabels, labels));
  const set = all.filter(StatefulSet.is).find(({ metadata }) => metadata?.name === name);
  const service = all.filter(Service.is).find(({ metadata }) => metadata?.name === set?.spec?.serviceName);
  const isMonitored = all.filter(PodMonitor.is).some(({ spec: one }) => matches(one.selector.matchLabels, labels));
  const hasSidecar = spec.containers.some((container) => container.name === SIDECAR);
  const demands: [boolean, string][] = [
    [budgets.length === 1, 'has no disruption budget of its own'],
    [policies.some((one) => one.spec?.policyTypes?.includes('Ingress')), 'may be reached by anybody'],
    [!hasSidecar || policies.some((one) => one.spec?.policyTypes?.includes('Egress')), 'may reach anybody'],
    [service?.spec?.clusterIP === 'None', 'has no headless Service: its pods have no names'],
    [!hasSidecar || isMonitored, 'is not monitored'],
  ];
  return demands.filter(([met]) => !met).map(([, problem]) => `${name}: ${problem}`);
}

type Selected = {
  readonly what: string;
  readonly labels: Record<string, string> | undefined;
  readonly ports: unknown[];
};

/** What selects no pod, or speaks of a port that the selected pods don't have. */
function selectorProblems(pods: readonly Pods[], all: readonly Resource[]): string[] {
  return selections(all).flatMap(({ what, labels, ports }) => {
    const { 'statefulset.kubernetes.io/pod-name': pod, ...rest } = labels ?? {};
    const chosen = pods.filter(
      (one) => matches(rest, one.labels) && (pod === undefined || pod.replace(/-\d+$/, '') === one.name),
    );
    if (chosen.length === 0) return [`${what} selects no pod`];
    const named = ports.filter((port) => typeof port === 'string');
    return chosen.flatMap((one) =>
      named.filter((port) => !portsOf(one).includes(port)).map((port) => `${what}: ${one.name} has no port ${port}`),
    );
  });
}

function selections(all: readonly Resource[]): Selected[] {
  const services = all.filter(Service.is).map(({ metadata, spec }) => ({
    what: `Service ${metadata?.name}`,
    labels: spec?.selector,
    ports: (spec?.ports ?? []).map(({ targetPort }) => targetPort),
  }));
  const budgets = all.filter(PodDisruptionBudget.is).map(({ metadata, spec }) => ({
    what: `PodDisruptionBudget ${metadata?.name}`,
    labels: spec?.selector?.matchLabels,
    ports: [],
  }));
  const monitors = all.filter(PodMonitor.is).map(({ metadata, spec }) => ({
    what: `PodMonitor ${metadata?.name}`,
    labels: spec.selector.matchLabels,
    ports: (spec.podMetricsEndpoints ?? []).map(({ port }) => port),
  }));
  const policies = all.filter(NetworkPolicy.is).map(({ metadata, spec }) => ({
    what: `NetworkPolicy ${metadata?.name}`,
    labels: spec?.podSelector?.matchLabels,
    ports: (spec?.ingress ?? []).flatMap(({ ports }) => (ports ?? []).map(({ port }) => port)),
  }));
  return [...services, ...budgets, ...monitors, ...policies];
}

/** No labels at all select nothing here: that would be everything. */
function matches(selector: Record<string, string> | undefined, labels: Readonly<Record<string, string>>): boolean {
  const wanted = Object.entries(selector ?? {});
  return wanted.length > 0 && wanted.every(([key, value]) => labels[key] === value);
}
