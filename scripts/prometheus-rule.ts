import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

// Writes the alert rules of deploy/prometheus as the object that the Prometheus operator takes.

const DEPLOY = join(import.meta.dirname, '..', 'deploy');
const RULES = join(DEPLOY, 'prometheus', 'shipmate.rules.yml');
export const OBJECT = join(DEPLOY, 'kubernetes', 'base', 'monitoring', 'prometheus-rule.yaml');

const HEAD = `# Made from deploy/prometheus/shipmate.rules.yml by "node scripts/prometheus-rule.ts": change that one.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: shipmate
  labels: { app.kubernetes.io/part-of: shipmate }
spec:
`;

export async function prometheusRule(): Promise<string> {
  const rules = await readFile(RULES, 'utf8');
  return HEAD + rules.replace(/^(?=.)/gm, '  ');
}

if (import.meta.main) await writeFile(OBJECT, await prometheusRule());
