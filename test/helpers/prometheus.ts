import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { freePort } from './ports.ts';
import { until, type WaitOptions } from './wait.ts';

export const RULES = fileURLToPath(new URL('../../deploy/prometheus/shipmate.rules.yml', import.meta.url));

export interface PrometheusOptions {
  /** Admin URLs of daemons. */
  readonly targets: readonly string[];
  /** So much faster than in production goes the time of the rules, and Prometheus looks as often. */
  readonly quicken: number;
}

export interface FiringAlert {
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly state: 'pending' | 'firing';
}

export interface Sample {
  readonly metric: Readonly<Record<string, string>>;
  readonly value: readonly [number, string];
}

export interface Prometheus {
  alerts(): Promise<FiringAlert[]>;
  /** Waits until an alert fires that has these labels. */
  fires(alert: string, labels?: Readonly<Record<string, string>>, wait?: WaitOptions): Promise<FiringAlert>;
  /** An instant query. Throws where the query is wrong. */
  query(expression: string): Promise<Sample[]>;
  stop(): Promise<void>;
}

const SCRAPE_MS = 15_000;
/** A daemon on a busy machine must be able to answer in time. */
const LEAST_SCRAPE_MS = 1_000;
const UNIT_MS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** A real Prometheus with the shipped rules. */
export async function startPrometheus({ targets, quicken }: PrometheusOptions): Promise<Prometheus> {
  const dir = await mkdtemp(join(tmpdir(), 'shipmate-prometheus-'));
  const listen = `127.0.0.1:${await freePort()}`;
  const intervalMs = Math.max(LEAST_SCRAPE_MS, Math.round(SCRAPE_MS / quicken));
  await writeFile(join(dir, 'rules.yml'), quickened(await readFile(RULES, 'utf8'), quicken));
  await writeFile(
    join(dir, 'prometheus.yml'),
    stringify({
      global: { scrape_interval: `${intervalMs}ms`, evaluation_interval: `${intervalMs / 2}ms` },
      rule_files: ['rules.yml'],
      scrape_configs: [
        { job_name: 'shipmate', static_configs: [{ targets: targets.map((url) => new URL(url).host) }] },
      ],
    }),
  );
  const child = spawn(
    'setpriv',
    [
      ...['--pdeathsig', 'KILL', '--', 'prometheus', `--config.file=${join(dir, 'prometheus.yml')}`],
      ...[`--storage.tsdb.path=${join(dir, 'data')}`, `--web.listen-address=${listen}`, '--log.level=warn'],
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  const prometheus = new Running({ child, url: `http://${listen}`, dir });
  await prometheus.ready();
  return prometheus;
}

/**
 * The rules with each duration divided, those of `for:` and those of windows (`[5m]`), and nothing else: no threshold, no
 * expression. What fires within seconds here fires within minutes in production.
 */
export function quickened(rules: string, by: number): string {
  return rules.replaceAll(/(?<=^ +for: |\[)(\d+)([smhd])\b/gm, (_, count: string, unit: keyof typeof UNIT_MS) => {
    return `${Math.ceil((Number(count) * UNIT_MS[unit]) / by)}ms`;
  });
}

class Running implements Prometheus {
  readonly #child: ChildProcess;
  readonly #url: string;
  readonly #dir: string;
  #stderr = '';

  constructor({ child, url, dir }: { child: ChildProcess; url: string; dir: string }) {
    this.#child = child;
    this.#url = url;
    this.#dir = dir;
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = `${this.#stderr}${text}`.slice(-4_000);
    });
  }

  async ready(): Promise<void> {
    await until('Prometheus is ready', async () => (await fetch(`${this.#url}/-/ready`)).ok, {
      describe: () => this.#stderr,
    });
  }

  async alerts(): Promise<FiringAlert[]> {
    return (await this.#ask('alerts')).alerts;
  }

  async fires(alert: string, labels: Readonly<Record<string, string>> = {}, wait: WaitOptions = {}) {
    let seen: readonly FiringAlert[] = [];
    const wanted = Object.entries({ alertname: alert, ...labels });
    return until(
      `${alert} fires`,
      async () => {
        seen = await this.alerts();
        return seen.find(
          (one) => one.state === 'firing' && wanted.every(([name, value]) => one.labels[name] === value),
        );
      },
      { everyMs: 250, describe: () => JSON.stringify(seen.map((one) => [one.state, one.labels])), ...wait },
    );
  }

  async query(expression: string): Promise<Sample[]> {
    return (await this.#ask(`query?query=${encodeURIComponent(expression)}`)).result;
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const gone = once(this.#child, 'exit');
      this.#child.kill('SIGKILL');
      await gone;
    }
    await rm(this.#dir, { recursive: true, force: true });
  }

  async #ask(what: string) {
    const response = await fetch(`${this.#url}/api/v1/${what}`);
    const { data, error } = JSON.parse(await response.text());
    if (error !== undefined) throw new Error(`Prometheus: ${error}`);
    return data;
  }
}
