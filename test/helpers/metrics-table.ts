import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { selectorsIn } from './promql.ts';

export interface Described {
  /** `gauge`, `counter`, `histogram`. */
  readonly type: string;
  readonly labels: readonly string[];
}

const TABLE = fileURLToPath(new URL('../../docs/metrics.md', import.meta.url));

/** What docs/metrics.md says, by metric. */
export async function describedMetrics(): Promise<Map<string, Described>> {
  const rows = (await readFile(TABLE, 'utf8')).matchAll(/^\| `(\w+)` \| (\w+) \|(.*?)\|/gm);
  return new Map(
    [...rows].map(([, name = '', type = '', labels = '']) => [
      name,
      { type, labels: [...labels.matchAll(/`(\w+)`/g)].map(([, label = '']) => label).sort() },
    ]),
  );
}

/** Of Prometheus' own: labels that every series gets, and series that it makes itself. */
const OF_PROMETHEUS = { labels: ['instance', 'job'], series: ['up', 'ALERTS'] };

/** What a query selects that the table does not have: unknown metrics, and labels that they lack; empty when all is well. */
export function undescribed(query: string, described: ReadonlyMap<string, Described>): string[] {
  const names = [...described].flatMap(([name, { type, labels }]) =>
    type === 'histogram'
      ? ['_bucket', '_sum', '_count'].map((part) => [`${name}${part}`, [...labels, 'le']] as const)
      : [[name, labels] as const],
  );
  return selectorsIn(query).flatMap(({ name, labels }) => {
    if (typeof name === 'string' && OF_PROMETHEUS.series.includes(name)) return [];
    const fitting = names.filter(([known]) => (typeof name === 'string' ? known === name : name.test(known)));
    if (fitting.length === 0) return [`${name}`];
    const known = new Set([...OF_PROMETHEUS.labels, ...fitting.flatMap(([, own]) => own)]);
    return labels.filter((label) => !known.has(label)).map((label) => `${name}{${label}}`);
  });
}

/** What daemons export, by metric: its type, and the labels of its series together; none where there is no series now. */
export function exportedMetrics(texts: readonly string[]): Map<string, { type: string; labels: string[] | null }> {
  const found = new Map<string, { type: string; labels: string[] | null }>();
  for (const line of texts.flatMap((text) => text.split('\n'))) {
    const [, declared, type] = /^# TYPE (\w+) (\w+)$/.exec(line) ?? [];
    if (declared && type && !found.has(declared)) found.set(declared, { type, labels: null });
    const [, series = '', inside = ''] = /^(\w+)(?:\{(.*)\})? \S+$/.exec(line) ?? [];
    const metric = found.get(series) ?? found.get(series.replace(/_(bucket|sum|count)$/, ''));
    if (!metric) continue;
    const labels = [...inside.matchAll(/(\w+)="(?:[^"\\]|\\.)*"/g)].map(([, label = '']) => label);
    metric.labels = [...new Set([...(metric.labels ?? []), ...labels])].filter((label) => label !== 'le').sort();
  }
  return found;
}
