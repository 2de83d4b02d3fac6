import { connectToGcs, type GcsStoreOptions, openGcsStore } from '../gcs.ts';
import { inspectReading, type StoreFinding } from '../inspect.ts';
import { BucketPaths } from './bucket.ts';
import { jsonOf } from './connection.ts';

/** What a daemon, or a restore, could not read in a bucket, and what the bucket does with objects by itself. */
export async function inspectBucket(options: GcsStoreOptions): Promise<StoreFinding[]> {
  const readable = await inspectReading(openGcsStore(options));
  if (readable.some(({ level }) => level === 'error')) return readable;
  return [...readable, ...(await habitsOf(options))];
}

interface Bucket {
  readonly lifecycle?: { readonly rule?: readonly LifecycleRule[] };
  readonly retentionPolicy?: { readonly retentionPeriod?: string };
  readonly softDeletePolicy?: { readonly retentionDurationSeconds?: string };
}

interface LifecycleRule {
  readonly action?: { readonly type?: string };
  readonly condition?: { readonly matchesPrefix?: readonly string[]; readonly isLive?: boolean };
}

/** What is set on the bucket, where this account may see it: it needs no right to. */
async function habitsOf(options: GcsStoreOptions): Promise<StoreFinding[]> {
  const path = pathsOf(options).bucket('fields=lifecycle,retentionPolicy,softDeletePolicy');
  const action = 'look at the bucket';
  const answer = await connectToGcs(options).ask({ action, method: 'GET', path });
  if (answer.status !== 200) {
    const unseen = "whether a lifecycle rule deletes objects can't be seen without storage.buckets.get";
    return [{ level: 'ok', message: `${unseen}; the daemon does not need it` }];
  }
  const bucket: Bucket = jsonOf(options.name, action, answer);
  const days = (seconds: string | undefined) => Math.round(Number(seconds ?? 0) / 86_400);
  const kept = days(bucket.retentionPolicy?.retentionPeriod);
  const soft = days(bucket.softDeletePolicy?.retentionDurationSeconds);
  const deletes = (bucket.lifecycle?.rule ?? []).some((rule) => mayDelete(rule, options.prefix ?? ''));
  return [
    ...(deletes ? [DELETES] : []),
    ...(kept > 0
      ? [{ level: 'ok' as const, message: `its retention policy lets nobody delete objects for ${kept} days` }]
      : []),
    ...(soft > 0 ? [{ level: 'ok' as const, message: `what is deleted can be restored for ${soft} days` }] : []),
  ];
}

const DELETES: StoreFinding = {
  level: 'warning',
  message: 'a lifecycle rule of the bucket deletes objects, and an archive has a hole where one is missing',
  hint: 'remove the rule, or limit it to other prefixes with matchesPrefix',
};

/** Whether it deletes what is below a prefix; objects that are not live any more are none of ours. */
function mayDelete({ action, condition = {} }: LifecycleRule, prefix: string): boolean {
  if (action?.type !== 'Delete' || condition.isLive === false) return false;
  const { matchesPrefix = [''] } = condition;
  const ours = prefix === '' ? '' : `${prefix}/`;
  return matchesPrefix.some((other) => ours.startsWith(other) || other.startsWith(ours));
}

const pathsOf = ({ bucket, prefix = '' }: GcsStoreOptions) => new BucketPaths({ bucket, prefix });
