import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { parse } from 'yaml';
import { OBJECT, prometheusRule } from '../../scripts/prometheus-rule.ts';
import { version } from '../../src/version.ts';
import { KUBERNETES, noKustomize, problemsOf, type Resource, render, resources } from '../helpers/manifests.ts';
import { containersOf, podsOf, policyProblems } from '../helpers/pod-policy.ts';

const OVERLAYS = readdirSync(join(KUBERNETES, 'overlays'));
const files = readdirSync(KUBERNETES, { recursive: true, encoding: 'utf8' });
const read = (file: string) => readFileSync(join(KUBERNETES, file), 'utf8');

test('each resource of the bases is what its schema says', () => {
  const whole = files.filter((file) => file.startsWith('base/') && /^apiVersion: (?!kustomize)/m.test(yaml(file)));
  expect(whole.length).toBeGreaterThan(8);
  // Without their sidecars, which bring images and the like.
  expect(problemsOf(whole.flatMap((file) => resources(read(file))))).toEqual([]);
});

const yaml = (file: string) => (file.endsWith('.yaml') ? read(file) : '');

test('the alerts are those of deploy/prometheus', async () => {
  expect(readFileSync(OBJECT, 'utf8')).toBe(await prometheusRule());
  const rules = parse(readFileSync(join(KUBERNETES, '..', 'prometheus', 'shipmate.rules.yml'), 'utf8'));
  expect(parse(read('base/monitoring/prometheus-rule.yaml')).spec).toEqual(rules);
});

test('each shell script is one', () => {
  const scripts = files.filter((file) => file.endsWith('.sh'));
  expect(scripts).toHaveLength(6);
  for (const script of scripts) execFileSync('bash', ['-n', join(KUBERNETES, script)], { stdio: 'pipe' });
});

if (noKustomize !== null) {
  process.stderr.write(`      skipped: ${noKustomize}\n`);
  describe('rendered', () => test.skip(noKustomize!, () => {}));
} else {
  describe.each(OVERLAYS)('the overlay %s', (overlay) => {
    const all = render(`overlays/${overlay}`);

    test('is what the schemas say, and what this project asks of pods', () => {
      expect(problemsOf(all)).toEqual([]);
      expect(policyProblems(all)).toEqual([]);
    });

    test('has both pairs, and this version of the daemon beside each', () => {
      const pods = podsOf(all);
      expect(pods.map(({ name }) => name).sort()).toEqual(['etcd', 'mariadb', 'postgres']);
      const images = pods.flatMap(({ spec }) => containersOf(spec).map(({ image }) => image ?? ''));
      expect(images.filter((image) => image.includes('shipmate'))).toEqual(
        ['mariadb', 'postgres'].map(() => `registry.example.com/shipmate:${version}`),
      );
    });
  });

  test('the version without an overlay is this one too', () => {
    expect(read('components/sidecar/sidecar.yaml')).toContain(`image: shipmate:${version}\n`);
  });

  describe('what is wrong is found', () => {
    const gke = render('overlays/gke');

    /** The overlay with one value put in place of another, as text; it must be there. */
    function spoilt(text: string, by: string): Resource[] {
      const before = JSON.stringify(gke);
      const after = before.replace(text, by);
      expect(after).not.toBe(before);
      return JSON.parse(after);
    }

    test.each([
      ['a field that does not exist', '"enableServiceLinks":', '"enableServiceLink":', /enableServiceLink/],
      ['one in a custom resource', '"interval":"15s"', '"intervall":"15s"', /PodMonitor shipmate: .*intervall/],
      ['a wrong type', '"replicas":2', '"replicas":"two"', /StatefulSet mariadb: data\/spec\/replicas/],
      ['no quantity', '"memory":"256Mi"', '"memory":"256 MB"', /memory must match format "quantity"/],
      [
        'what is missing',
        '"selector":{"matchLabels":{"app.kubernetes.io/name":"mariadb"}},"serviceName"',
        '"serviceName"',
        /must have required property selector/,
      ],
      ['no duration', '"interval":"15s"', '"interval":"15"', /interval must match pattern/],
      ['an unknown kind', '"kind":"PodMonitor"', '"kind":"PodMonitors"', /no schema of .* PodMonitors/],
      ['an old version of a kind', '"apiVersion":"policy/v1"', '"apiVersion":"policy/v1beta1"', /no schema of policy/],
    ])('by the schemas: %s', (_, text, by, problem) => {
      const changed = spoilt(text, by).filter((one, at) => JSON.stringify(one) !== JSON.stringify(gke[at]));
      expect(problemsOf(changed).join('\n')).toMatch(problem);
    });

    test.each([
      ['"runAsNonRoot":true', '"runAsNonRoot":false', 'may run as root'],
      ['"runAsUser":65532', '"runAsUser":0', 'may run as root'],
      ['"readOnlyRootFilesystem":true', '"readOnlyRootFilesystem":false', 'may write its root file system'],
      ['"allowPrivilegeEscalation":false', '"allowPrivilegeEscalation":true', 'may gain privileges'],
      ['"drop":["ALL"]', '"drop":["ALL"],"add":["SYS_PTRACE"]', 'has capabilities'],
      ['"type":"RuntimeDefault"', '"type":"Unconfined"', 'has no seccomp profile'],
      ['"limits":{"memory"', '"limits":{"cpu"', 'has no limit of memory'],
      ['"requests":{"cpu":"100m",', '"requests":{', 'requests no processor'],
      [`shipmate:${version}`, 'shipmate:latest', 'has an image without a version'],
      ['"path":"/healthz"', '"path":"/readyz"', 'is killed for something else'],
      [
        '"startupProbe":{"failureThreshold":60',
        '"readinessProbe":{"failureThreshold":60',
        'take its database out of service',
      ],
      ['"port":"shipmate"', '"port":"metrics"', 'port that it does not have'],
      ['"preStop":', '"postStart":', 'is stopped before its database'],
      ['"topologyKey":"kubernetes.io/hostname"', '"topologyKey":"rack"', 'may share a host'],
      ['"configMap":{"name":"mariadb-pair"}', '"configMap":{"name":"pair"}', 'there is no ConfigMap pair'],
      ['"serviceAccountName":"mariadb"', '"serviceAccountName":"other"', 'there is no account other'],
      ['{"mountPath":"/tmp","name":"shipmate-tmp"}', '{"mountPath":"/tmp","name":"temp"}', 'there is no volume temp'],
      ['"clusterIP":"None"', '"clusterIP":""', 'has no headless Service'],
      ['"targetPort":"mariadb"', '"targetPort":"mysql"', 'has no port mysql'],
    ])('by the policy: %s as %s', (text, by, problem) => {
      expect(policyProblems(spoilt(text, by)).join('\n')).toContain(problem);
    });
  });
}
