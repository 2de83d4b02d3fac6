import { resolve } from 'node:path';
import type { Command } from 'commander';
import { storeOf } from '../config.ts';
import { bytesText, countText } from '../core/format.ts';
import { ArchiveNotWhole, UsageError } from '../errors.ts';
import { timeText } from '../restore/until.ts';
import type { Verification } from '../restore/verify.ts';
import { readArchives } from './archives.ts';
import { conclude } from './conclude.ts';
import { addHelp } from './help.ts';
import { print, printable, printJson } from './terminal.ts';

interface Options {
  deep?: boolean;
  identity?: string;
  store?: string;
  restart?: boolean;
  json?: boolean;
}

export function defineVerify(command: Command): void {
  addHelp(command, {
    notes: ['Exit code 3: the archive is not whole. An open term and orphans are no faults.'],
    examples: ['shipmate verify', 'shipmate verify orders --deep --identity /root/key.txt'],
  });
  command
    .argument('[stream]', 'by default every stream of the config')
    .option('--deep', 'read every payload too, and check its digests')
    .option('--identity <file>', 'with --deep: the age identity file that opens encrypted chunks')
    .option('--store <store>', "which store to check; by default each stream's primary")
    .option('--restart', 'with --deep: begin anew, where an earlier run was interrupted')
    .option('--json', 'print JSON')
    .action(async (name: string | undefined, { deep = false, identity, store, restart, json = false }: Options) => {
      if (!deep && (identity ?? restart) !== undefined) {
        throw new UsageError(
          `${restart ? '--restart' : '--identity'} goes with --deep`,
          'payloads are read only with --deep',
        );
      }
      const archives = await readArchives(command, { identity });
      const { verify } = await import('../restore/verify.ts');
      const { proofNote } = await import('../restore/proof-note.ts');
      const reports: Verification[] = [];
      const failures: unknown[] = [];
      for (const stream of archives.streams(name)) {
        try {
          const chunks = await archives.open(stream, store);
          const place = JSON.stringify(storeOf(archives.config, chunks.archive.store.name));
          const note = proofNote({ of: [chunks.archive.info.archive, stream.name, place, resolve(identity ?? '')] });
          if (restart) await note.clear();
          const report = await verify(chunks, { deep, progress: archives.progress, note });
          reports.push(report);
          if (!json) print(reportText(report, identity));
        } catch (error) {
          failures.push(error); // the other streams are looked at all the same
        }
      }
      if (json) printJson({ streams: reports.map(reportJson) });
      conclude([...failures, ...notWhole(reports)]);
    });
}

function notWhole(reports: readonly Verification[]): ArchiveNotWhole[] {
  const broken = reports.filter(({ faults }) => faults.length > 0);
  if (broken.length === 0) return [];
  const faults = broken.reduce((sum, report) => sum + report.faults.length, 0);
  return [
    new ArchiveNotWhole(
      `${countText(faults, 'fault')} in the archive of ${broken.map(({ stream }) => stream).join(', ')}`,
      'mend it from a copy with "shipmate repair"; docs/restore.md says what can be restored without what is missing',
    ),
  ];
}

/** The report for a terminal; `identity` is the file that was given. Faults and warnings one a line, each with its object's key. */
export function reportText(report: Verification, identity?: string): string {
  const {
    stream,
    store,
    deep,
    unopened,
    provenBefore,
    terms,
    chunks,
    bytes,
    storedBytes,
    end,
    open,
    orphans,
    faults,
    warnings,
  } = report;
  const verdict = faults.length > 0 ? 'NOT whole' : deep ? 'whole, every payload read' : 'whole';
  const upTo = end.id ? `, up to ${end.id}` : '';
  return [
    `stream ${stream} in store ${store}: ${verdict}`,
    `  ${countText(terms, 'term')}${open ? ' (the last one open)' : ''}, ${countText(chunks, 'chunk')}, ${bytesText(bytes)} of log in ` +
      `${bytesText(storedBytes)}${upTo}`,
    ...(provenBefore > 0
      ? [`  ${provenBefore} of them were read by an earlier run, which was interrupted: --restart reads all`]
      : []),
    ...(unopened > 0
      ? [
          `  ${countText(unopened, 'encrypted chunk')} by the digests of their stored bytes alone: ` +
            (identity === undefined ? '--identity FILE opens them' : `${identity} does not open them`),
        ]
      : []),
    ...(orphans > 0 ? [`  ${orphans} orphans behind seals: left by deposed masters, harmless`] : []),
    ...warnings.map(({ object, what }) => `  warning: ${object} ${what}`),
    ...faults.map(({ object, what }) => `  fault: ${object} ${what}`),
  ]
    .map(printable)
    .join('\n');
}

function reportJson({ end, ...report }: Verification): object {
  const time = end.timeMs === null ? null : timeText(end.timeMs);
  return { ...report, whole: report.faults.length === 0, end: { id: end.id, time } };
}
