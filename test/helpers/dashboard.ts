import { fileURLToPath } from 'node:url';

export const DASHBOARD = fileURLToPath(new URL('../../deploy/grafana/shipmate.json', import.meta.url));

interface Dashboard {
  readonly panels: readonly { readonly targets?: readonly { readonly expr: string }[] }[];
  readonly annotations: { readonly list: readonly { readonly expr: string }[] };
  readonly templating: { readonly list: readonly { readonly type: string; readonly query: string }[] };
}

/** Every query of a dashboard, as Grafana sends it where all is selected. */
export function dashboardQueries(json: string): string[] {
  const { panels, annotations, templating }: Dashboard = JSON.parse(json);
  const choices = templating.list.flatMap(({ type, query }) => {
    if (type !== 'query') return [];
    const selector = /^label_values\((.*), \w+\)$/.exec(query)?.[1];
    if (selector === undefined) throw new Error(`not a choice of a label's values: ${query}`);
    return [selector];
  });
  return [
    ...panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr)),
    ...annotations.list.map(({ expr }) => expr),
    ...choices,
  ].map((query) => query.replaceAll(/\$(cluster|stream|instance)\b/g, '.*').replaceAll('$__rate_interval', '1m'));
}
