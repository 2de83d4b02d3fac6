import { z } from 'zod';
import { namesNobody, object, path, size, withHint } from './values.ts';

const prefix = z
  .string()
  .regex(/^([A-Za-z0-9_-][A-Za-z0-9._-]*(\/[A-Za-z0-9_-][A-Za-z0-9._-]*)*\/?)?$/, 'must be names with "/" between them')
  .transform((given) => given.replace(/\/$/, ''))
  .meta({ title: 'names with "/" between them' });
const namePrefix = prefix.prefault('').describe('What all names there begin with, as a directory.');

const fileStore = object({
  type: z.literal('file').describe('A directory.'),
  path: path.describe('An existing directory. It is never created, so that a lost mount is seen.'),
  prefix: prefix.prefault('').describe('A directory below it, made when it is needed.'),
});

const quota = size({ min: '1MiB', max: '1000TiB' }).describe(
  "How much the archives there may take, where a plan's copies go to the store with the most room. By default no limit.",
);

const BUCKET = /^[a-z0-9](?!.*\.\.)[a-z0-9._-]{1,220}[a-z0-9]$/;
const ACCESS_TIERS = ['Hot', 'Cool', 'Cold'] as const;
const STORAGE_CLASSES = ['STANDARD', 'NEARLINE', 'COLDLINE', 'ARCHIVE'] as const;

const endpoint = (like: string) =>
  z
    .url({ protocol: /^https?$/, hostname: /^.+$/, error: `must be a URL such as ${like}` })
    .refine(namesNobody, 'must not hold a user or password')
    .transform((url) => url.replace(/\/+$/, ''))
    .meta({ title: 'URL, http or https' });

const gcsStore = object({
  type: z.literal('gcs').describe('A bucket of Google Cloud Storage.'),
  bucket: z
    .string()
    .regex(
      BUCKET,
      withHint('is not a valid bucket name', 'the name alone, without gs:// and without a path, such as acme-logs'),
    )
    .meta({ title: 'bucket name', description: 'An existing bucket. It is never created.' }),
  prefix: namePrefix,
  apiEndpoint: endpoint('http://127.0.0.1:4443')
    .exactOptional()
    .describe("Of a private endpoint, or an emulator: to one with http no credentials are shown. By default Google's."),
  storageClass: z.enum(STORAGE_CLASSES).exactOptional().describe("Of new objects. By default the bucket's."),
  keyFile: path.exactOptional().describe("Credentials, a JSON file. By default the environment's."),
  quota: quota.exactOptional(),
}).refine(({ apiEndpoint, keyFile }) => keyFile === undefined || !apiEndpoint?.startsWith('http:'), {
  path: ['apiEndpoint'],
  message: 'must be https, since "keyFile" is given',
});

const s3Store = object({
  type: z.literal('s3').describe('A bucket of S3, or of a server that speaks its protocol.'),
  bucket: z
    .string()
    .regex(
      /^[a-z0-9](?!.*\.\.)[a-z0-9.-]{1,61}[a-z0-9]$/,
      withHint('is not a valid bucket name', 'the name alone, without s3:// and without a path, such as acme-logs'),
    )
    .meta({ title: 'bucket name', description: 'An existing bucket. It is never created.' }),
  prefix: namePrefix,
  region: z
    .string()
    .regex(/^[a-z0-9-]+$/, 'must be a region such as eu-central-1')
    .exactOptional()
    .meta({ title: 'region', description: "Of the bucket. By default the environment's." }),
  endpoint: endpoint('https://s3.example.com').exactOptional().describe("Of another server. By default AWS's."),
  forcePathStyle: z
    .boolean()
    .exactOptional()
    .describe("Whether the bucket stands in the path, not in the host's name. By default not."),
  storageClass: z
    .string()
    .regex(/^[A-Z0-9_-]+$/, 'must be a storage class such as STANDARD_IA')
    .exactOptional()
    .meta({ title: 'storage class', description: 'Of new objects, such as "STANDARD_IA". By default the bucket\'s.' }),
  quota: quota.exactOptional(),
});

const azureStore = object({
  type: z.literal('azure').describe('A container of Azure Blob Storage.'),
  container: z
    .string()
    .regex(
      /^[a-z0-9](?!.*--)[a-z0-9-]{1,61}[a-z0-9]$/,
      withHint('is not a valid container name', 'the name alone, without the account and without a path'),
    )
    .meta({ title: 'container name', description: 'An existing container. It is never created.' }),
  prefix: namePrefix,
  account: z
    .string()
    .regex(/^[a-z0-9]{3,24}$/, 'must be the name of a storage account')
    .exactOptional()
    .meta({
      title: 'account name',
      description:
        'The storage account; credentials are those of the environment. Exactly one of this, "endpoint" and ' +
        '"connectionStringFile".',
    }),
  endpoint: endpoint('https://acme.blob.core.windows.net')
    .refine((url) => url.startsWith('https:'), 'must be https: an emulator is named by "connectionStringFile"')
    .exactOptional()
    .meta({ title: 'URL, https', description: 'The account by its address, where it has another than usual.' }),
  connectionStringFile: path
    .exactOptional()
    .describe('The account by a file whose first line is its connection string, with its key.'),
  accessTier: z.enum(ACCESS_TIERS).exactOptional().describe("Of new objects. By default the account's."),
  quota: quota.exactOptional(),
}).refine(
  (store) =>
    [store.account, store.endpoint, store.connectionStringFile].filter((one) => one !== undefined).length === 1,
  'needs exactly one of "account", "endpoint" and "connectionStringFile"',
);

export const store = z.discriminatedUnion('type', [fileStore, gcsStore, s3Store, azureStore]);
