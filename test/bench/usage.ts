import { readFile } from 'node:fs/promises';

/** What the kernel has counted for a process up to now. */
export interface Usage {
  /** Processor time, user and system, of all threads. */
  readonly cpuSeconds: number;
  readonly maxRssMib: number;
}

/** Linux tells programs so, whatever it counts in itself. */
const TICKS_PER_SECOND = 100;

export async function usageOf({ pid }: { readonly pid: number }): Promise<Usage> {
  const [stat, status] = await Promise.all([
    readFile(`/proc/${pid}/stat`, 'utf8'),
    readFile(`/proc/${pid}/status`, 'utf8'),
  ]);
  const [user, system] = stat
    .replace(/^.*\) /, '')
    .split(' ')
    .slice(11, 13);
  const maxRssKib = /^VmHWM:\s+(\d+) kB/m.exec(status)?.[1];
  return { cpuSeconds: (Number(user) + Number(system)) / TICKS_PER_SECOND, maxRssMib: Number(maxRssKib) / 1024 };
}
