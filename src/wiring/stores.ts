import { type Config, type StoreConfig, storeOf } from '../config.ts';
import type { ObjectStore } from '../store/store.ts';

/** A store of the config by its name. Loads its own kind alone: what recovery asks for must start fast. */
export async function openStore(config: Config, name: string): Promise<ObjectStore> {
  const store = storeOf(config, name);
  if (store.type === 'file') return (await import('../store/file.ts')).openFileStore({ name, ...store });
  const bucket = await openBucket(name, store);
  return store.quota === undefined
    ? bucket
    : (await import('../store/quota.ts')).withQuota(bucket, { bytes: store.quota });
}

async function openBucket(name: string, store: Exclude<StoreConfig, { type: 'file' }>): Promise<ObjectStore> {
  if (store.type === 'gcs') return (await import('../store/gcs.ts')).openGcsStore({ name, ...store });
  if (store.type === 's3') return (await import('../store/s3.ts')).openS3Store({ name, ...store });
  return (await import('../store/azure.ts')).openAzureStore({ name, ...store });
}
