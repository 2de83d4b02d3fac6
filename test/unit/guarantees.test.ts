import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { ROOT } from '../helpers/markdown.ts';

/** A row of a table of docs/guarantees.md: what is promised, and the tests that are named for it. */
interface Row {
  readonly promise: string;
  readonly evidence: string;
}

const page = await readFile(join(ROOT, 'docs/guarantees.md'), 'utf8');
const rows = page
  .split('\n')
  .filter((line) => /^\| (?!promise)/.test(line))
  .map((line): Row => {
    const cells = line.split(/(?<!\\)\|/).map((cell) => cell.trim());
    return { promise: cells[1]!, evidence: cells.at(-2)! };
  });

const TEST = /(?:unit|contract|integration|cluster|chaos)\/[\w-]+\.test\.ts/g;
/** What calls, or a table of cases, give as the name of a test or of a group. */
const TITLE = /(?:\b(?:describe|test\w*)|\))\(\s*(['"`])((?:(?!\1).)+)\1/g;

const titles = new Map<string, string[]>();
async function titlesOf(file: string): Promise<string[]> {
  const known = titles.get(file);
  if (known) return known;
  const text = await readFile(join(ROOT, 'test', file), 'utf8');
  const found = [...text.matchAll(TITLE)].map(([, , title = '']) => title);
  titles.set(file, found);
  return found;
}

/** Each “name” of a row, with the files that are named before it; "the same" is those of the row above. */
function named({ evidence }: Row, above: readonly string[]): { name: string; files: string[] }[] {
  let files: string[] = [];
  return [...evidence.matchAll(new RegExp(`${TEST.source}|the same|“([^”]+)”`, 'g'))].flatMap(([word, name]) => {
    if (name !== undefined) return [{ name, files }];
    files = word === 'the same' ? [...above] : [word];
    return [];
  });
}

test('every test file that is named is there', async () => {
  const files = new Set(await readdir(join(ROOT, 'test'), { recursive: true }));
  const missing = [...page.matchAll(TEST)].filter(([file]) => !files.has(file));
  expect(missing.map(([file]) => file)).toEqual([]);
});

test('every test that is named by its title has that title', async () => {
  const missing: string[] = [];
  let seen = 0;
  let above: string[] = [];
  for (const row of rows) {
    for (const { name, files } of named(row, above)) {
      const parts = name.split('…').map((part) => part.trim());
      const all = (await Promise.all(files.map(titlesOf))).flat();
      if (!all.some((title) => parts.every((part) => title.includes(part))))
        missing.push(`${files.join(', ')}: ${name}`);
      seen++;
    }
    const own = [...row.evidence.matchAll(TEST)].map(([file]) => file);
    if (own.length > 0) above = own;
  }
  expect(seen).toBeGreaterThan(25);
  expect(missing).toEqual([]);
});

test('no promise stands there without a test', () => {
  expect(rows.length).toBeGreaterThan(80);
  const without = rows.filter(({ evidence }) => !/\.test\.ts|the same|every test above/.test(evidence));
  expect(without.map(({ promise }) => promise)).toEqual([]);
});
