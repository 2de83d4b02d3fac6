import { describe, expect, test } from '@jest/globals';
import { stringify } from 'yaml';
import { streamChanges } from '../../src/config/reload.ts';
import { parseConfig } from '../../src/config.ts';

const file = {
  node: 'db-1',
  cluster: 'acme',
  stateDir: '/var/lib/shipmate',
  coordination: 'solo',
  stores: { main: { type: 'file', path: '/mnt/main' }, nas: { type: 'file', path: '/mnt/nas' } },
  plans: { gold: { primary: 'main', copies: ['nas'], delay: '15m' } },
  streams: {
    orders: { source: { type: 'mariadb', dir: '/var/lib/mysql' }, plan: 'gold' },
    audit: { source: { type: 'files', dir: '/var/log/audit' }, store: 'nas' },
  },
  limits: { link: '100MiB/s' },
  admin: { listen: '127.0.0.1:9187' },
};

type File = typeof file;
const read = (raw: object) => parseConfig(stringify(raw), { file: 'c.yaml', environment: {} });
const running = read(file);
const reread = (change: (raw: File) => object) =>
  parseConfig(stringify(change(structuredClone(file))), { file: 'c.yaml', environment: {}, running });

describe('what a running daemon can not change', () => {
  test.each<[string, (raw: File) => object]>([
    ['node', (raw) => ({ ...raw, node: 'db-2' })],
    ['cluster', (raw) => ({ ...raw, cluster: 'other' })],
    ['stateDir', (raw) => ({ ...raw, stateDir: '/elsewhere' })],
    ['coordination', (raw) => ({ ...raw, coordination: { etcd: { endpoints: ['http://e:2379'] } } })],
    ['admin', (raw) => ({ ...raw, admin: { listen: '127.0.0.1:9188' } })],
    ['onEtcdLoss', (raw) => ({ ...raw, onEtcdLoss: 'stop' })],
  ])('%s is refused by name and line, with what to do', (key, change) => {
    const lines = stringify(change(structuredClone(file))).split('\n');
    const line = 1 + lines.findIndex((text) => text.startsWith(`${key}:`));
    expect(() => reread(change)).toThrow(`c.yaml, line ${line}: ${key}: can't change while the daemon runs`);
    expect(() => reread(change)).toThrow(
      expect.objectContaining({ hint: expect.stringContaining('restart the daemon') }),
    );
  });

  test('several are refused together', () => {
    expect(() => reread((raw) => ({ ...raw, node: 'db-2', cluster: 'other' }))).toThrow(/node: .*; line 2: cluster: /);
  });
});

describe('which streams a config that is read anew concerns', () => {
  const changes = (change: (raw: File) => object) => streamChanges(running, reread(change));
  const none = { added: [], removed: [], changed: [] };

  test.each<[string, (raw: File) => object, object]>([
    ['the same file', (raw) => raw, none],
    ['limits', (raw) => ({ ...raw, limits: { link: '50MiB/s' } }), none],
    ['the log level', (raw) => ({ ...raw, log: { level: 'debug' } }), none],
    ['a plan and a store that nothing uses', (raw) => ({ ...raw, stores: { ...raw.stores, x: raw.stores.nas } }), none],
    [
      'how long is kept, which is the business of prune',
      (raw) => ({ ...raw, streams: { ...raw.streams, orders: { ...raw.streams.orders, keep: { age: '30d' } } } }),
      none,
    ],
    [
      'a stream more',
      (raw) => ({
        ...raw,
        streams: { ...raw.streams, more: { ...raw.streams.audit, source: { type: 'files', dir: '/m' } } },
      }),
      { ...none, added: ['more'] },
    ],
    ['a stream less', (raw) => ({ ...raw, streams: { orders: raw.streams.orders } }), { ...none, removed: ['audit'] }],
    [
      'a chunk size',
      (raw) => ({ ...raw, streams: { ...raw.streams, audit: { ...raw.streams.audit, chunk: { maxBytes: '1MiB' } } } }),
      { ...none, changed: ['audit'] },
    ],
    [
      'a source',
      (raw) => ({
        ...raw,
        streams: { ...raw.streams, audit: { ...raw.streams.audit, source: { type: 'files', dir: '/a' } } },
      }),
      { ...none, changed: ['audit'] },
    ],
    [
      'a plan',
      (raw) => ({ ...raw, plans: { gold: { ...raw.plans.gold, delay: '1m' } } }),
      { ...none, changed: ['orders'] },
    ],
    [
      'a store, of all whose plan has it',
      (raw) => ({ ...raw, stores: { ...raw.stores, nas: { type: 'file', path: '/mnt/nas2' } } }),
      { ...none, changed: ['orders', 'audit'] },
    ],
  ])('%s', (_, change, expected) => expect(changes(change)).toEqual(expected));
});
