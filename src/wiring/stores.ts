import { type Config, type StoreConfig, storeOf } from '../config.ts';
import type { ObjectStore } from '../store/store.ts';
import { inTurns, Turns } from '../store/turns.ts';

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

/** libuv's own, where nothing says otherwise; bin/shipmate does. */
const THREADS = 4;

/** All streams' stores in one directory take turns: a quarter of the process's threads may hang in it, and no more. */
export function turnsAtDirectories(threads = Number(process.env.UV_THREADPOOL_SIZE) || THREADS) {
  const turns = new Map<string, Turns>();
  return (store: ObjectStore, config: StoreConfig): ObjectStore => {
    if (config.type !== 'file') return store;
    const own = turns.get(config.path) ?? new Turns(Math.max(2, Math.floor(threads / 4)));
    turns.set(config.path, own);
    return inTurns(store, own);
  };
}
