import type { TwinBandwidth } from '../coordination/coordination.ts';
import { changeText, type InForce, momentText, type Override, rateText, type Situation } from '../core/limits.ts';
import { type Cell, type TableOptions, table } from './table.ts';
import { printable } from './terminal.ts';

export interface LimitsReport extends Situation {
  /** For a daemon with this config. */
  readonly inForce: InForce;
  /** What each living daemon tells; null: nothing. */
  readonly nodes: readonly { readonly node: string; readonly bandwidth: TwinBandwidth | null }[];
}

/** For a terminal: the config's limits, what operators changed, and what counts and was measured on each daemon. */
export function limitsText(report: LimitsReport, { nowMs, ...options }: TableOptions & { nowMs: number }): string {
  const { limits, overrides, zone, nodes } = report;
  const schedule = limits?.schedule ?? [];
  const changes = overrides.map(
    (one) => `${changeText(one.change)} ${standingText(one, { nowMs, zone })} by ${one.by}`,
  );
  const refusals = nodes.flatMap(({ node, bandwidth }) =>
    (bandwidth?.refused ?? []).map(({ reason }) => `${node}: ${reason}`),
  );
  return [
    limits ? `config: ${changeText(limits)}` : 'config: nothing is limited',
    ...schedule.map((entry) => `        ${entry.from} to ${entry.to}: ${changeText(entry)}`),
    ...block('changed by operators:', changes),
    ...block('without effect, since it can not be honoured now:', refusals),
    '',
    ...daemons(report, options),
  ].join('\n');
}

function daemons({ nodes, inForce }: LimitsReport, options: TableOptions): string[] {
  const now = inForce.reservation ? changeText(inForce.reservation) : 'nothing is limited';
  if (nodes.length === 0) return ['no daemon of this cluster is alive', `for one with this config: ${now}`];
  const heading: Cell[] = ['DAEMON', 'CLASS', 'GUARANTEED', 'LATELY'];
  return table([heading, ...nodes.flatMap(({ node, bandwidth }) => rows(printable(node), bandwidth))], options);
}

function rows(node: string, bandwidth: TwinBandwidth | null): Cell[][] {
  if (bandwidth === null) return [[node, '-', 'tells nothing of it', '-']];
  const { link, classes } = bandwidth;
  const sum = classes.reduce((all, { measured }) => all + measured, 0);
  return [
    [node, 'link', link === null ? 'not limited' : rateText(link), rateText(sum)],
    ...classes.map(({ name, guaranteed, measured }) => [
      node,
      printable(name),
      guaranteed === null ? '-' : rateText(guaranteed),
      rateText(measured),
    ]),
  ];
}

const block = (heading: string, lines: readonly string[]) =>
  lines.length === 0 ? [] : [heading, ...lines.map((line) => `        ${printable(line)}`)];

/** `from … until … on db-1` */
export function standingText(
  { fromMs, untilMs, node }: Override,
  { nowMs, zone }: { readonly nowMs: number; readonly zone: string | undefined },
): string {
  const from = fromMs <= nowMs ? 'from now on' : `from ${momentText(fromMs, zone)} on`;
  const until = untilMs === null ? 'until it is cleared' : `until ${momentText(untilMs, zone)}`;
  return `${from}, ${until}${node === undefined ? '' : `, on ${node} alone`}`;
}
