import { describe, expect, test } from '@jest/globals';
import { stringify } from 'yaml';
import { parseConfig, sharedDigest } from '../../src/config.ts';

const read = (store: object) => {
  const config = {
    cluster: 'acme',
    coordination: 'solo',
    stores: { main: store },
    streams: { orders: { source: { type: 'mariadb', dir: '/var/lib/mysql' }, store: 'main' } },
  };
  return parseConfig(stringify(config), { file: 'shipmate.yaml', environment: {} });
};
const digest = (store: object) => {
  const config = read(store);
  return sharedDigest(config, config.streams.orders!);
};
const s3 = { type: 's3', bucket: 'acme-logs' };
const azure = { type: 'azure', container: 'logs', account: 'acme' };

describe('the config of an S3 or Azure store', () => {
  test('needs little, and may say more', () => {
    expect(read(s3).stores.main).toEqual({ ...s3, prefix: '' });
    expect(read(azure).stores.main).toEqual({ ...azure, prefix: '' });
    const own = { ...s3, region: 'eu-central-1', endpoint: 'https://s3.example.com/', forcePathStyle: true };
    expect(read(own).stores.main).toMatchObject({ endpoint: 'https://s3.example.com', forcePathStyle: true });
  });

  test.each<[object, string]>([
    [{ ...s3, bucket: 's3://acme-logs' }, 'stores.main.bucket: is not a valid bucket name'],
    [{ ...s3, endpoint: 's3.example.com' }, 'stores.main.endpoint: must be a URL such as'],
    [{ ...s3, secretAccessKey: 'x' }, 'stores.main.secretAccessKey: unknown key'],
    [{ ...azure, container: 'Logs' }, 'stores.main.container: is not a valid container name'],
    [{ type: 'azure', container: 'logs' }, 'needs exactly one of "account", "endpoint" and "connectionStringFile"'],
    [{ ...azure, connectionStringFile: '/etc/shipmate/azure' }, 'needs exactly one of'],
    [{ type: 'azure', container: 'logs', endpoint: 'http://127.0.0.1:10000/a' }, 'must be https'],
    [{ ...azure, accessTier: 'Archive' }, 'stores.main.accessTier: must be one of Hot, Cool, Cold'],
  ])('%j is refused', (store, why) => {
    expect(() => read(store)).toThrow(why);
  });

  test('twins agree on the place, not on how each reaches it', () => {
    for (const other of [{ bucket: 'other' }, { prefix: 'prod' }]) {
      expect(digest({ ...s3, ...other })).not.toBe(digest(s3));
    }
    expect(digest({ ...azure, container: 'other' })).not.toBe(digest(azure));
    expect(digest({ ...s3, region: 'eu-west-1', storageClass: 'STANDARD_IA' })).toBe(digest(s3));
    const { account: _, ...rest } = azure;
    expect(digest({ ...rest, connectionStringFile: '/etc/shipmate/azure' })).toBe(digest(azure));
  });
});
