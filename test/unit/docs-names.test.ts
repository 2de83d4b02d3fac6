import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { parse, stringify } from 'yaml';
import { parseConfig } from '../../src/config.ts';
import { messageOf } from '../../src/errors.ts';
import { ROOT, readPages } from '../helpers/markdown.ts';

/** What the documentation names is there: config keys, files, error codes, alerts, what is looked for in logs. */
const pages = await readPages();
const everything = await Promise.all(
  pages.map(async ({ path }) => ({ path, text: await readFile(join(ROOT, path), 'utf8') })),
);

/** Every match in the documentation, with its page. */
const named = (pattern: RegExp) =>
  everything.flatMap(({ path, text }) => [...text.matchAll(pattern)].map((match) => ({ path, match })));

async function textBelow(place: string): Promise<string> {
  const names = await readdir(join(ROOT, place), { recursive: true, withFileTypes: true });
  const files = names.filter((name) => name.isFile()).map(({ parentPath, name }) => join(parentPath, name));
  return (await Promise.all(files.map((file) => readFile(file, 'utf8')))).join('\n');
}
const source = await textBelow('src');

const exists = (path: string) =>
  stat(join(ROOT, path)).then(
    () => true,
    () => false,
  );

type Maps = Record<string, Record<string, object>>;

/** A part of a config, as a page shows it, with all that it leaves out. */
function completed(part: Record<string, unknown>): object {
  const { stores = {}, plans = {}, streams = { orders: {} }, ...rest } = part as Maps;
  const names = Object.values(plans).flatMap((plan) => Object.values({ copies: [], ...plan }).flat());
  const copies = names
    .filter((name) => !(name in stores))
    .map((name) => [name, { type: 'file', path: `/mnt/${name}` }]);
  const whole = Object.entries(streams).map(([name, stream]) => {
    const given = Object.entries(stream).filter(([, value]) => value !== '…');
    const elsewhere = 'plan' in stream ? {} : { store: 'main' };
    return [name, { source: { type: 'mariadb', dir: '/binlogs' }, ...elsewhere, ...Object.fromEntries(given) }];
  });
  return {
    ...{ cluster: 'acme', coordination: 'solo', ...rest, plans, streams: Object.fromEntries(whole) },
    stores: { main: { type: 'file', path: '/mnt/main' }, ...Object.fromEntries(copies), ...stores },
  };
}

const RECIPIENTS = [
  'age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj',
  'age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg',
];

describe('the documentation', () => {
  test('shows no config that would be refused', () => {
    const shown = pages.flatMap(({ path, blocks }) =>
      blocks.filter(({ language }) => language === 'yaml').map(({ text, heading }) => ({ path, heading, text })),
    );
    expect(shown.length).toBeGreaterThan(10);
    const faults = shown.flatMap(({ path, heading, text }) => {
      const recipients = [...RECIPIENTS];
      const part = parse(text.replace(/age1…/g, () => recipients.shift()!));
      try {
        parseConfig(stringify(completed(part)), { file: path, environment: { SHIPMATE_DB_PASSWORD: 'pw' } });
        return [];
      } catch (error) {
        return [`${heading}: ${messageOf(error)}`];
      }
    });
    expect(faults).toEqual([]);
  });

  test('names no file of the project that is not there', async () => {
    const files = named(/(?<![\w./-])(?:src|test|deploy|scripts|demo|docs)\/[\w./-]*\w/g);
    const toBeMade = /^deploy\/kubernetes\/overlays\/acme/;
    const missing = await Promise.all(
      files
        .filter(({ match: [file] }) => !toBeMade.test(file))
        .map(async ({ path, match: [file] }) => ((await exists(file)) ? [] : [`${path}: ${file}`])),
    );
    expect(files.length).toBeGreaterThan(50);
    expect(missing.flat()).toEqual([]);
  });

  test('names no error code, alarm or alert that nobody raises', async () => {
    const codes = named(/\b(?:STORE|SOURCE(?!_DATE)|ARCHIVE|PRIMARY|SECRET|COPY|BAD|NEWER|NOT)_[A-Z_]+\b/g);
    const alarms = named(/\balarm="([a-z-]+)"/g);
    const alerts = named(/\bShipmate[A-Z]\w+/g);
    const rules = await readFile(join(ROOT, 'deploy/prometheus/shipmate.rules.yml'), 'utf8');
    const faults = [
      ...codes.filter(({ match: [code] }) => !source.includes(`'${code}'`)),
      ...alarms.filter(({ match: [, alarm] }) => !source.includes(`'${alarm}'`)),
      ...alerts.filter(({ match: [alert] }) => !rules.includes(`alert: ${alert}\n`)),
    ];
    expect(Math.min(codes.length, alarms.length, alerts.length)).toBeGreaterThan(2);
    expect(faults.map(({ path, match: [name] }) => `${path}: ${name}`)).toEqual([]);
  });

  test('looks for nothing in the log that is not written there', () => {
    const looked = named(/journalctl .*\| grep (?:-E )?"([^"]+)"/g);
    expect(looked.length).toBeGreaterThan(2);
    const faults = looked.filter(({ match }) => match[1]!.split('|').some((words) => !source.includes(words)));
    expect(faults.map(({ path, match: [command] }) => `${path}: ${command}`)).toEqual([]);
  });

  test('has every rule of the protocol that the source and the pages name', async () => {
    const { text } = everything.find(({ path }) => path === 'docs/protocol.md')!;
    const rules = new Set([...text.matchAll(/^(\d+)\. /gm)].map(([, number]) => Number(number)));
    const tests = await textBelow('test/unit');
    const pagesText = everything.map((page) => page.text).join('\n');
    const told = [...`${source}\n${tests}\n${pagesText}`.matchAll(/\brules? (\d+)\b/g)].map(([, number]) =>
      Number(number),
    );
    expect(told.length).toBeGreaterThan(50);
    expect(told.filter((number) => !rules.has(number))).toEqual([]);
  });

  test('shows the layout of the source as it is', async () => {
    const { blocks } = pages.find(({ path }) => path === 'docs/design.md')!;
    const layout = blocks.find(({ heading }) => heading === 'Layout')!.text;
    const shown = layout.slice(layout.indexOf('src/'), layout.indexOf('\ndeploy/')).split('\n').slice(1);
    const there = (await readdir(join(ROOT, 'src'), { withFileTypes: true })).map(
      (entry) => entry.name + (entry.isDirectory() ? '/' : ''),
    );
    const words: readonly string[] = shown.join(' ').match(/[\w-]+(?:\.ts|\/)(?![\w*])/g) ?? [];
    expect(there.filter((name) => !words.includes(name))).toEqual([]);
    const first = shown.flatMap((line) => /^ {2}(\S+)/.exec(line)?.[1] ?? []);
    expect(first.filter((name) => !there.includes(name))).toEqual([]);
  });
});
