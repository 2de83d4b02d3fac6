import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import type { Config } from '../config.ts';
import type { Coordination, Overview } from '../coordination/coordination.ts';
import { type StatusReport, statusReport } from '../core/status.ts';
import { messageOf } from '../errors.ts';
import { withCoordination } from './coordination.ts';
import { addHelp } from './help.ts';
import { openScreen } from './screen.ts';
import { statusText } from './status-text.ts';
import { keepWatch, type Sight } from './status-watch.ts';
import { print, printJson, viewOf } from './terminal.ts';

const REPEAT_MS = 500;

interface Options {
  json?: boolean;
  watch?: boolean;
}

export function defineStatus(command: Command): void {
  addHelp(command, {
    notes: ["Works from any twin's config, whichever daemons are alive. What needs a person is said first."],
    examples: ['shipmate status --watch', "shipmate status --json | jq '.streams[] | {name, master, lagSeconds}'"],
  });
  command
    .option('--watch', 'show it live, until q or Ctrl-C')
    .option('--json', 'print JSON; with --watch one report a line, twice a second')
    .action(async ({ json = false, watch = false }: Options) => {
      await withCoordination(command, async (coordination, config) => {
        const look = await onlooker(coordination, config);
        const draw = (overview: Overview) => (json ? JSON.stringify(look.report(overview)) : look.text({ overview }));
        if (watch && process.stdout.isTTY && !json && process.env.TERM !== 'dumb') return showLive(look);
        if (watch) return printOn(look, { draw, waitsOut: !json });
        const overview = await look.overview();
        if (json) printJson(look.report(overview));
        else print(draw(overview));
      });
    });
}

interface Onlooker {
  overview(): Promise<Overview>;
  report(overview: Overview): StatusReport;
  /** By default as wide as the terminal. */
  text(sight: Pick<Sight, 'overview'> & Partial<Sight>, columns?: number): string;
}

async function onlooker(coordination: Coordination, config: Config): Promise<Onlooker> {
  const { storesOf } = await import('../wiring.ts');
  const report = (overview: Overview) =>
    statusReport(overview, { cluster: config.cluster, stores: storesOf(config, overview) });
  return {
    overview: () => coordination.overview(),
    report,
    text({ overview, ...sight }, columns) {
      const { width, colour } = viewOf();
      const isSolo = coordination.kind === 'solo';
      return statusText(report(overview), { width: columns ?? width, colour, isSolo, ...sight });
    },
  };
}

/** On the whole terminal, in place. The first look comes before: what it fails with is printed as ever. */
async function showLive(look: Onlooker): Promise<void> {
  const first = await look.overview();
  await keepWatch({
    screen: openScreen({ input: process.stdin, output: process.stdout }),
    first,
    look: look.overview,
    draw: look.text,
  });
}

/** One picture below the other, for ever. With `waitsOut` an outage is told of in their place. */
async function printOn(
  look: Onlooker,
  { draw, waitsOut }: { draw: (overview: Overview) => string; waitsOut: boolean },
): Promise<never> {
  for (let isFirst = true; ; isFirst = false) {
    const begunMs = performance.now();
    try {
      print(draw(await look.overview()) + (waitsOut ? '\n' : ''));
    } catch (error) {
      if (isFirst || !waitsOut) throw error;
      print(`no news: ${messageOf(error)}\n`);
    }
    await sleep(Math.max(0, begunMs + REPEAT_MS - performance.now()));
  }
}
