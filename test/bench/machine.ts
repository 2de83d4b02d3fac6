import { open, rm } from 'node:fs/promises';
import { cpus, loadavg, release, tmpdir, totalmem, type } from 'node:os';
import { join } from 'node:path';
import { MIB, median, round } from './figures.ts';

/** What figures depend on. */
export interface Machine {
  readonly cpu: string;
  readonly memoryMib: number;
  readonly system: string;
  readonly node: string;
  /** Processes that wanted to run in the last minute before the bench. */
  readonly load: number;
  /** Median time of a write of 4 KiB and its fsync, where the bench has its files. */
  readonly fsyncMs: number;
}

export async function describeMachine(): Promise<Machine> {
  const [cpu] = cpus();
  return {
    cpu: `${cpus().length} × ${cpu?.model}`,
    memoryMib: Math.round(totalmem() / MIB),
    system: `${type()} ${release()}`,
    node: process.version,
    load: round(loadavg()[0]!, 1),
    fsyncMs: round(await measureFsync()),
  };
}

async function measureFsync(): Promise<number> {
  const path = join(tmpdir(), `shipmate-bench-fsync-${process.pid}`);
  const file = await open(path, 'w');
  try {
    const tookMs: number[] = [];
    for (let n = 0; n < 50; n++) {
      const beganMs = performance.now();
      await file.write(Buffer.alloc(4_096), 0, 4_096, n * 4_096);
      await file.sync();
      tookMs.push(performance.now() - beganMs);
    }
    return median(tookMs);
  } finally {
    await file.close();
    await rm(path);
  }
}
