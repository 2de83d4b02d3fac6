import type { Command } from 'commander';
import type { RepairPlan } from '../archive/repair.ts';
import { countText } from '../core/format.ts';
import { placeText } from '../core/keys.ts';
import { ArchiveNotWhole, ShipmateError, UsageError } from '../errors.ts';
import { readArchives } from './archives.ts';
import { addHelp, STREAM } from './help.ts';
import { confirm, print, printable, printJson, requireTerminal } from './terminal.ts';

interface Options {
  from: string;
  to: string;
  dryRun?: boolean;
  yes?: boolean;
  json?: boolean;
}

export function defineRepair(command: Command): void {
  addHelp(command, {
    examples: ['shipmate repair orders --from nas --to main --dry-run'],
  });
  command
    .argument('<stream>', STREAM)
    .requiredOption('--from <store>', 'the store whose archive is whole')
    .requiredOption('--to <store>', 'the store that is mended')
    .option('--dry-run', 'tell what is wrong, and write nothing')
    .option('--yes', 'do not ask')
    .option('--json', 'print JSON')
    .action((stream: string, options: Options) => carryOut(command, stream, options));
}

async function carryOut(command: Command, name: string, options: Options): Promise<void> {
  const { from: fromName, to: toName, dryRun = false, yes = false, json = false } = options;
  if (!dryRun) requireTerminal({ yes });
  if (fromName === toName) throw new UsageError('a store can’t mend itself', 'give two stores that hold the stream');
  const archives = await readArchives(command);
  const [stream] = archives.streams(name);
  const { planRepair, repair } = await import('../archive/repair.ts');
  const format = archives.formatOf(stream!);
  const { progress } = archives;
  const repairing = {
    from: (await archives.open(stream!, fromName)).archive,
    to: await archives.store(toName),
    isCompanion: (segment: string) => format.companion?.(segment) === segment,
    signal: new AbortController().signal,
    onObject: () => progress.advance(1),
  };
  progress.stage(`comparing ${toName} with ${fromName}`, { unit: 'objects' });
  const plan = await planRepair(repairing).finally(() => progress.end());
  const say = json ? (text: string) => void process.stderr.write(`${text}\n`) : print;
  say(planText(plan, options));
  const mends = !dryRun && plan.flaws.length > 0;
  if (mends) {
    if (!(await confirm(`write ${countText(plan.flaws.length, 'object')} to ${toName}?`, { yes }))) {
      throw new ShipmateError(`store ${toName} stays as it is`, {
        code: 'REPAIR_DECLINED',
        hint: 'answer y, or give --yes, to go on',
      });
    }
    progress.stage(`mending ${toName}`, { unit: 'objects', total: plan.flaws.length });
    await repair(plan, repairing).finally(() => progress.end());
    say(`mended; "shipmate verify ${name} --store ${toName} --deep" tells whether all is well`);
  }
  if (json) printJson({ stream: name, from: fromName, to: toName, dryRun, ...plan, mended: mends });
  if (plan.hole === null) return;
  throw new ArchiveNotWhole(
    `${fromName} itself lacks ${placeText(plan.hole.at)} of stream ${name}: nothing behind that was compared`,
    `mend ${fromName} first, from a store that has it: "shipmate verify ${name} --store NAME" tells which`,
  );
}

/** What was found; at most as many objects by name as fit on a screen. */
export function planText({ flaws, objects, generation }: RepairPlan, { from, to }: Options): string {
  const SHOWN = 20;
  const replaced = flaws.filter(({ what }) => what !== 'missing').length;
  const lines = [
    `${countText(objects, 'object')} of ${from} compared: ${flaws.length === 0 ? `${to} has all of them` : `${flaws.length} to be written`}`,
    ...flaws.slice(0, SHOWN).map(({ key, what }) => `  ${what}: ${key}`),
    ...(flaws.length > SHOWN ? [`  … and ${flaws.length - SHOWN} more`] : []),
  ];
  if (generation.to < generation.from && replaced > 0) {
    lines.push(
      `${to} is of an older generation (${generation.to}, ${from}: ${generation.from}): what it holds beyond the promotion is ` +
        'no part of the archive any more, and is replaced',
    );
  }
  if (replaced > 0) {
    lines.push(
      `${replaced} of them ${replaced === 1 ? 'stands' : 'stand'} in ${to} already, and ${replaced === 1 ? 'is' : 'are'} deleted first: if daemons ship the stream to ${to}, stop them until ` +
        'this is done',
    );
  }
  return lines.map(printable).join('\n');
}
