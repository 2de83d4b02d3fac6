import { describe, expect, test } from '@jest/globals';
import { stringify } from 'yaml';
import { parseConfig, sharedDigest } from '../../src/config.ts';
import { UsageError } from '../../src/errors.ts';

const read = (store: object) => {
  const config = {
    cluster: 'acme',
    coordination: 'solo',
    stores: { main: { type: 'gcs', bucket: 'acme-logs', ...store } },
    streams: { orders: { source: { type: 'mariadb', dir: '/var/lib/mysql' }, store: 'main' } },
  };
  return parseConfig(stringify(config), { file: 'shipmate.yaml', environment: {} });
};

function refusal(store: object): UsageError {
  try {
    read(store);
  } catch (error) {
    if (error instanceof UsageError) return error;
    throw error;
  }
  throw new Error('the config was accepted');
}

const digest = (store: object) => {
  const config = read(store);
  return sharedDigest(config, config.streams.orders!);
};

describe('the config of a GCS store', () => {
  test('needs a bucket alone', () => {
    expect(read({}).stores.main).toEqual({ type: 'gcs', bucket: 'acme-logs', prefix: '' });
  });

  test('may say more', () => {
    const keyFile = '/etc/shipmate/key.json';
    const given = { prefix: 'prod/', storageClass: 'NEARLINE', keyFile, apiEndpoint: 'https://gcs.example.com/' };
    expect(read(given).stores.main).toMatchObject({ ...given, prefix: 'prod', apiEndpoint: 'https://gcs.example.com' });
  });

  test.each<[object, string]>([
    [{ bucket: undefined }, 'stores.main.bucket: is missing'],
    [{ bucket: 'gs://acme-logs' }, 'stores.main.bucket: is not a valid bucket name'],
    [{ bucket: 'acme-logs/prod' }, 'stores.main.bucket: is not a valid bucket name'],
    [{ bucket: 'Acme' }, 'stores.main.bucket: is not a valid bucket name'],
    [{ apiEndpoint: '127.0.0.1:4443' }, 'stores.main.apiEndpoint: must be a URL such as'],
    [{ storageClass: 'WARM' }, 'stores.main.storageClass: must be one of STANDARD, NEARLINE, COLDLINE, ARCHIVE'],
    [{ keyFile: 'key.json' }, 'stores.main.keyFile: must be an absolute path'],
    [{ keyFile: '/k.json', apiEndpoint: 'http://127.0.0.1:1' }, 'stores.main.apiEndpoint: must be https'],
    [{ path: '/mnt/backup' }, 'stores.main.path: unknown key'],
  ])('%j is refused', (store, why) => {
    const { message } = refusal(store);
    expect(message).toContain(why);
    expect(message).toMatch(/^shipmate\.yaml, line \d+: /);
  });

  test('a misspelt key is named with the nearest', () => {
    expect(refusal({ buckte: 'x' }).hint).toBe('did you mean "bucket"?');
    expect(refusal({ storageclass: 'STANDARD' }).hint).toBe('did you mean "storageClass"?');
  });

  test('an endpoint never shows a password', () => {
    const { message } = refusal({ apiEndpoint: 'https://me:secret@gcs.example.com' });
    expect(message).toContain('must not hold a user or password');
    expect(message).not.toContain('secret');
  });

  test('twins agree on the bucket and the prefix, not on how each reaches them', () => {
    for (const store of [{ bucket: 'other' }, { prefix: 'prod' }]) expect(digest(store)).not.toBe(digest({}));
    for (const store of [
      { apiEndpoint: 'http://127.0.0.1:4443' },
      { keyFile: '/etc/shipmate/key.json' },
      { storageClass: 'NEARLINE' },
    ]) {
      expect(digest(store)).toBe(digest({}));
    }
  });
});
