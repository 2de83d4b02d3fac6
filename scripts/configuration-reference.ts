import { readFile, writeFile } from 'node:fs/promises';
import type { z } from 'zod';
import { jsonSchema } from '../src/config/schema.ts';

/**
 * Writes the tables of keys in docs/configuration.md, from the schema that a config file is checked by: `npm run docs`.
 * A test fails where the page is not what this gives.
 */

const PAGE = new URL('../docs/configuration.md', import.meta.url);
const BEGIN = '<!-- keys: written by "npm run docs" from src/config/schema.ts -->';
const END = '<!-- end of keys -->';

type Schema = z.core.JSONSchema.JSONSchema;

interface Row {
  /** `stores.NAME.path` */
  readonly key: string;
  readonly value: string;
  readonly byDefault: string;
  readonly meaning: string;
}

interface Table {
  readonly heading: string;
  readonly rows: Row[];
}

/** The page with its tables written anew. */
export function withTables(page: string): string {
  const [begin, end] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`${PAGE.pathname} lacks the lines "${BEGIN}" and "${END}"`);
  return `${page.slice(0, begin + BEGIN.length)}\n\n${tables()}\n${page.slice(end)}`;
}

export const readPage = () => readFile(PAGE, 'utf8');

function tables(): string {
  const all = new Map<string, Table>();
  collect({ schema: jsonSchema(), key: '', kind: '', required: true }, all);
  return [...all.values()]
    .map(({ heading, rows }) => `### ${heading}\n\n${[...HEAD, ...rows.map(line)].join('\n')}\n`)
    .join('\n');
}

const HEAD = ['| key | value | default | meaning |', '|---|---|---|---|'];
const line = ({ key, value, byDefault, meaning }: Row) => `| \`${key}\` | ${value} | ${byDefault} | ${meaning} |`;

interface Node {
  readonly schema: Schema;
  readonly key: string;
  /** Where a map's `type` says which keys it has: that type. */
  readonly kind: string;
  readonly required: boolean;
}

/** Adds a row for each value that a file may hold, and for each map that says something of itself. */
function collect({ schema, key, kind, required }: Node, all: Map<string, Table>): void {
  const { properties, additionalProperties: each, items, oneOf, anyOf } = schema;
  const isMap = properties !== undefined || typeof each === 'object' || oneOf !== undefined;
  if (!isMap || schema.description !== undefined) add(row(schema, key, required), headingOf(key, kind), all);
  for (const [name, child] of Object.entries(properties ?? {})) {
    const below = key === '' ? name : `${key}.${name}`;
    const isNeeded = schema.required?.includes(name) ?? false;
    collect({ schema: asSchema(child), key: below, kind, required: isNeeded }, all);
  }
  if (typeof each === 'object') collect({ schema: each, key: `${key}.NAME`, kind, required }, all);
  if (isList(items)) collect({ schema: items, key: `${key}[]`, kind, required }, all);
  for (const one of oneOf ?? []) collect({ schema: one, key, kind: typeOf(one), required }, all);
  for (const one of anyOf ?? []) if (one.type === 'object') collect({ schema: one, key, kind, required }, all);
}

/** A list of maps has keys of its own; any other is a value. */
const isList = (items: Schema['items']): items is Schema =>
  typeof items === 'object' && 'properties' in items && items.properties !== undefined;

/** The tables, by how the keys in them begin. */
const HEADINGS: readonly (readonly [prefix: string, heading: string])[] = [
  ['streams.NAME.source', 'Sources'],
  ['streams', 'Streams'],
  ['stores', 'Stores'],
  ['plans', 'Plans'],
  ['limits', 'Bandwidth'],
  ['coordination.etcd', 'etcd'],
];
function headingOf(key: string, kind: string): string {
  const heading = HEADINGS.find(([prefix]) => key.startsWith(prefix))?.[1] ?? 'This daemon';
  return kind === '' ? heading : `${heading}: ${kind}`;
}

function typeOf({ properties }: Schema): string {
  const type = asSchema(properties?.type);
  return (type.enum ?? [type.const]).join(', ');
}

function asSchema(child: z.core.JSONSchema._JSONSchema | undefined): Schema {
  if (typeof child !== 'object') throw new Error('the schema of the config holds a part that says nothing');
  return child;
}

function add(one: Row, heading: string, all: Map<string, Table>): void {
  const table = all.get(heading) ?? { heading, rows: [] };
  all.set(heading, table);
  table.rows.push(one);
}

function row(schema: Schema, key: string, required: boolean): Row {
  const { description } = schema;
  if (description === undefined) throw new Error(`${key} has no description in src/config/`);
  const { default: given } = schema;
  const byDefault = given === undefined || typeof given === 'object' || given === '' ? '–' : `\`${given}\``;
  return {
    key,
    value: cell(kindOfValue(schema, key)),
    byDefault: required ? 'required' : byDefault,
    meaning: cell(description),
  };
}

function kindOfValue({ title, type, enum: choices, const: only, ...schema }: Schema, key: string): string {
  if (title !== undefined) return title;
  const words = choices ?? (only === undefined ? [] : [only]);
  if (words.length > 0) return inWords(words.map((word) => `"${word}"`));
  if (type === 'boolean') return '"true" or "false"';
  if (type === 'object' || schema.oneOf !== undefined) return 'map';
  throw new Error(`${key} has no title in src/config/, which says what may be written there`);
}

function inWords(words: readonly string[]): string {
  return words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
}

/** What is quoted in the schema is code here, and a page that it names is a link. */
function cell(text: string): string {
  return text
    .replace(/"([^"]+)"/g, '`$1`')
    .replace(/docs\/((\w+)\.md)/g, '[$2]($1)')
    .replaceAll('|', '\\|');
}

if (import.meta.main) await writeFile(PAGE, withTables(await readPage()));
