import { describe, expect, test } from '@jest/globals';
import { readPage, withTables } from '../../scripts/configuration-reference.ts';
import { jsonSchema } from '../../src/config/schema.ts';

/** The keys in the first column of the page's tables. */
const keysOf = (page: string) => [...page.matchAll(/^\| `([\w.[\]]+)` \|/gm)].map(([, key]) => key!);

/** Every key that a schema allows, by another way than the page is written. */
function keysIn(schema: unknown, path = ''): string[] {
  if (typeof schema !== 'object' || schema === null) return [];
  return Object.entries(schema).flatMap(([word, part]) => {
    if (word === 'properties') {
      return Object.entries(part).flatMap(([key, below]) => {
        const here = path === '' ? key : `${path}.${key}`;
        return [here, ...keysIn(below, here)];
      });
    }
    if (word === 'additionalProperties') return keysIn(part, `${path}.NAME`);
    return keysIn(part, word === 'items' ? `${path}[]` : path);
  });
}

describe('docs/configuration.md', () => {
  test('says what the schema says; "npm run docs" writes it', async () => {
    const page = await readPage();
    expect(page).toBe(withTables(page));
  });

  test('has each key that a config may hold, and no other', async () => {
    const told = new Set(keysOf(await readPage()));
    const allowed = new Set(keysIn(jsonSchema()));
    expect([...told].filter((key) => !allowed.has(key))).toEqual([
      'SHIPMATE_CONFIG', // of the environment
      'SHIPMATE_LOG_LEVEL',
      'SHIPMATE_LOG_FORMAT',
    ]);
    const maps = [...allowed].filter((key) => [...told].some((one) => one.startsWith(`${key}.`)));
    expect([...allowed].filter((key) => !told.has(key) && !maps.includes(key))).toEqual([]);
  });
});
