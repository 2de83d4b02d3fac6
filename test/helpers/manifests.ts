import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PodMonitor } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor';
import { PrometheusRule } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule';
import { StatefulSet } from 'kubernetes-models/apps/v1/StatefulSet';
import { NetworkPolicy } from 'kubernetes-models/networking.k8s.io/v1/NetworkPolicy';
import { PodDisruptionBudget } from 'kubernetes-models/policy/v1/PodDisruptionBudget';
import { ConfigMap } from 'kubernetes-models/v1/ConfigMap';
import { Namespace } from 'kubernetes-models/v1/Namespace';
import { Service } from 'kubernetes-models/v1/Service';
import { ServiceAccount } from 'kubernetes-models/v1/ServiceAccount';
import { parseAllDocuments } from 'yaml';
import { messageOf } from '../../src/errors.ts';

const ROOT = join(import.meta.dirname, '..', '..');
export const KUBERNETES = join(ROOT, 'deploy', 'kubernetes');

/** As scripts/setup builds it where there is Go. */
const VERSION = 'v5.8.1';
const KUSTOMIZE = join(ROOT, '.cache', 'bin', `kustomize-${VERSION}`);

/** Why nothing can be rendered, for the report of a test that is skipped; null where it can. */
export const noKustomize = existsSync(KUSTOMIZE)
  ? null
  : `kustomize ${VERSION} is not here (scripts/setup builds it where there is Go)`;

/** A Kubernetes resource, not checked yet. */
export interface Resource {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata?: { readonly name?: string };
}

/** What `kubectl apply -k` would send; `folder` is below deploy/kubernetes. Throws with what kustomize says. */
export function render(folder: string): Resource[] {
  return resources(execFileSync(KUSTOMIZE, ['build', join(KUBERNETES, folder)], { encoding: 'utf8', stdio: 'pipe' }));
}

/** The documents of a YAML file. */
export function resources(text: string): Resource[] {
  return parseAllDocuments(text, { merge: true }).map((document) => document.toJS());
}

/** Whose shape is known here; a resource of another kind is a problem. */
const MODELS = {
  ConfigMap: { model: ConfigMap, from: 'kubernetes-models/v1/ConfigMap' },
  Namespace: { model: Namespace, from: 'kubernetes-models/v1/Namespace' },
  NetworkPolicy: { model: NetworkPolicy, from: 'kubernetes-models/networking.k8s.io/v1/NetworkPolicy' },
  PodDisruptionBudget: { model: PodDisruptionBudget, from: 'kubernetes-models/policy/v1/PodDisruptionBudget' },
  PodMonitor: { model: PodMonitor, from: '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor' },
  PrometheusRule: {
    model: PrometheusRule,
    from: '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule',
  },
  Service: { model: Service, from: 'kubernetes-models/v1/Service' },
  ServiceAccount: { model: ServiceAccount, from: 'kubernetes-models/v1/ServiceAccount' },
  StatefulSet: { model: StatefulSet, from: 'kubernetes-models/apps/v1/StatefulSet' },
};

type Kind = keyof typeof MODELS;
const isKnown = (kind: string): kind is Kind => Object.hasOwn(MODELS, kind);
const nameOf = ({ kind, metadata }: Resource) => `${kind} ${metadata?.name}`;

/** What the API server would refuse: wrong types and values, missing fields (the schemas' validators), fields that don't exist. */
export function problemsOf(all: readonly Resource[]): string[] {
  const known = all.filter(({ kind, apiVersion }) => isKnown(kind) && MODELS[kind].model.apiVersion === apiVersion);
  const unknown = all.filter((resource) => !known.includes(resource));
  return [
    ...unknown.map((resource) => `${nameOf(resource)}: no schema of ${resource.apiVersion} ${resource.kind} is here`),
    ...known.flatMap(invalid),
    ...unknownFields(known),
  ];
}

function invalid(resource: Resource): string[] {
  if (!isKnown(resource.kind)) return [];
  const { model } = MODELS[resource.kind];
  try {
    // Its constructor keeps what it is given, whatever that is.
    Reflect.construct(model, [resource]).validate();
    return [];
  } catch (error) {
    return [`${nameOf(resource)}: ${messageOf(error)}`];
  }
}

/**
 * The API server drops fields that it does not know, and kubectl only warns. The schemas' validators let them pass, their
 * types don't: the compiler looks at each resource as a literal.
 */
function unknownFields(all: readonly Resource[]): string[] {
  if (all.length === 0) return []; // the compiler would take the whole project
  mkdirSync(join(ROOT, '.cache'), { recursive: true });
  const folder = mkdtempSync(join(ROOT, '.cache', 'manifests-'));
  try {
    for (const [at, resource] of all.entries()) {
      const { kind } = resource;
      const from = isKnown(kind) ? MODELS[kind].from : '';
      const literal = JSON.stringify(resource, null, 1);
      writeFileSync(
        join(folder, `${at}.ts`),
        `import type { I${kind} } from '${from}';\nexport const resource: I${kind} = ${literal};\n`,
      );
    }
    const files = all.map((_, at) => `${at}.ts`);
    const flags = ['--noEmit', '--strict', '--exactOptionalPropertyTypes', 'false', '--skipLibCheck', '--ignoreConfig'];
    const tsc = join(ROOT, 'node_modules', '.bin', 'tsc');
    const { stdout, status } = spawnSync(tsc, [...flags, '--module', 'nodenext', '--pretty', 'false', ...files], {
      cwd: folder,
      encoding: 'utf8',
    });
    const found = [...stdout.matchAll(/^(\d+)\.ts\(\d+,\d+\): error TS\d+: (.*)$/gm)];
    if (status !== 0 && found.length === 0) throw new Error(`the compiler ended with ${status}:\n${stdout}`);
    return found.map(([, at, message]) => `${nameOf(all[Number(at)]!)}: ${message}`);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
