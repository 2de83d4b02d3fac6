import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { parseConfig } from '../../src/config.ts';
import { UsageError } from '../../src/errors.ts';

let dir: string;
let file: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'shipmate-secrets-'));
  file = join(dir, 'password');
  writeFileSync(file, 'from-file\nmore\n');
});
afterAll(() => rmSync(dir, { recursive: true }));

const CONFIG = `
cluster: acme
coordination: solo
stores: { main: { type: file, path: /mnt/backup } }
streams:
  orders:
    source: { type: mariadb, dir: /var/lib/mysql, url: "mariadb://shipmate:\${PASSWORD}@127.0.0.1" }
    store: main
`;

const url = (environment: NodeJS.ProcessEnv, lazy = false) => {
  const { source } = parseConfig(CONFIG, { file: 'shipmate.yaml', environment, lazy }).streams.orders!;
  return 'url' in source ? source.url : undefined;
};

test('a variable may be set by a file: its first line counts, unless the variable itself is set', () => {
  expect(url({ PASSWORD_FILE: file })).toBe('mariadb://shipmate:from-file@127.0.0.1');
  expect(url({ PASSWORD_FILE: file, PASSWORD: 'own' })).toBe('mariadb://shipmate:own@127.0.0.1');
});

test('a file that is not there is named with the place that needs it, and stops only who needs that', () => {
  const environment = { PASSWORD_FILE: join(dir, 'absent') };
  const message = /streams\.orders\.source\.url: PASSWORD_FILE can't be read: .*absent/;
  expect(() => url(environment)).toThrow(message);
  const lazy = parseConfig(CONFIG, { file: 'shipmate.yaml', environment, lazy: true });
  expect(lazy.stores.main).toMatchObject({ path: '/mnt/backup' });
  expect(() => url(environment, true)).toThrow(message);
});

test('a file that is not there does not make the config wrong, as all else that is missing does', () => {
  const environment = { PASSWORD_FILE: join(dir, 'absent') };
  for (const lazy of [false, true]) {
    expect(() => url(environment, lazy)).not.toThrow(UsageError);
    expect(() => url({}, lazy)).toThrow(UsageError);
  }
});
