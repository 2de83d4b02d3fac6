import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { parse } from 'yaml';
import { DASHBOARD, dashboardQueries } from '../helpers/dashboard.ts';
import { type Described, describedMetrics, undescribed } from '../helpers/metrics-table.ts';
import { quickened, RULES } from '../helpers/prometheus.ts';
import { selectorsIn } from '../helpers/promql.ts';

const run = promisify(execFile);
const DEPLOY = dirname(RULES);
const RUNBOOKS = join(DEPLOY, '../../docs/runbooks');

interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly for?: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

let rules: Rule[];
let described: ReadonlyMap<string, Described>;
beforeAll(async () => {
  const { groups }: { groups: { rules: Rule[] }[] } = parse(await readFile(RULES, 'utf8'));
  rules = groups.flatMap((group) => group.rules);
  described = await describedMetrics();
});

test('promtool finds nothing wrong with the rules and the scrape config', async () => {
  await run('promtool', ['check', 'config', 'prometheus.yml'], { cwd: DEPLOY });
});

test('each alert fires when it should, and not when it should not', async () => {
  const { stdout } = await run('promtool', ['test', 'rules', 'shipmate.rules.test.yml'], { cwd: DEPLOY });
  expect(stdout).toContain('SUCCESS');
}, 180_000);

test('of each alert both is tested: that it fires, and that it does not', async () => {
  const { tests } = parse(await readFile(join(DEPLOY, 'shipmate.rules.test.yml'), 'utf8'));
  const cases: { expr: string; exp_samples?: unknown[] }[] = tests.flatMap(
    ({ promql_expr_test }: { promql_expr_test: object[] }) => promql_expr_test,
  );
  const tested = (alert: string) =>
    cases.filter(({ expr }) => new RegExp(/alertname=~?"(.*?)"/.exec(expr)![1]!).test(alert));
  for (const { alert } of rules) {
    const ofThis = tested(alert);
    expect([alert, ofThis.some(({ exp_samples }) => exp_samples !== undefined)]).toEqual([alert, true]);
    expect([alert, ofThis.some(({ exp_samples }) => exp_samples === undefined)]).toEqual([alert, true]);
  }
});

test('each alert says how urgent it is, what is wrong, and where to read on', () => {
  for (const { alert, labels, annotations } of rules) {
    expect(alert).toMatch(/^Shipmate[A-Z]/);
    expect(['critical', 'warning']).toContain(labels.severity);
    expect(Object.keys(annotations).sort()).toEqual(['description', 'runbook_url', 'summary']);
    expect(annotations.runbook_url).toMatch(new RegExp(`^https://.*/${alert}\\.md$`));
  }
});

test('each alert has its page, each page its alert, and the list names them all as the rules do', async () => {
  const pages = (await readdir(RUNBOOKS)).filter((name) => name !== 'README.md');
  expect(pages.sort()).toEqual(rules.map(({ alert }) => `${alert}.md`).sort());
  const list = await readFile(join(RUNBOOKS, 'README.md'), 'utf8');
  const rows = [...list.matchAll(/^\| \[(\w+)\]\(\w+\.md\) \| (\w+) \|/gm)].map(([, alert, severity]) => [
    alert,
    severity,
  ]);
  expect(rows).toEqual(rules.map(({ alert, labels }) => [alert, labels.severity]));
});

test('each page says what the alert means, what to look at, what to run, and when it clears', async () => {
  for (const { alert } of rules) {
    const page = await readFile(join(RUNBOOKS, `${alert}.md`), 'utf8');
    const headings = [...page.matchAll(/^#+ (.*)$/gm)].map(([, heading]) => heading);
    expect(headings).toEqual([alert, 'What it means', 'What to look at', 'What to run', 'When it clears']);
    expect(page).toMatch(/^```\n(?!```)/m);
    const named = [...page.matchAll(/`(shipmate_\w+)/g)].map(([, name = '']) => name.replace(/_bucket$/, ''));
    expect({ alert, unknown: named.filter((name) => !described.has(name)) }).toEqual({ alert, unknown: [] });
  }
});

test('each alert is about metrics that a daemon exports, by labels that they have', () => {
  for (const { alert, expr } of rules) {
    expect({ alert, unknown: undescribed(expr, described) }).toEqual({ alert, unknown: [] });
  }
});

describe('the dashboard', () => {
  let queries: string[];
  beforeAll(async () => {
    queries = dashboardQueries(await readFile(DASHBOARD, 'utf8'));
  });

  test('asks for metrics that a daemon exports, by labels that they have', () => {
    expect(queries.length).toBeGreaterThan(40);
    for (const query of queries)
      expect({ query, unknown: undescribed(query, described) }).toEqual({ query, unknown: [] });
  });

  test('leaves out nothing that a stream exports', () => {
    const asked = queries.flatMap(selectorsIn).map(({ name }) => name);
    const isAsked = (metric: string) =>
      asked.some((name) => (typeof name === 'string' ? name.replace(/_bucket$/, '') === metric : name.test(metric)));
    const ofStreams = [...described].filter(([, { labels }]) => labels.includes('stream')).map(([name]) => name);
    expect(ofStreams.filter((name) => !isAsked(name))).toEqual([]);
  });
});

describe('quickened rules', () => {
  test('differ from the shipped ones by durations alone', async () => {
    const text = await readFile(RULES, 'utf8');
    const blanked = (rules: string) => rules.replaceAll(/(for: |\[)\d+(ms|[smhd])\b/g, '$1');
    expect(quickened(text, 60)).not.toBe(text);
    expect(blanked(quickened(text, 60))).toBe(blanked(text));
    expect(quickened('        for: 2m\n[5m] > 60 [1d]', 60)).toBe('        for: 2000ms\n[5000ms] > 60 [1440000ms]');
  });
});
