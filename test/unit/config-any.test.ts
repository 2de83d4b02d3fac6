import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { stringify } from 'yaml';
import { type Config, type KeepConfig, type PlanConfig, parseConfig } from '../../src/config.ts';
import { UsageError } from '../../src/errors.ts';

const read = (config: unknown) => parseConfig(stringify(config), { file: 'shipmate.yaml', environment: {} });

function refusal(config: unknown): UsageError {
  try {
    read(config);
  } catch (error) {
    if (error instanceof UsageError) return error;
    throw error;
  }
  throw new Error('the config was accepted');
}

interface Raw {
  [key: string]: unknown;
}

const name = fc.stringMatching(/^[a-z0-9][a-z0-9._-]{0,12}$/);
const path = fc
  .array(fc.stringMatching(/^[A-Za-z0-9_ ü-]{1,8}$/), { minLength: 1, maxLength: 4 })
  .map((parts) => `/${parts.join('/')}`);
const size = fc.oneof(
  fc.integer({ min: 1, max: 1024 }).map((n) => ({ text: `${n}KiB`, value: n * 1024 })),
  fc.integer({ min: 1, max: 1000 }).map((n) => ({ text: `${n} MB`, value: n * 1e6 })),
);
const delay = fc.oneof(
  fc.integer({ min: 1, max: 9999 }).map((n) => ({ text: `${n}ms`, value: n })),
  fc.integer({ min: 1, max: 60 }).map((n) => ({ text: `${n}m`, value: n * 60_000 })),
);

const RECIPIENT = `age1${'q'.repeat(58)}`;
const TO_STORE = { copies: [], count: 0, delayMs: 0, order: [], ack: 1, class: 'standard' } as const;

const count = fc.integer({ min: 1, max: 100_000 });
const keep = fc
  // Not below a minute.
  .record(
    { age: delay.filter(({ value }) => value >= 60_000), segments: count, daily: count, weekly: count, monthly: count },
    { requiredKeys: [] },
  )
  .filter((given) => Object.keys(given).length > 0);
type Keep = typeof keep extends fc.Arbitrary<infer T> ? T : never;
const keepOf = (given: Keep | null): KeepConfig | null => {
  if (given === null) return null;
  const { age, ...counts } = given;
  return { ...(age && { ageMs: age.value }), ...counts };
};

/** Guarantees that fit into the link, in MB/s, and perhaps other ones at night. */
const limits = fc
  .record({
    link: fc.integer({ min: 1, max: 1000 }),
    shipping: fc.integer({ min: 0, max: 60 }),
    slow: fc.integer({ min: 1, max: 40 }),
    night: fc.option(fc.integer({ min: 1, max: 100 })),
  })
  .map(({ link, shipping, slow, night }) => ({
    raw: {
      link: `${link}MB/s`,
      shipping: `${shipping}%`,
      classes: { slow: `${slow * link * 10}KB/s` },
      ...(night && { schedule: [{ from: '22:00', to: '06:00', link: `${link + night}MB/s` }] }),
    },
    expected: {
      link: link * 1e6,
      shipping: shipping / 100,
      classes: { slow: slow * link * 1e4 },
      schedule: night ? [{ from: '22:00', to: '06:00', link: (link + night) * 1e6 }] : [],
    },
  }));

/** A config as written, and what reading it must give. */
const written = fc
  .record({
    cluster: name,
    node: fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,12}$/),
    stateDir: path,
    onEtcdLoss: fc.constantFrom('continue', 'stop'),
    ttl: fc.option(fc.integer({ min: 2, max: 300 })),
    stores: fc.dictionary(name, fc.record({ path, prefix: fc.constantFrom('', 'prod', 'a/b.c') }), {
      minKeys: 1,
      maxKeys: 3,
    }),
    limits: fc.option(limits),
    plan: fc.record({
      delay,
      count: fc.option(fc.nat()),
      ack: fc.nat(),
      order: fc.boolean(),
      class: fc.constantFrom('slow', 'standard', 'fast'),
    }),
    logLevel: fc.constantFrom(null, 'debug' as const, 'warn' as const),
    streams: fc.dictionary(
      name,
      fc.record({
        encrypt: fc.boolean(),
        keep: fc.option(keep),
        dir: path,
        type: fc.constantFrom('mariadb', 'mysql'),
        size,
        delay,
        store: fc.nat(),
        viaPlan: fc.boolean(),
      }),
      { minKeys: 1, maxKeys: 3 },
    ),
  })
  .map((given) => {
    const stores = Object.keys(given.stores);
    const planTo = (primary: string) => {
      const copies = stores.filter((store) => store !== primary);
      const count = given.plan.count === null || copies.length === 0 ? null : 1 + (given.plan.count % copies.length);
      const order = given.plan.order ? copies.slice(-1) : [];
      const ack = 1 + (given.plan.ack % (1 + (count ?? copies.length)));
      return {
        raw: {
          ...{ primary, copies, order, ack, class: given.plan.class, delay: given.plan.delay.text },
          ...(count !== null && { count }),
        },
        expected: {
          ...{ primary, copies, order, ack, class: given.plan.class },
          ...{ count: count ?? copies.length, delayMs: given.plan.delay.value },
        } satisfies PlanConfig,
      };
    };
    const streams = Object.entries(given.streams).map(([stream, what]) => ({
      stream,
      ...what,
      primary: stores[what.store % stores.length]!,
    }));
    const raw = {
      cluster: given.cluster,
      node: given.node,
      stateDir: given.stateDir,
      onEtcdLoss: given.onEtcdLoss,
      ...(given.logLevel !== null && { log: { level: given.logLevel } }),
      ...(given.limits && { limits: given.limits.raw }),
      coordination:
        given.ttl === null ? 'solo' : { etcd: { endpoints: ['http://127.0.0.1:2379'], ttl: `${given.ttl}s` } },
      stores: Object.fromEntries(
        Object.entries(given.stores).map(([store, where]) => [store, { type: 'file', ...where }]),
      ),
      plans: Object.fromEntries(stores.map((store) => [`to-${store}`, planTo(store).raw])),
      streams: Object.fromEntries(
        streams.map(({ stream, type, dir, primary, viaPlan, encrypt, keep, size: maxBytes, delay: maxDelay }) => [
          stream,
          {
            source: { type, dir },
            ...(viaPlan ? { plan: `to-${primary}` } : { store: primary }),
            chunk: { maxBytes: maxBytes.text, maxDelay: maxDelay.text },
            ...(encrypt && { encrypt: { recipients: [RECIPIENT] } }),
            ...(keep && { keep: { ...keep, ...(keep.age && { age: keep.age.text }) } }),
          },
        ]),
      ),
    };
    const expected: Config = {
      cluster: given.cluster,
      node: given.node,
      stateDir: given.stateDir,
      onEtcdLoss: given.onEtcdLoss === 'stop' ? 'stop' : 'continue',
      coordination:
        given.ttl === null
          ? { kind: 'solo' }
          : { kind: 'etcd', endpoints: ['http://127.0.0.1:2379'], ttlMs: given.ttl * 1000 },
      stores: Object.fromEntries(
        Object.entries(given.stores).map(([store, where]) => [store, { type: 'file', ...where }]),
      ),
      streams: Object.fromEntries(
        streams.map(({ stream, type, dir, primary, viaPlan, encrypt, keep, size: maxBytes, delay: maxDelay }) => [
          stream,
          {
            name: stream,
            source: { type: type === 'mysql' ? 'mysql' : 'mariadb', dir },
            plan: viaPlan ? planTo(primary).expected : { ...TO_STORE, primary },
            chunk: { maxBytes: maxBytes.value, maxDelayMs: maxDelay.value },
            recipients: encrypt ? [RECIPIENT] : [],
            keep: keepOf(keep),
          },
        ]),
      ),
      limits: given.limits?.expected ?? null,
      admin: null,
      logLevel: given.logLevel ?? 'info',
    };
    return { raw, expected };
  });

describe('any config', () => {
  test('is read as it was written', () => {
    fc.assert(fc.property(written, ({ raw, expected }) => expect(read(raw)).toEqual(expected)));
  });

  test('is refused with a key that nobody knows, at whatever depth, by its path and the nearest name', () => {
    const known: Record<string, string> = {
      onEtcdLoss: '',
      stateDir: '',
      maxBytes: 'streams.*.chunk.',
      source: 'streams.*.',
      prefix: 'stores.*.',
      copies: 'plans.*.',
      delay: 'plans.*.',
    };
    const misspelt = fc.record({ config: written, key: fc.constantFrom(...Object.keys(known)), at: fc.nat() });
    fc.assert(
      fc.property(misspelt, ({ config: { raw }, key, at }) => {
        const wrong = `${key.slice(0, at % key.length)}x${key.slice(at % key.length)}`;
        const prefix = known[key]!.replace('*', 'NAME');
        const all = { stores: raw.stores, plans: raw.plans, streams: raw.streams };
        const within = Object.entries(all).find(([part]) => prefix.startsWith(part));
        const inside = Object.keys(within?.[1] ?? {})[0] ?? '';
        const parent = prefix
          .split('.')
          .filter(Boolean)
          .reduce<Raw>((node, step) => node[step === 'NAME' ? inside : step] as Raw, raw);
        parent[wrong] = 'x';
        const { message, hint } = refusal(raw);
        expect(message).toContain(`${prefix.replace('NAME', inside)}${wrong}: unknown key`);
        expect(hint).toBe(`did you mean "${key}"?`);
      }),
    );
  });
});
