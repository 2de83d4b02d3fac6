import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DEFAULT_WINDOW } from '../../src/core/archive.ts';
import { spawnGcsDouble } from '../helpers/gcs-double-process.ts';
import type { Figure } from './figures.ts';

export interface GcsBench {
  /** A round trip to the store; 50 ms is a region's, seen from a host outside of it. */
  readonly latencyMs: number;
}

/** A double of Google Cloud Storage in a process of its own. */
export interface BenchStore {
  /** For a daemon's config. */
  readonly store: Readonly<Record<string, unknown>>;
  /** Its objects, in files. */
  readonly storePath: string;
  /** The most uploads that were under way at once since this was asked last, beside the window that bounds them. */
  uploadsAtOnce(): Promise<Figure>;
  stop(): Promise<void>;
}

const BUCKET = 'archive';

export async function startBenchStore({ latencyMs }: GcsBench): Promise<BenchStore> {
  const dir = await mkdtemp(join(tmpdir(), 'shipmate-bench-gcs-'));
  const double = await spawnGcsDouble({ dir, latencyMs });
  return {
    store: { type: 'gcs', bucket: BUCKET, apiEndpoint: double.url },
    storePath: join(dir, BUCKET),
    async uploadsAtOnce() {
      const { maxUploadsInFlight: value } = await double.counters({ reset: true });
      return { what: 'uploads at once, at most', value, unit: '', atMost: DEFAULT_WINDOW };
    },
    async stop() {
      await double.stop();
      await rm(dir, { recursive: true, force: true });
    },
  };
}
