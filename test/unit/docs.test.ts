import { readdir, readFile, stat } from 'node:fs/promises';
import { dirname, join, normalize } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import type { Command } from 'commander';
import { buildProgram } from '../../src/cli/program.ts';
import { statusReport, type Told } from '../../src/core/status.ts';
import { Page, ROOT, readPages } from '../helpers/markdown.ts';

const pages = await readPages();
const program = await buildProgram(() => true);

const exists = (path: string) =>
  stat(join(ROOT, path)).then(
    () => true,
    () => false,
  );

/** Why a link of a page leads nowhere; null where it leads somewhere, or out of the project. */
async function faultOf(page: Page, link: string): Promise<string | null> {
  if (/^[a-z]+:/.test(link)) return null;
  const [file = '', anchor] = link.split('#');
  const path = file === '' ? page.path : normalize(join(dirname(page.path), file));
  if (!(await exists(path))) return `${page.path}: ${link}: there is no ${path}`;
  if (anchor === undefined || !path.endsWith('.md')) return null;
  const target = await Page.read(path);
  return target.anchors.has(anchor) ? null : `${page.path}: ${link}: ${path} has no such heading`;
}

/** Where a shell, or what calls one, begins a command; `shipmate` is also a user, a role and a package. */
const SHIPMATE = /(?<=^\s*|[$&;|('"]\s*|=(?=\/))(?:sudo (?:-u \S+ )?)?(?:[\w./-]+\/)?shipmate((?: +[^\s|;&)>#`]+)+)/gm;

/** The words of each shipmate command in a text, up to where the shell, a comment or prose goes on. */
function commandsIn(text: string): string[][] {
  return [...text.replace(/ *\\\n\s*/g, ' ').matchAll(SHIPMATE)].map(([, rest]) =>
    rest!
      .trim()
      .replace(/ {2,}\S.*$/, '') // a remark beside it
      .split(/ +/)
      .map((word) => word.replace(/^["'[]+|["'\],.:]+$/g, '')),
  );
}

/** What is wrong with a command line as it is shown; null: nothing. */
function complaint(words: readonly string[]): string | null {
  const [name = '', ...rest] = words;
  if (!/^[a-z][a-z-]*$/.test(name) || name === 'help') return null; // `shipmate --help`, `accept-…`, "shipmate {reload,stop}"
  let command = program.commands.find((one) => one.name() === name);
  if (command === undefined) return `there is no command ${name}`;
  const sub = command.commands.find((one) => one.name() === rest[0]);
  if (sub !== undefined) rest.shift();
  else if (command.commands.length > 0 && /^[a-z]+$/.test(rest[0] ?? '')) return `${name} has no ${rest[0]}`;
  command = sub ?? command;
  return complaintOfOptions(command, rest);
}

function complaintOfOptions(command: Command, words: readonly string[]): string | null {
  const options = [...command.options, ...program.options];
  for (const [at, word] of words.entries()) {
    if (!/^--?[a-z]/.test(word) || word === '--help') continue;
    const [flag = '', given] = word.split('=');
    const option = options.find(({ long, short }) => long === flag || short === flag);
    if (option === undefined) return `${command.name()} has no ${flag}`;
    if (option.required && given === undefined && /^(--.*)?$/.test(words[at + 1] ?? ''))
      return `${flag} lacks its value`;
  }
  return null;
}

describe('the documentation', () => {
  test('has no link that leads nowhere', async () => {
    const faults = pages.map((page) => Promise.all(page.links.map((link) => faultOf(page, link))));
    expect((await Promise.all(faults)).flat().filter((fault) => fault !== null)).toEqual([]);
  });

  test('has every page that messages, alerts and packages name', async () => {
    const places = ['src', 'deploy', 'scripts', 'demo'];
    const names = await Promise.all(places.map((place) => readdir(join(ROOT, place), { recursive: true })));
    const paths = names.flatMap((all, index) => all.map((name) => join(places[index]!, name)));
    const named = new Set<string>();
    for (const path of paths) {
      if (!(await stat(join(ROOT, path))).isFile()) continue;
      const text = await readFile(join(ROOT, path), 'utf8');
      for (const [page] of text.matchAll(/\bdocs\/[\w/-]+\.md\b/g)) named.add(page);
    }
    expect(named.size).toBeGreaterThan(5);
    const missing = await Promise.all([...named].map(async (page) => ((await exists(page)) ? [] : [page])));
    expect(missing.flat()).toEqual([]);
  });

  test('shows no command and no option that shipmate does not have', () => {
    const shown = pages.flatMap(({ path, blocks, inline }) =>
      [...blocks.map(({ text }) => text), ...inline].flatMap(commandsIn).map((words) => ({ path, words })),
    );
    expect(shown.length).toBeGreaterThan(50);
    const faults = shown.flatMap(({ path, words }) => {
      const fault = complaint(words);
      return fault === null ? [] : [`${path}: shipmate ${words.join(' ')}: ${fault}`];
    });
    expect(faults).toEqual([]);
  });

  test('names no metric that docs/metrics.md does not describe', async () => {
    const described = new Set((await readFile(join(ROOT, 'docs/metrics.md'), 'utf8')).match(/\bshipmate_[a-z_]+/g));
    const named = pages.flatMap(({ path, inline, blocks }) =>
      [...inline, ...blocks.map(({ text }) => text)].flatMap((code) =>
        (code.match(/\bshipmate_[a-z_]+/g) ?? []).map((metric) => ({ path, metric })),
      ),
    );
    expect(named.length).toBeGreaterThan(50);
    const slot = 'shipmate_billing'; // a replication slot
    expect(named.filter(({ metric }) => metric !== slot && !described.has(metric.replace(/_bucket$/, '')))).toEqual([]);
  });

  test('leaves out no command', () => {
    const shown = new Set(
      pages.flatMap(({ blocks, inline }) => [
        ...[...blocks.map(({ text }) => text), ...inline].flatMap(commandsIn).map(([name]) => name),
        ...inline,
      ]),
    );
    expect(program.commands.map((command) => command.name()).filter((name) => !shown.has(name))).toEqual([]);
  });
});

/** With all that a report may say. */
const TOLD: Told = {
  streams: [
    {
      name: 'orders',
      master: 'db-1',
      cursor: {
        term: 1,
        slot: 2,
        position: { origin: 'o', incarnation: 'i', segment: 's', offset: 3, id: '0-1-5' },
        time: '',
      },
    },
  ],
  twins: [
    {
      node: 'db-1',
      streams: [
        {
          ...{ name: 'orders', role: 'master', ready: true, reason: 'master', lagBytes: 0, lagSeconds: 0 },
          stores: [{ name: 'nas', lagBytes: 0, lagSeconds: 0, delaySeconds: 0, state: 'failing', reason: 'full' }],
        },
      ],
    },
  ],
};

test('docs/scripting.md tells what every command prints as JSON, of the status each field', async () => {
  const text = await readFile(join(ROOT, 'docs/scripting.md'), 'utf8');
  const rows = new Map(
    [...text.matchAll(/^\| `([a-z ]+)` \| (.*) \|$/gm)].map(([, command, prints]) => [command, prints]),
  );
  const commands = program.commands.flatMap((command) => [command, ...command.commands]);
  const printing = commands.filter(({ options }) => options.some(({ long }) => long === '--json'));
  expect(printing.map((command) => command.name()).filter((name) => !rows.has(name))).toEqual([]);
  const fields = [
    ...JSON.stringify(statusReport(TOLD, { cluster: 'acme', stores: { orders: ['main', 'nas'] } })).matchAll(
      /"(\w+)":/g,
    ),
  ];
  const told = rows.get('status')!.match(/\w+/g);
  expect(fields.map(([, field]) => field).filter((field) => !told!.includes(field!))).toEqual([]);
});

test('docs/dependencies.md says why each package is there, and in which version', async () => {
  const { dependencies, devDependencies } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'));
  const said = await readFile(join(ROOT, 'docs/dependencies.md'), 'utf8');
  const packages: [string, string][] = Object.entries({ ...dependencies, ...devDependencies });
  const isOther = ([name, version]: [string, string]) =>
    [...said.matchAll(new RegExp(`(?<![\\w-])${name}\\s(\\d+\\.\\d+\\.\\d+)`, 'g'))].some(
      ([, given]) => given !== version,
    );
  expect(packages.filter(([name]) => !name.startsWith('@types/') && !said.includes(name))).toEqual([]);
  expect(packages.filter(isOther)).toEqual([]);
});

describe('what is looked for in the documentation is found', () => {
  test.each([
    ['shipmate restore orders --to /x --replya', 'restore has no --replya'],
    ['bin/shipmate restor orders', 'there is no command restor'],
    ['shipmate limits sett --link 1MiB/s', 'limits has no sett'],
    ['x && shipmate restore orders --to', '--to lacks its value'],
    ['shipmate restore orders \\\n  --unti latest', 'restore has no --unti'],
    ['restore_command = \'shipmate fetch orders %f "%p" --identiy /x\'', 'fetch has no --identiy'],
    ['shipmate limits set --link 20MiB/s --for 2h           for --two hours', null],
    ['shipmate status --watch   # --not an option', null],
  ])('%s', (line, fault) => {
    expect(commandsIn(line).map(complaint)).toEqual([fault]);
  });
});
