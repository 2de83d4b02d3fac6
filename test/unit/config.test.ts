import { hostname } from 'node:os';
import { describe, expect, test } from '@jest/globals';
import { parse, stringify } from 'yaml';
import { EXAMPLE } from '../../src/config/example.ts';
import { jsonSchema } from '../../src/config/schema.ts';
import { parseDuration, parseRate, parseSize } from '../../src/config/units.ts';
import { type Config, parseConfig, sharedDigest, slotOf, storeOf, streamOf } from '../../src/config.ts';
import { UsageError } from '../../src/errors.ts';

interface Raw {
  [key: string]: unknown;
}

/** As a config file names an environment variable. */
const env = (variable: string) => `\${${variable}}`;

/** The keys that a JSON schema knows, wherever. */
function keysOf(schema: unknown): Set<string> {
  if (typeof schema !== 'object' || schema === null) return new Set();
  const own = 'properties' in schema ? Object.keys(schema.properties as Raw) : [];
  return new Set([...own, ...Object.values(schema).flatMap((part) => [...keysOf(part)])]);
}

/** The keys that a config holds, wherever. */
function keysIn(config: unknown): Set<string> {
  if (typeof config !== 'object' || config === null) return new Set();
  const own = Array.isArray(config) ? [] : Object.keys(config);
  return new Set([...own, ...Object.values(config).flatMap((part) => [...keysIn(part)])]);
}

/** What "store: main" stands for. */
const TO_MAIN = { primary: 'main', copies: [], count: 0, delayMs: 0, order: [], ack: 1, class: 'standard' };

const RECIPIENT = `age1${'q'.repeat(58)}`;

/** The smallest config, to be spoilt. */
const small = (): Raw => ({
  cluster: 'acme',
  coordination: 'solo',
  stores: { main: { type: 'file', path: '/mnt/backup' } },
  streams: { orders: { source: { type: 'mariadb', dir: '/var/lib/mysql' }, store: 'main' } },
});

const read = (
  config: unknown,
  { environment = {}, lazy = false }: { environment?: NodeJS.ProcessEnv; lazy?: boolean } = {},
) => parseConfig(typeof config === 'string' ? config : stringify(config), { file: 'shipmate.yaml', environment, lazy });

/** Puts a value at a path such as `stores.main.path`; undefined removes the key. */
function changed(path: string, value: unknown, config: Raw = small()): Raw {
  const keys = path.split('.');
  let node = config;
  for (const key of keys.slice(0, -1)) {
    node[key] ??= {};
    node = node[key] as Raw;
  }
  node[keys.at(-1)!] = value;
  return config;
}

function sourceUrl(config: Config): string | undefined {
  const { source } = config.streams.orders!;
  return 'url' in source ? source.url : undefined;
}

function refusal(config: unknown, options?: { environment?: NodeJS.ProcessEnv; lazy?: boolean }): UsageError {
  try {
    read(config, options);
  } catch (error) {
    if (error instanceof UsageError) return error;
    throw error;
  }
  throw new Error('the config was accepted');
}

describe('defaults and forms', () => {
  test('a small config is filled in', () => {
    expect(read(small())).toEqual({
      node: hostname(),
      cluster: 'acme',
      stateDir: '/var/lib/shipmate',
      coordination: { kind: 'solo' },
      onEtcdLoss: 'continue',
      stores: { main: { type: 'file', path: '/mnt/backup', prefix: '' } },
      streams: {
        orders: {
          name: 'orders',
          source: { type: 'mariadb', dir: '/var/lib/mysql' },
          plan: TO_MAIN,
          chunk: { maxBytes: 8 * 1024 * 1024, maxDelayMs: 1000 },
          recipients: [],
          keep: null,
        },
      },
      limits: null,
      admin: null,
      logLevel: 'info',
    });
  });

  test('etcd has a lease of 5 s, and keeps its rights and certificates', () => {
    const config = read(
      changed('coordination', {
        etcd: {
          endpoints: ['https://a:2379', 'https://b:2379'],
          tls: { ca: '/ca.pem', cert: '/c.pem', key: '/k.pem' },
          username: 'shipmate',
          passwordFile: '/secret',
        },
      }),
    );
    expect(config.coordination).toEqual({
      kind: 'etcd',
      endpoints: ['https://a:2379', 'https://b:2379'],
      ttlMs: 5000,
      tls: { ca: '/ca.pem', cert: '/c.pem', key: '/k.pem' },
      username: 'shipmate',
      passwordFile: '/secret',
    });
  });

  test('the printed example is a valid config', () => {
    expect(Object.keys(read(EXAMPLE).streams)).toEqual(['orders', 'billing', 'audit']);
  });

  test('every commented-out key of the example is known, too', () => {
    const uncommented = (block: string) => block.replace(/^# ?/gm, '').replace(/^( *)# (\w+:)/gm, '$1$2');
    const everything = EXAMPLE.replace(/^# (plans|limits):\n(#.*\n)+/gm, uncommented)
      .replace(/^( *)# ([a-zA-Z]+:( .*)?)$/gm, '$1$2')
      .replace(/^ {4}store: main$/m, '') // of the first stream: it has a plan now
      .replace('http://127', 'https://127')
      .replace('# This, or', 'plan: gold #')
      .replace('age1...', RECIPIENT);
    expect(everything).not.toMatch(/^ *# [a-zA-Z]+:/m);
    const config = read(everything, { environment: { SHIPMATE_DB_PASSWORD: 'pw' } });
    expect(config.node).toBe('db-1');
    expect(config.streams.orders).toMatchObject({
      source: { url: 'mariadb://shipmate:pw@127.0.0.1:3306', index: '/var/lib/mysql/binlog.index' },
      plan: { primary: 'main', copies: ['cloud', 'aws', 'azure'], count: 2, order: ['aws'], ack: 1, class: 'standard' },
      recipients: [RECIPIENT],
      keep: { daily: 7 },
    });
    expect(config.limits?.schedule).toHaveLength(1);
    expect(config.streams.billing!.source).toMatchObject({ slot: 'shipmate_billing' });
    expect(config.streams.audit!.source).toMatchObject({ layout: 'plain', live: 'audit.log', settle: 5_000 });
    const named = keysIn(parse(everything));
    const missing = [...keysOf(jsonSchema())].filter((key) => !named.has(key));
    expect(missing).toEqual(['connectionStringFile']); // the example names "account" in its place
  });

  test('what the example says of defaults is so', () => {
    expect(
      read(
        EXAMPLE.replace(/^( +)# ((layout|match|order|cut|settle|shared|chunk|ttl|stateDir|onEtcdLoss):.*)$/gm, '$1$2'),
      ),
    ).toEqual(read(EXAMPLE));
  });

  test.each([
    ['127.0.0.1:9187', { host: '127.0.0.1', port: 9187 }],
    ['[::1]:80', { host: '::1', port: 80 }],
    ['localhost:0', { host: 'localhost', port: 0 }],
  ])('admin listens on %s', (listen, expected) => {
    expect(read(changed('admin', { listen })).admin).toEqual(expected);
  });

  test.each(['off', false])('admin: %s turns HTTP off', (admin) => {
    expect(read(changed('admin', admin)).admin).toBeNull();
  });

  test('the two spellings of a place are one store', () => {
    expect(read(changed('stores.main.path', '/mnt//backup/')).stores).toEqual(read(small()).stores);
  });
});

describe('units', () => {
  test.each([
    ['1B', 1],
    ['64KiB', 65_536],
    ['8MiB', 8_388_608],
    ['1GB', 1e9],
    ['1.5 KiB', 1536],
    ['8', null],
    ['8mib', null],
    ['0.3B', null],
    ['-1KiB', null],
  ])('size %s', (text, bytes) => expect(parseSize(text)).toBe(bytes));

  test.each([
    ['20ms', 20],
    ['1s', 1000],
    ['1.5s', 1500],
    ['15m', 900_000],
    ['1d', 86_400_000],
    ['5', null],
    ['5 sec', null],
  ])('duration %s', (text, ms) => expect(parseDuration(text)).toBe(ms));

  test.each([
    ['40MiB/s', 41_943_040],
    ['1Gbit/s', 125_000_000],
    ['8 kbit/s', 1000],
    ['1.5KB/s', 1500],
    ['40MiB', null],
    ['1GBit/s', null],
    ['1bit/s', null],
  ])('rate %s', (text, bytes) => expect(parseRate(text)).toBe(bytes));

  test.each([
    ['streams.orders.chunk.maxBytes', '8', 'must be a size with its unit'],
    ['streams.orders.chunk.maxBytes', 8388608, 'must be a size with its unit'],
    ['streams.orders.chunk.maxBytes', '1B', 'must be from 1KiB to 1GiB'],
    ['streams.orders.chunk.maxDelay', '1', 'must be a time with its unit'],
    ['coordination', { etcd: { endpoints: ['http://h:1'], ttl: '1s' } }, 'must be from 2s to 5m'],
    ['coordination', { etcd: { endpoints: ['http://h:1'], ttl: '2500ms' } }, 'must be whole seconds'],
  ])('%s: %s is refused', (key, value, why) => {
    expect(refusal(changed(key, value)).message).toContain(why);
  });
});

describe('what is wrong is named, with its line', () => {
  test.each<[string, unknown, string]>([
    ['cluster', undefined, 'cluster: is missing'],
    ['cluster', 3, 'cluster: must be text'],
    ['cluster', 'a/b', 'cluster: is not a valid name'],
    ['coordination', undefined, 'coordination: is missing'],
    ['coordination', 'alone', 'coordination: must be "solo", or hold "etcd"'],
    ['coordination', { etcd: { endpoints: [] } }, 'coordination.etcd.endpoints: must name at least one'],
    ['coordination', { etcd: { endpoints: ['db:2379'] } }, 'coordination.etcd.endpoints[0]: must be a URL'],
    ['coordination', { etcd: { endpoints: ['http://:pw@h:1'] } }, 'endpoints[0]: must not hold a user or password'],
    ['coordination', { etcd: { endpoints: ['http://h:1'], tls: {} } }, 'must all be https'],
    [
      'coordination',
      { etcd: { endpoints: ['http://h:1'], username: 'me' } },
      '"username" and "passwordFile" go together',
    ],
    ['onEtcdLoss', 'stopp', 'onEtcdLoss: must be one of continue, stop'],
    ['stateDir', 'state', 'stateDir: must be an absolute path'],
    ['stores', {}, 'stores: must hold at least one store'],
    ['stores.main.path', 'backup', 'stores.main.path: must be an absolute path'],
    ['stores.main.prefix', '../up', 'stores.main.prefix: must be names'],
    ['stores.main.type', 'fil', 'stores.main.type: must be one of file, gcs'],
    ['streams', {}, 'streams: must hold at least one stream'],
    [
      'streams.Or/ders',
      { source: { type: 'mariadb', dir: '/x' }, store: 'main' },
      'streams.Or/ders: is not a valid name',
    ],
    ['streams.orders.store', undefined, 'streams.orders: needs exactly one of "store" and "plan"'],
    ['streams.orders.plan', 'gold', 'streams.orders: needs exactly one of "store" and "plan"'],
    ['streams.orders.store', 'mian', '"mian" is not among the stores'],
    [
      'streams.orders.source.type',
      'mariabd',
      'streams.orders.source.type: must be one of mariadb, mysql, postgres, files',
    ],
    ['streams.orders.source.url', 'http://h', 'streams.orders.source.url: must be a URL such as mariadb://'],
    ['streams.orders.source.url', 'postgresql://h', 'streams.orders.source.url: must be a URL such as mariadb://'],
    [
      'streams.orders.source.url',
      'mariadb://h/?ssl=true',
      'streams.orders.source.url: takes no parameter but "socket"',
    ],
    ['plans.gold.primary', 'tape', 'plans.gold.primary: "tape" is not among the stores'],
    ['admin', { listen: 9187 }, 'admin.listen: must be text'],
    ['admin', { listen: '9187' }, 'admin.listen: must be HOST:PORT'],
    ['admin', { listen: 'h:70000' }, 'admin.listen: must have a port'],
  ])('%s = %j', (key, value, why) => {
    const { message } = refusal(changed(key, value));
    expect(message).toContain(why);
    expect(message).toMatch(/^shipmate\.yaml, line \d+: /);
  });

  test('with the line it stands on, and the nearest name', () => {
    const text = stringify(small()).replace('path:', 'pth:');
    const line = text.split('\n').findIndex((one) => one.includes('pth:')) + 1;
    const { message, hint } = refusal(text);
    expect(message).toMatch(new RegExp(`^shipmate\\.yaml, line ${line}: stores\\.main\\.pth: unknown key;`));
    expect(hint).toBe('did you mean "path"?');
  });

  test.each([
    [{ type: 'mariadb', dir: '/x', indx: 'i' }, 'index'],
    [{ type: 'postgres', dir: '/x', url: 'postgresql://h', slott: 's' }, 'slot'],
    [{ type: 'files', dir: '/x', mach: '*' }, 'match'],
  ])('with the nearest name among those of its kind: %j', (source, nearest) => {
    const { message, hint } = refusal(changed('streams.orders.source', source));
    expect(message).toMatch(/streams\.orders\.source\.\w+: unknown key/);
    expect(hint).toBe(`did you mean "${nearest}"?`);
  });

  test('where two streams of one PostgreSQL server would share a slot', () => {
    const source = { type: 'postgres', dir: '/data', url: 'postgresql://h' };
    const both = (a: object, b: object) =>
      changed('streams', { 'eu-1': { source: a, store: 'main' }, 'eu.1': { source: b, store: 'main' } });
    expect(refusal(both(source, source)).message).toContain('the replication slot shipmate_eu_1 with stream eu-1');
    expect(read(both(source, { ...source, slot: 'other' })).streams['eu.1']).toBeDefined();
    expect(read(both(source, { ...source, dir: '/other' })).streams['eu.1']).toBeDefined();
    const dir = `/data/${env('WHERE')}`;
    const slot = 'shipmate';
    const elsewhere = both({ ...source, dir: `${dir}/a`, slot }, { ...source, dir: `${dir}/b`, slot });
    expect(read(elsewhere, { lazy: true }).streams['eu.1']).toBeDefined();
    expect(slotOf('b'.repeat(100), { ...source, type: 'postgres' as const })).toHaveLength(63);
  });

  test('several at once, the rest counted', () => {
    const config = changed(
      'cluster',
      'a b',
      changed('stateDir', 'x', changed('admin', 'on', changed('onEtcdLoss', 'no'))),
    );
    expect(refusal(config).message).toMatch(/line 1: cluster: .*; line \d+: .*; line \d+: .*; and 1 more$/);
  });

  test.each([
    ['no YAML', 'a: [', 'not valid YAML'],
    ['a key twice', 'cluster: a\ncluster: b\n', 'line 2, column 1: not valid YAML: Map keys must be unique'],
    ['nothing', '', 'must be a map'],
    ['an alias of nothing', 'cluster: *unquoted', 'an alias ("*" and a name) has no anchor'],
    ['something inside itself', 'cluster: &all [*all]', 'is inside of what it names'],
  ])('%s', (_, text, why) => {
    expect(refusal(text).message).toContain(why);
    expect(refusal(text).message).not.toContain('unquoted');
  });
});

describe('a PostgreSQL server', () => {
  const source = (more: Raw) => changed('streams.orders.source', { type: 'postgres', dir: '/data', ...more });

  test.each([
    'postgresql://shipmate@/postgres?host=/run/postgresql',
    'postgresql:///postgres?host=/run/postgresql',
    'postgresql://shipmate:p%40ss@127.0.0.1:5432/postgres',
    'postgres://[::1]/postgres',
    'postgresql://shipmate@%2Frun%2Fpostgresql/postgres',
  ])('is asked at %s, as it stands there', (url) => {
    const config = read(source({ url, slot: 'shipmate_1' }));
    expect(config.streams.orders!.source).toEqual({ type: 'postgres', dir: '/data', url, slot: 'shipmate_1' });
  });

  test.each<[Raw, string]>([
    [{}, 'streams.orders.source.url: is missing'],
    [{ url: 'mariadb://h' }, 'must be a URL such as postgresql://'],
    [{ url: 'host=/run/postgresql' }, 'must be a URL such as postgresql://'],
    [{ url: 'postgresql://h:port' }, 'must be a URL such as postgresql://'],
    [{ url: 'postgresql://h', slot: 'Ship-mate' }, 'streams.orders.source.slot: is not a valid slot name'],
    [{ url: 'postgresql://h', slot: 's'.repeat(64) }, 'streams.orders.source.slot: is not a valid slot name'],
    [{ url: 'postgresql://h', index: 'i' }, 'streams.orders.source.index: unknown key'],
  ])('refuses %j', (keys, why) => expect(refusal(source(keys)).message).toContain(why));
});

describe('a directory of files', () => {
  test('is read by its numbers, for this host alone, byte by byte', () => {
    const config = read(changed('streams.orders.source', { type: 'files', dir: '/var/log/audit' }));
    expect(config.streams.orders!.source).toEqual({
      ...{ type: 'files', dir: '/var/log/audit', layout: 'plain', match: '*', order: 'number', cut: 'byte' },
      ...{ settle: 5_000, shared: false },
    });
  });

  test.each([
    [{ live: 'a/b' }, 'must be a name, without a directory'],
    [{ layout: 'redis-aof', cut: 'line' }, 'are for the layout "plain"'],
    [{ order: 'time' }, 'must be'],
  ])('refuses %j', (keys, why) => {
    const source = { type: 'files', dir: '/log', ...keys };
    expect(refusal(changed('streams.orders.source', source)).message).toContain(why);
  });
});

describe('a plan', () => {
  const nas = { type: 'file', path: '/mnt/nas' };
  const withPlan = (plan: Raw, stores: Raw = {}) => {
    const file = {
      main: { type: 'file', path: '/mnt/backup' },
      nas,
      tape: { type: 'file', path: '/mnt/tape' },
      ...stores,
    };
    const orders = { source: { type: 'mariadb', dir: '/x' }, plan: 'gold' };
    return { ...small(), stores: file, plans: { gold: plan }, streams: { orders } };
  };

  test('copies to all of its stores, at once, and waits for none of them', () => {
    expect(read(withPlan({ primary: 'main', copies: ['nas', 'tape'] })).streams.orders!.plan).toEqual({
      ...TO_MAIN,
      copies: ['nas', 'tape'],
      count: 2,
    });
  });

  test('says how many, which first, how late, how safe, and how fast', () => {
    const plan = { primary: 'main', copies: ['nas', 'tape'], count: 1, order: ['tape'], ack: 2, class: 'slow' };
    expect(read(withPlan({ ...plan, delay: '15m' })).streams.orders!.plan).toEqual({ ...plan, delayMs: 900_000 });
  });

  test.each<[Raw, string, string]>([
    [{ copies: ['main'] }, 'plans.gold.copies: must not name the primary', ''],
    [{ copies: ['nas', 'nas'] }, 'plans.gold.copies: must not name a store twice', ''],
    [{ copies: ['nass'] }, 'plans.gold.copies[0]: "nass" is not among the stores', 'did you mean "nas"?'],
    [{ copies: ['nas'], count: 2 }, 'plans.gold.count: must not be more than there are copies', ''],
    [{ count: 1 }, 'plans.gold.count: must not be more than there are copies', ''],
    [{ copies: ['nas'], count: 0 }, 'plans.gold.count: ', ''],
    [{ ack: 2 }, 'plans.gold.ack: must not be more than the primary and its copies', ''],
    [
      { copies: ['nas', 'tape'], count: 1, ack: 3 },
      'plans.gold.ack: must not be more than the primary and its copies',
      '',
    ],
    [{ copies: ['nas'], ack: 0 }, 'plans.gold.ack: ', ''],
    [{ copies: ['nas'], order: ['main'] }, 'plans.gold.order[0]: "main" is not among the copies', 'known here: nas'],
    [{ copies: ['nas', 'tape'], order: ['tap'] }, 'plans.gold.order[0]: "tap" is not', 'did you mean "tape"?'],
    [{ copies: ['nas'], order: ['nas', 'nas'] }, 'plans.gold.order: must not name a store twice', ''],
    [{ copies: ['nas'], delay: '366d' }, 'plans.gold.delay: must be from 0s to 365d', ''],
    [{ class: 'medium' }, 'plans.gold.class: must be one of slow, standard, fast', ''],
    [{ copis: ['nas'] }, 'plans.gold.copis: unknown key', 'did you mean "copies"?'],
  ])('%j is refused', (keys, why, hinted) => {
    const { message, hint } = refusal(withPlan({ primary: 'main', ...keys }));
    expect(message).toContain(why);
    expect(hint).toContain(hinted);
  });

  test.each([
    [
      { type: 'file', path: '/mnt/backup/' },
      { type: 'file', path: '/mnt//backup' },
    ],
    [
      { type: 'gcs', bucket: 'acme', prefix: 'a' },
      { type: 'gcs', bucket: 'acme', prefix: 'a/', storageClass: 'ARCHIVE' },
    ],
    [
      { type: 's3', bucket: 'acme' },
      { type: 's3', bucket: 'acme', region: 'eu-central-1' },
    ],
    [
      { type: 'azure', container: 'acme', account: 'one' },
      { type: 'azure', container: 'acme', account: 'one' },
    ],
  ])('is refused where a copy is the primary by another name: %j', (main, same) => {
    const plan = { primary: 'main', copies: ['tape', 'nas'] };
    const { message, hint } = refusal(withPlan(plan, { main, nas: same }));
    expect(message).toContain('plans.gold.copies[1]: "nas" is the same place as "main"');
    expect(hint).toContain('would be lost with it');
    expect(refusal(withPlan(plan, { tape: main, nas: same })).message).toContain('"nas" is the same place as "tape"');
    expect(() => read(withPlan(plan, { main, nas: { ...same, prefix: 'b' } }))).not.toThrow();
  });

  test('is read without the variables of stores that a command does not open', () => {
    const path = `/mnt/${env('WHERE')}`;
    const plan = { primary: 'main', copies: ['nas', 'tape'] };
    const config = withPlan(plan, { nas: { type: 'file', path }, tape: { type: 'file', path } });
    expect(storeOf(read(config, { lazy: true }), 'main')).toMatchObject({ path: '/mnt/backup' });
    expect(refusal(config, { environment: { WHERE: 'x' } }).message).toContain('is the same place as');
  });

  test('tells what a bucket may take', () => {
    const bucket = { type: 'gcs', bucket: 'acme', quota: '10TiB' };
    expect(storeOf(read(withPlan({ primary: 'main' }, { nas: bucket })), 'nas')).toMatchObject({
      quota: 10 * 1024 ** 4,
    });
    const least = refusal(withPlan({ primary: 'main' }, { nas: { ...bucket, quota: '1KiB' } }));
    expect(least.message).toContain('stores.nas.quota: must be from 1MiB');
  });
});

describe('bandwidth', () => {
  const limited = (limits: unknown) => changed('limits', limits);

  test('is shared between shipping and nothing else, unless classes have guarantees', () => {
    expect(read(limited({ link: '1Gbit/s' })).limits).toEqual({
      link: 125e6,
      shipping: 0.5,
      classes: {},
      schedule: [],
    });
  });

  test('may be given away to the last byte, and otherwise at night', () => {
    const limits = {
      ...{ link: '10MB/s', shipping: '40%', classes: { slow: '2MB/s', fast: '4MB/s' } },
      schedule: [{ from: '22:00', to: '06:00', shipping: '10%', classes: { fast: '7MB/s' } }],
    };
    expect(read(limited(limits)).limits).toEqual({
      ...{ link: 10e6, shipping: 0.4, classes: { slow: 2e6, fast: 4e6 } },
      schedule: [{ from: '22:00', to: '06:00', shipping: 0.1, classes: { fast: 7e6 } }],
    });
  });

  const link = '10MiB/s';
  test.each<[unknown, string, string]>([
    [{}, 'limits.link: is missing', ''],
    [{ link: '10' }, 'limits.link: must be a rate with its unit', ''],
    [{ link: '10MiB' }, 'limits.link: must be a rate with its unit', ''],
    [{ link, shipping: 0.5 }, 'limits.shipping: must be a share such as 50%', ''],
    [{ link, shipping: '101%' }, 'limits.shipping: must be at most 100%', ''],
    [{ link, classes: { fsat: '1MiB/s' } }, 'limits.classes.fsat: unknown key', 'did you mean "fast"?'],
    [{ link, schedul: [] }, 'limits.schedul: unknown key', 'did you mean "schedule"?'],
    [
      { link, classes: { slow: '11MiB/s' }, shipping: '0%' },
      'limits: guarantees more than the link of 10 MiB/s can carry',
      '',
    ],
    [
      { link, classes: { slow: '2MiB/s', fast: '4MiB/s' } },
      'limits: guarantees more than the link of 10 MiB/s can carry: ' +
        'shipping 5.0 MiB/s (50%), slow 2.0 MiB/s, fast 4.0 MiB/s',
      'lower a guarantee, or raise "link"',
    ],
    [{ link, schedule: [{ from: '22:00', to: '6:00', link }] }, 'limits.schedule[0].to: must be a time of day', ''],
  ])('%j is refused', (limits, why, hinted) => {
    const { message, hint } = refusal(limited(limits));
    expect(message).toContain(why);
    expect(hint).toContain(hinted);
  });

  test.each<[Raw, string]>([
    [{}, 'must say what is other then'],
    [{ to: '22:00', link: '1MiB/s' }, '.to: must be another time than "from"'],
    [{ from: '24:00', link: '1MiB/s' }, '.from: must be a time of day'],
    [
      { shipping: '61%' },
      'guarantees more than the link of 10 MiB/s can carry: shipping 6.1 MiB/s (61%), slow 4.0 MiB/s',
    ],
    [{ classes: { fast: '2MiB/s' } }, 'can carry: shipping 5.0 MiB/s (50%), slow 4.0 MiB/s, fast 2.0 MiB/s'],
    [
      { link: '7MiB/s' },
      'guarantees more than the link of 7.0 MiB/s can carry: shipping 3.5 MiB/s (50%), slow 4.0 MiB/s',
    ],
  ])('an entry of the schedule that says %j is refused', (entry, why) => {
    const schedule = [
      { from: '12:00', to: '13:00', classes: { slow: '5MiB/s' } },
      { from: '22:00', to: '06:00', ...entry },
    ];
    const { message } = refusal(limited({ link, classes: { slow: '4MiB/s' }, schedule }));
    expect(message).toMatch(/line \d+: limits\.schedule\[1\]/);
    expect(message).toContain(why);
  });
});

describe('encryption and retention', () => {
  const orders = (more: Raw) => changed('streams.orders', { ...((small().streams as Raw).orders as Raw), ...more });

  test('are of a stream', () => {
    const keep = { age: '30d', segments: 10, daily: 7, weekly: 4, monthly: 12 };
    const config = read(orders({ encrypt: { recipients: [RECIPIENT] }, keep }));
    expect(config.streams.orders).toMatchObject({
      recipients: [RECIPIENT],
      keep: { ageMs: 30 * 86_400_000, segments: 10, daily: 7, weekly: 4, monthly: 12 },
    });
  });

  test.each<[Raw, string, string]>([
    [{ encrypt: {} }, 'streams.orders.encrypt.recipients: is missing', ''],
    [{ encrypt: { recipients: [] } }, 'streams.orders.encrypt.recipients: must name at least one recipient', ''],
    [{ encrypt: { recipients: ['age1x'] } }, 'recipients[0]: is not an age recipient', 'age-keygen'],
    [{ encrypt: { recipients: [RECIPIENT, RECIPIENT] } }, 'must not name a recipient twice', ''],
    [
      { encrypt: { recipents: [RECIPIENT] } },
      'streams.orders.encrypt.recipents: unknown key',
      'did you mean "recipients"?',
    ],
    [{ keep: {} }, 'streams.orders.keep: must say what is kept', ''],
    [{ keep: { age: '30' } }, 'streams.orders.keep.age: must be a time with its unit', ''],
    [{ keep: { age: '5s' } }, 'streams.orders.keep.age: must be from 1m', ''],
    [{ keep: { daily: 0 } }, 'streams.orders.keep.daily: ', ''],
    [{ keep: { dialy: 7 } }, 'streams.orders.keep.dialy: unknown key', 'did you mean "daily"?'],
  ])('%j is refused', (keys, why, hinted) => {
    const { message, hint } = refusal(orders(keys));
    expect(message).toContain(why);
    expect(hint).toContain(hinted);
  });

  test('a private key given for a public one is not repeated', () => {
    const { message, hint } = refusal(orders({ encrypt: { recipients: ['AGE-SECRET-KEY-1QQQ'] } }));
    expect(message).toContain('recipients[0]: is not an age recipient');
    expect(`${message}${hint}`).not.toContain('QQQ');
  });

  test('are not asked for their variables by commands that need neither', () => {
    const lazy = read(orders({ encrypt: { recipients: [env('KEY')] }, keep: { age: env('AGE') } }), { lazy: true });
    expect(lazy.streams.orders!.plan).toEqual(TO_MAIN);
    expect(() => lazy.streams.orders!.recipients).toThrow('environment variable KEY is not set');
    expect(() => lazy.streams.orders!.keep).toThrow('environment variable AGE is not set');
  });
});

describe('environment variables', () => {
  const withStore = (path: string) => changed('stores.nas', { type: 'file', path });

  test('stand in texts, and "$$" for a dollar sign', () => {
    const config = changed(
      'streams.orders.source.url',
      `mariadb://${env('USER_')}:a$$b@h:3306/`,
      withStore(`/mnt/${env('WHERE')}/${env('WHERE')}`),
    );
    const { stores, streams } = read(config, { environment: { WHERE: 'x', USER_: 'me' } });
    expect(stores.nas).toMatchObject({ path: '/mnt/x/x' });
    expect(streams.orders!.source).toMatchObject({ url: 'mariadb://me:a$b@h:3306/' });
  });

  test('a missing one is named with the place that needs it', () => {
    const error = refusal(withStore(env('NOWHERE')));
    expect(error.message).toContain('stores.nas.path: environment variable NOWHERE is not set');
    expect(error.hint).toContain('NOWHERE');
  });

  test('a command that reads one store needs that store’s variables only', () => {
    const config = changed('streams.orders.source.url', `mariadb://x:${env('PW')}@h`, withStore(env('NOWHERE')));
    changed('coordination', { etcd: { endpoints: [env('ETCD')] } }, config);
    changed('streams.orders.chunk', { maxBytes: env('SIZE') }, config);
    const lazy = read(config, { lazy: true });
    expect(storeOf(lazy, 'main')).toMatchObject({ path: '/mnt/backup' });
    expect(lazy.streams.orders!.plan).toEqual(TO_MAIN);
    expect(() => storeOf(lazy, 'nas')).toThrow('stores.nas.path: environment variable NOWHERE is not set');
    expect(() => lazy.coordination).toThrow('environment variable ETCD is not set');
    expect(() => sourceUrl(lazy)).toThrow('streams.orders.source.url: environment variable PW is not set');
    expect(() => lazy.streams.orders!.chunk).toThrow('environment variable SIZE is not set');
  });

  test.each([
    ['mariadb', 'mariadb://x:'],
    ['mysql', 'mysql://x:'],
    ['postgres', 'postgresql://x:'],
  ])('a command that reads a source’s type alone needs none of %s’s', (type, start) => {
    const source = { type, dir: `/data/${env('WHERE')}`, url: `${start}${env('PW')}@h/` };
    const lazy = read(changed('streams.orders.source', source), { lazy: true });
    expect(lazy.streams.orders!.source.type).toBe(type);
    expect(() => lazy.streams.orders!.source.dir).toThrow('streams.orders.source.dir: environment variable WHERE');
    expect(() => sourceUrl(lazy)).toThrow('streams.orders.source.url: environment variable PW is not set');
  });

  test.each([
    { index: env('INDEX'), url: env('URL') },
    { url: env('URL'), index: env('INDEX') },
  ])('a source that lacks more than that is missing as a whole: %j', (keys) => {
    const source = { type: 'mysql', dir: '/data', ...keys };
    const lazy = read(changed('streams.orders.source', source), { lazy: true });
    expect(() => lazy.streams.orders!.source).toThrow('environment variable INDEX is not set');
  });

  test('what every command needs must be there even then', () => {
    expect(refusal(changed('streams.orders.store', env('STORE')), { lazy: true }).message).toContain(
      'STORE is not set',
    );
  });

  test.each([env('A-b'), '${', env('')])('%s is refused', (text) => {
    expect(refusal(withStore(`/${text}`)).message).toContain(`stores.nas.path: has a "\${" that is not ${env('NAME')}`);
  });

  test('a value never shows up in an error', () => {
    const config = changed('streams.orders.source.url', env('URL'));
    expect(refusal(config, { environment: { URL: 'secret' } }).message).not.toContain('secret');
  });

  test('an unquoted one inside { } gets a hint', () => {
    const text = stringify(small()).replace(
      'coordination: solo',
      `coordination: { etcd: { endpoints: [${env('ETCD')}] } }`,
    );
    expect(refusal(text).hint).toContain(`put quotes around "${env('NAME')}"`);
  });
});

describe('names asked for', () => {
  test.each(['order', 'constructor', '__proto__'])('stream %s is unknown', (asked) => {
    expect(() => streamOf(read(small()), asked)).toThrow(`the config has no stream "${asked}"`);
  });

  test('the nearest is offered', () => {
    expect(() => streamOf(read(small()), 'order')).toThrow(expect.objectContaining({ hint: 'did you mean "orders"?' }));
    expect(storeOf(read(small()), 'main').type).toBe('file');
  });
});

describe('what twins must agree on', () => {
  const digest = (config: Raw) => {
    const read_ = read(config);
    return sharedDigest(read_, read_.streams.orders!);
  };

  test.each<[string, unknown]>([
    ['stores.main.path', '/elsewhere'],
    ['stores.main.prefix', 'prod'],
  ])('%s changes the digest', (key, value) => expect(digest(changed(key, value))).not.toBe(digest(small())));

  test.each<[string, unknown]>([
    ['streams.orders.source.dir', '/elsewhere'],
    ['streams.orders.chunk.maxBytes', '1MiB'],
    ['node', 'db-2'],
    ['stores.other', { type: 'file', path: '/other' }],
  ])('%s does not', (key, value) => expect(digest(changed(key, value))).toBe(digest(small())));

  test('a plan is what it says, not its name', () => {
    const viaPlan = changed('streams.orders', { source: { type: 'mariadb', dir: '/x' }, plan: 'gold' });
    expect(digest(changed('plans.gold.primary', 'main', viaPlan))).toBe(digest(small()));
  });
});
