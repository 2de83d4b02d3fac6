import { z } from 'zod';
import { object, path, size, withHint } from './values.ts';

const prefix = z
  .string()
  .regex(/^([A-Za-z0-9_-][A-Za-z0-9._-]*(\/[A-Za-z0-9_-][A-Za-z0-9._-]*)*\/?)?$/, 'must be names with "/" between them')
  .transform((given) => given.replace(/\/$/, ''));

const fileStore = object({
  type: z.literal('file'),
  path: path.describe('An existing directory; it is never created, so that a lost mount is seen.'),
  prefix: prefix.prefault('').describe('Directory below it.'),
});

const quota = size({ min: '1MiB', max: '1000TiB' }).describe(
  'How much the archives in it may take, where copies go to the store with the most room; by default no limit.',
);

const BUCKET = /^[a-z0-9](?!.*\.\.)[a-z0-9._-]{1,220}[a-z0-9]$/;
const ACCESS_TIERS = ['Hot', 'Cool', 'Cold'] as const;
const STORAGE_CLASSES = ['STANDARD', 'NEARLINE', 'COLDLINE', 'ARCHIVE'] as const;

const gcsStore = object({
  type: z.literal('gcs'),
  bucket: z
    .string()
    .regex(
      BUCKET,
      withHint('is not a valid bucket name', 'the name alone, without gs:// and without a path, such as acme-logs'),
    )
    .describe('An existing bucket; it is never created.'),
  prefix: prefix.prefault('').describe('Of all names in it, as a directory.'),
  apiEndpoint: z
    .url({ protocol: /^https?$/, hostname: /^.+$/, error: 'must be a URL such as http://127.0.0.1:4443' })
    .refine((url) => URL.parse(url)?.username === '', 'must not hold a user or password')
    .transform((url) => url.replace(/\/+$/, ''))
    .exactOptional()
    .describe("By default Google's. One with http is an emulator: it is shown no credentials."),
  storageClass: z.enum(STORAGE_CLASSES).exactOptional().describe("Of new objects; by default the bucket's."),
  keyFile: path.exactOptional().describe("Credentials in a JSON file; by default the environment's."),
  quota: quota.exactOptional(),
}).refine(({ apiEndpoint, keyFile }) => keyFile === undefined || !apiEndpoint?.startsWith('http:'), {
  path: ['apiEndpoint'],
  message: 'must be https, since "keyFile" is given',
});

const endpoint = (like: string) =>
  z
    .url({ protocol: /^https?$/, hostname: /^.+$/, error: `must be a URL such as ${like}` })
    .refine((url) => URL.parse(url)?.username === '', 'must not hold a user or password')
    .transform((url) => url.replace(/\/+$/, ''));

const s3Store = object({
  type: z.literal('s3'),
  bucket: z
    .string()
    .regex(
      /^[a-z0-9](?!.*\.\.)[a-z0-9.-]{1,61}[a-z0-9]$/,
      withHint('is not a valid bucket name', 'the name alone, without s3:// and without a path, such as acme-logs'),
    )
    .describe('An existing bucket; it is never created.'),
  prefix: prefix.prefault('').describe('Of all names in it, as a directory.'),
  region: z
    .string()
    .regex(/^[a-z0-9-]+$/, 'must be a region such as eu-central-1')
    .exactOptional()
    .describe("Of the bucket; by default the environment's."),
  endpoint: endpoint('https://s3.example.com').exactOptional().describe("By default AWS's for the region."),
  forcePathStyle: z.boolean().exactOptional().describe("The bucket in the path, not in the host's name."),
  storageClass: z
    .string()
    .regex(/^[A-Z0-9_-]+$/, 'must be a storage class such as STANDARD_IA')
    .exactOptional()
    .describe("Of new objects; by default the bucket's."),
  quota: quota.exactOptional(),
});

const azureStore = object({
  type: z.literal('azure'),
  container: z
    .string()
    .regex(
      /^[a-z0-9](?!.*--)[a-z0-9-]{1,61}[a-z0-9]$/,
      withHint('is not a valid container name', 'the name alone, without the account and without a path'),
    )
    .describe('An existing container; it is never created.'),
  prefix: prefix.prefault('').describe('Of all names in it, as a directory.'),
  account: z
    .string()
    .regex(/^[a-z0-9]{3,24}$/, 'must be the name of a storage account')
    .exactOptional()
    .describe("The storage account; credentials are the environment's."),
  endpoint: endpoint('https://acme.blob.core.windows.net')
    .refine((url) => url.startsWith('https:'), 'must be https: an emulator is named by "connectionStringFile"')
    .exactOptional()
    .describe('The same by its address, where it has another than usual.'),
  connectionStringFile: path.exactOptional().describe('The same by a file, whose first line holds its key too.'),
  accessTier: z.enum(ACCESS_TIERS).exactOptional().describe("Of new objects; by default the account's."),
  quota: quota.exactOptional(),
}).refine(
  (store) =>
    [store.account, store.endpoint, store.connectionStringFile].filter((one) => one !== undefined).length === 1,
  'needs exactly one of "account", "endpoint" and "connectionStringFile"',
);

export const store = z.discriminatedUnion('type', [fileStore, gcsStore, s3Store, azureStore]);
