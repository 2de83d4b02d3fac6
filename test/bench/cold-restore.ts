import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Archive } from '../../src/archive/walk.ts';
import { ChunkReader } from '../../src/restore/chunks.ts';
import { planRestore } from '../../src/restore/plan.ts';
import { silent } from '../../src/restore/progress.ts';
import { readSummary } from '../../src/restore/reading.ts';
import { restore } from '../../src/restore/restore.ts';
import type { Until } from '../../src/source/source.ts';
import type { ObjectStore } from '../../src/store/store.ts';
import { fakeFormat, writeMs } from '../fakes/fake-format.ts';
import { type Figure, MIB, type Report, round } from './figures.ts';
import { GeneratedArchive, type Shape } from './generated-archive.ts';

export interface ColdRestoreOptions {
  /** In the archive; 600,000 are a week at one a second. */
  readonly chunks?: number;
  /** Added to each of the store's requests. */
  readonly requestMs?: number;
}

const HOUR_CHUNKS = 3_600;
/** What a store lists with one request. */
const PAGE_KEYS = 1_000;

interface Counts {
  requests: number;
  listedKeys: number;
  mostAtOnce: number;
}

/** Restores an hour from the middle of a week's archive, from a store that is far away. */
export async function benchColdRestore(options: ColdRestoreOptions = {}): Promise<Report> {
  const { chunks = 600_000, requestMs = 50 } = options;
  const shape: Shape = { chunks, terms: 48, chunksPerSegment: 2_000 };
  const generated = new GeneratedArchive(shape);
  const counts: Counts = { requests: 0, listedKeys: 0, mostAtOnce: 0 };
  const archive: Archive = { store: farAway(generated, requestMs, counts), info: generated.archive.info };
  const middle = Math.floor(chunks / 2);
  const from = GeneratedArchive.idOf(middle);
  const until: Until = { kind: 'time', ms: writeMs(middle + HOUR_CHUNKS) };
  const reader = new ChunkReader(archive);
  const format = fakeFormat();

  const directory = join(await mkdtemp(join(tmpdir(), 'shipmate-cold-')), 'restored');
  try {
    const begunMs = performance.now();
    const summary = await readSummary(archive, silent, { from, until }, format);
    const headersMs = performance.now() - begunMs;
    const forHeaders = { ...counts };
    const plan = await planRestore({ chunks: reader, format, from, until, afterGap: false, progress: silent });
    const plannedMs = performance.now() - begunMs - headersMs;
    const first = new AbortController();
    const firstByte = whenWritten(directory, first.signal);
    const wroteBytes = await restore(plan, { chunks: reader, format, directory, progress: silent });
    const restoredMs = performance.now() - begunMs - headersMs;
    first.abort();
    const firstByteMs = (await firstByte) - begunMs - headersMs;
    const objects = summary.reader.terms.reduce((sum, term) => sum + term.chunks, 0);
    const rssMib = process.resourceUsage().maxRSS / 1024;
    const figures: Figure[] = [
      { what: 'chunks wanted, whole files of them', value: objects, unit: '' },
      { what: 'their headers known', value: round(headersMs / 1000), unit: 's' },
      { what: 'requests for that', value: forHeaders.requests, unit: '' },
      { what: 'keys listed for that', value: forHeaders.listedKeys, unit: '' },
      { what: 'start and target found in the bytes', value: round(plannedMs / 1000), unit: 's' },
      { what: 'first byte written', value: round(firstByteMs / 1000), unit: 's', atMost: 5 },
      { what: 'restored', value: round(restoredMs / 1000), unit: 's' },
      { what: 'of the log', value: round(wroteBytes / MIB), unit: 'MiB' },
      { what: 'requests at once, at most', value: counts.mostAtOnce, unit: '' },
      { what: 'resident memory, at most, the archive’s making included', value: round(rssMib, 0), unit: 'MiB' },
    ];
    const title = `an hour from the middle of ${chunks} objects, ${requestMs} ms a request`;
    return {
      title,
      figures,
      data: { chunks, requestMs, shape, headersMs, plannedMs, firstByteMs, restoredMs, forHeaders },
    };
  } finally {
    await rm(join(directory, '..'), { recursive: true });
  }
}

/** When the first byte of the log stands in a file there, monotonic, milliseconds. */
async function whenWritten(directory: string, over: AbortSignal): Promise<number> {
  for (;;) {
    const files = await readdir(directory).catch(() => []);
    const logs = files.filter((name) => name.startsWith('log.') && name !== 'log.index');
    const sizes = await Promise.all(logs.map(async (name) => (await stat(join(directory, name))).size));
    if (over.aborted || sizes.some((size) => size > 0)) return performance.now();
    await delay(5);
  }
}

/** The store with a delay before each request's answer; a listing asks once for each page. */
function farAway(store: ObjectStore, requestMs: number, counts: Counts): ObjectStore {
  let atOnce = 0;
  async function ask<T>(answer: () => Promise<T>): Promise<T> {
    counts.requests++;
    counts.mostAtOnce = Math.max(counts.mostAtOnce, ++atOnce);
    await delay(requestMs);
    atOnce--;
    return answer();
  }
  return {
    name: store.name,
    create: (key, body, signal) => ask(() => store.create(key, body, signal)),
    read: (key, range) => ask(() => store.read(key, range)),
    readStart: (key, maxBytes) => ask(() => store.readStart(key, maxBytes)),
    head: (key) => ask(() => store.head(key)),
    async *list(prefix, from) {
      let keys = 0;
      await ask(async () => {});
      for await (const object of store.list(prefix, from)) {
        if (keys > 0 && keys % PAGE_KEYS === 0) await ask(async () => {});
        keys++;
        counts.listedKeys++;
        yield object;
      }
    },
    delete: (keys) => ask(() => store.delete(keys)),
    capacity: () => store.capacity(),
  };
}
