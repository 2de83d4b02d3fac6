import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import type { Config } from '../config.ts';
import type { Coordination } from '../coordination/coordination.ts';
import { type StatusReport, statusReport } from '../core/status.ts';
import { messageOf } from '../errors.ts';
import { withCoordination } from './coordination.ts';
import { addHelp } from './help.ts';
import { statusText } from './status-text.ts';
import { print, printJson } from './terminal.ts';

const REDRAW_MS = 500;
const DEFAULT_WIDTH = 80;

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
    .option('--watch', 'show it again twice a second')
    .option('--json', 'print JSON; with --watch one report a line')
    .action(async ({ json = false, watch = false }: Options) => {
      await withCoordination(command, async (coordination, config) => {
        if (watch) return showForEver(coordination, config, json);
        const report = await reportOf(coordination, config);
        if (json) printJson(report);
        else print(draw(report));
      });
    });
}

async function reportOf(coordination: Coordination, config: Config): Promise<StatusReport> {
  const { storesOf } = await import('../wiring.ts');
  const overview = await coordination.overview();
  return statusReport(overview, { cluster: config.cluster, stores: storesOf(config, overview) });
}

function draw(report: StatusReport): string {
  const { isTTY, columns } = process.stdout;
  return statusText(report, {
    width: (isTTY && columns) || DEFAULT_WIDTH,
    colour: process.stdout.hasColors?.() ?? false,
  });
}

/** Ends by Ctrl-C. An outage is shown, and waited out. */
async function showForEver(coordination: Coordination, config: Config, json: boolean): Promise<never> {
  for (let first = true; ; first = false) {
    const began = performance.now();
    try {
      const report = await reportOf(coordination, config);
      if (json) print(JSON.stringify(report));
      else show(draw(report), first);
    } catch (error) {
      if (first || json) throw error;
      show(`no news: ${messageOf(error)}`, first);
    }
    await sleep(Math.max(0, began + REDRAW_MS - performance.now()));
  }
}

/** On a terminal in place of what was there (only changed cells flicker), elsewhere below it. */
function show(text: string, first: boolean): void {
  if (!process.stdout.isTTY) {
    print(`${text}\n`);
    return;
  }
  const [home, clearLine, clearBelow] = ['\x1b[H', '\x1b[K', '\x1b[J'];
  process.stdout.write(
    `${first ? '\x1b[2J' : ''}${home}${text.replaceAll('\n', `${clearLine}\n`)}${clearLine}\n${clearBelow}`,
  );
}
