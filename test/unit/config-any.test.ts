import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { stringify } from 'yaml';
import { type Config, parseConfig } from '../../src/config.ts';
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
    streams: fc.dictionary(
      name,
      fc.record({
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
      coordination:
        given.ttl === null ? 'solo' : { etcd: { endpoints: ['http://127.0.0.1:2379'], ttl: `${given.ttl}s` } },
      stores: Object.fromEntries(
        Object.entries(given.stores).map(([store, where]) => [store, { type: 'file', ...where }]),
      ),
      plans: Object.fromEntries(stores.map((store) => [`to-${store}`, { primary: store }])),
      streams: Object.fromEntries(
        streams.map(({ stream, type, dir, primary, viaPlan, size: maxBytes, delay: maxDelay }) => [
          stream,
          {
            source: { type, dir },
            ...(viaPlan ? { plan: `to-${primary}` } : { store: primary }),
            chunk: { maxBytes: maxBytes.text, maxDelay: maxDelay.text },
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
        streams.map(({ stream, type, dir, primary, size: maxBytes, delay: maxDelay }) => [
          stream,
          {
            name: stream,
            source: { type: type === 'mysql' ? 'mysql' : 'mariadb', dir },
            plan: { primary },
            chunk: { maxBytes: maxBytes.value, maxDelayMs: maxDelay.value },
          },
        ]),
      ),
      admin: null,
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
    };
    const misspelt = fc.record({ config: written, key: fc.constantFrom(...Object.keys(known)), at: fc.nat() });
    fc.assert(
      fc.property(misspelt, ({ config: { raw }, key, at }) => {
        const wrong = `${key.slice(0, at % key.length)}x${key.slice(at % key.length)}`;
        const inside = known[key]!.startsWith('stores') ? Object.keys(raw.stores)[0]! : Object.keys(raw.streams)[0]!;
        const prefix = known[key]!.replace('*', 'NAME');
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
