import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Installation } from '../helpers/launcher.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'shipmate-launcher-'));
});
afterEach(() => rm(dir, { recursive: true }));

const FETCH = '"$SHIPMATE" fetch orders 000000010000000000000001 dest';

/** How `bin/shipmate` ends where Node ends so. */
async function codeAfter(node: string, command: string): Promise<number> {
  return (await (await Installation.in(dir, { node })).run(command)).code;
}

describe('fetch: nothing that goes wrong looks to PostgreSQL like the end of the archive', () => {
  test.each([[0, 0], [100, 1], ...[1, 2, 3, 7, 9, 12, 13, 99, 101, 125, 126, 255].map((code) => [code, 126])])(
    'Node ends with %s: %s',
    async (code, expected) => expect(await codeAfter(`exit ${code}`, FETCH)).toBe(expected),
  );

  test.each(['KILL', 'SEGV', 'ABRT', 'TERM'])('Node ends by SIG%s: 126', async (signal) =>
    expect(await codeAfter(`kill -${signal} $$`, FETCH)).toBe(126),
  );

  test.each([
    '"$SHIPMATE" -c f fetch orders 000000010000000000000001 dest',
    '"$SHIPMATE" --config=f --store s fetch orders 000000010000000000000001 dest',
    '"$SHIPMATE" fetch orders 000000010000000000000001 dest --config',
    '"$SHIPMATE" fetch --no-such-option',
    '"$SHIPMATE" --timeout 60 fetch orders 000000010000000000000001 dest',
    '"$SHIPMATE" --no-such-option value fetch orders 000000010000000000000001 dest',
    '"$SHIPMATE" fetch',
  ])('%s: any failure is 126', async (command) => expect(await codeAfter('exit 1', command)).toBe(126));

  test('no Node: 126', async () => {
    const installation = await Installation.in(dir);
    await rm(join(dir, 'node_modules'), { recursive: true });
    expect(await installation.run(FETCH, { PATH: '/usr/bin:/bin' })).toMatchObject({ code: 126 });
  });
});

test.each([
  ['v24.10.9', 2],
  ['v22.99.0', 2],
  ['nonsense', 2],
  ['v24.11.0', 0],
  ['v25.0.0', 0],
])('a Node on the PATH that calls itself %s: %i', async (version, code) => {
  const installation = await Installation.in(dir);
  await rm(join(dir, 'node_modules'), { recursive: true });
  const node = `#!/bin/sh\n[ "$1" = --version ] && echo ${version}\nexit 0\n`;
  await writeFile(join(dir, 'node'), node, { mode: 0o755 });
  expect(await installation.run('"$SHIPMATE" ls', { PATH: `${dir}:/usr/bin:/bin` })).toMatchObject({ code });
});

test('any other command ends as Node does', async () => {
  for (const code of [0, 1, 3, 100]) {
    await rm(dir, { recursive: true });
    expect(await codeAfter(`exit ${code}`, '"$SHIPMATE" ls')).toBe(code);
  }
});
