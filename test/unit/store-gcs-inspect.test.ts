import { afterEach, describe, expect, test } from '@jest/globals';
import { inspectBucket } from '../../src/store/gcs/inspect.ts';
import { type GcsDouble, type GcsDoubleOptions, startGcsDouble } from '../helpers/gcs-double.ts';

let double: GcsDouble;
afterEach(() => double.stop());

async function inspect(options: GcsDoubleOptions & { denied?: string[]; bucket?: string; prefix?: string } = {}) {
  const { denied = [], bucket = 'archive', prefix = 'prod', ...rest } = options;
  double = await startGcsDouble(rest);
  await double.deny(denied);
  return inspectBucket({ name: 'main', bucket, prefix, apiEndpoint: double.url });
}

describe('shipmate check of a bucket', () => {
  test('names every permission that is missing, and none that is not needed', async () => {
    const denied = ['storage.objects.get', 'storage.objects.list', 'storage.objects.delete'];
    const findings = await inspect({ denied });
    expect(findings.map(({ level }) => level)).toEqual(['error', 'error']);
    expect(findings[0]!.hint).toContain('grant this account storage.objects.get on the bucket');
    expect(findings[1]!.hint).toContain('grant this account storage.objects.list on the bucket');
  });

  test('is content with the three, and says what it cannot see', async () => {
    const findings = await inspect({ denied: ['storage.objects.delete'] });
    expect(findings.map(({ level }) => level)).toEqual(['ok', 'ok']);
    expect(findings[1]!.message).toContain('storage.buckets.get');
  });

  test('tells that the bucket is not there', async () => {
    await expect(inspect({ bucket: 'acme-lgos' })).rejects.toMatchObject({ code: 'STORE_MISSING' });
  });

  test.each([
    ['deletes everything', {}, true],
    ['deletes below the prefix', { matchesPrefix: ['prod/orders/'] }, true],
    ['deletes above it', { matchesPrefix: ['pr'] }, true],
    ['deletes elsewhere', { matchesPrefix: ['tmp/', 'production/'] }, false],
    ['deletes old versions', { isLive: false }, false],
  ])('a lifecycle rule that %s', async (_, condition, warns) => {
    const settings = { lifecycle: { rule: [{ action: { type: 'Delete' }, condition: { age: 30, ...condition } }] } };
    const findings = await inspect({ settings });
    expect(findings.some(({ level, message }) => level === 'warning' && message.includes('lifecycle'))).toBe(warns);
  });

  test('tells what a retention policy and soft deletion mean', async () => {
    const settings = {
      retentionPolicy: { retentionPeriod: String(30 * 86_400) },
      softDeletePolicy: { retentionDurationSeconds: String(7 * 86_400) },
      lifecycle: { rule: [{ action: { type: 'SetStorageClass', storageClass: 'COLDLINE' }, condition: { age: 30 } }] },
    };
    const findings = await inspect({ settings });
    expect(findings.map(({ level }) => level)).not.toContain('warning');
    expect(findings.map(({ message }) => message).join('; ')).toMatch(/for 30 days.*for 7 days/);
  });
});
