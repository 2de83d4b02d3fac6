import { expect, test } from '@jest/globals';
import { failure as azureFailure } from '../../src/store/azure/errors.ts';
import { refused } from '../../src/store/gcs/errors.ts';
import { failure as s3Failure } from '../../src/store/s3/errors.ts';

const remove = { what: 'delete orders/terms/00000001/0000000001', right: 'delete' };
const s3Error = (name: string, message: string, httpStatusCode: number) =>
  Object.assign(new Error(message), { name, $metadata: { httpStatusCode } });
const azureError = (code: string, statusCode: number) => Object.assign(new Error(code), { code, statusCode });

test.each([
  [
    'a retention policy of GCS',
    refused('s', remove.what, {
      status: 403,
      reason: 'retentionPolicyNotMet',
      message: 'Object is subject to the policy',
    }),
  ],
  [
    'a hold of GCS',
    refused('s', remove.what, { status: 403, reason: 'objectUnderActiveHold', message: 'Object is under active hold' }),
  ],
  [
    "AWS's object lock",
    s3Failure('s', remove, s3Error('AccessDenied', 'Access Denied because object protected by object lock.', 403)),
  ],
  [
    'the lock of other S3 servers',
    s3Failure('s', remove, s3Error('InvalidRequest', 'Object is WORM protected and cannot be overwritten', 400)),
  ],
  ["Azure's immutability policy", azureFailure('s', remove, azureError('BlobImmutableDueToPolicy', 409))],
  ["Azure's legal hold", azureFailure('s', remove, azureError('BlobImmutableDueToLegalHold', 409))],
])('%s is told from a missing right', (_, error) => {
  expect(error).toMatchObject({ code: 'STORE_LOCKED', verdict: 'fatal', hint: expect.stringContaining('keeps the') });
});

test.each([
  ['GCS', refused('s', remove.what, { status: 403, reason: 'forbidden', message: 'no storage.objects.delete access' })],
  ['S3', s3Failure('s', remove, s3Error('AccessDenied', 'Access Denied', 403))],
  ['Azure', azureFailure('s', remove, azureError('AuthorizationPermissionMismatch', 403))],
])('a missing right at %s is no lock', (_, error) => {
  expect(error).toMatchObject({ code: 'STORE_DENIED', verdict: 'fatal' });
});
