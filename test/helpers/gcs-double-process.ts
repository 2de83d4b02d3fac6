import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { GcsDouble, GcsDoubleOptions } from './gcs-double.ts';

/** A double in a process of its own. */
export interface GcsDoubleProcess extends GcsDouble {
  readonly pid: number;
  /** SIGSTOP: connections stand, and nothing answers, as behind a cut network. */
  freeze(): void;
  thaw(): void;
}

type ProcessOptions = Pick<GcsDoubleOptions, 'port' | 'buckets' | 'latencyMs' | 'dir' | 'pageSize'>;

/** Starts `node test/helpers/gcs-double.ts`; it ends with the process that started it, however that ends. */
export async function spawnGcsDouble(options: ProcessOptions = {}): Promise<GcsDoubleProcess> {
  const { port = 0, buckets = [], latencyMs = 0, dir, pageSize } = options;
  const args = [
    ...['--port', String(port), '--latency-ms', String(latencyMs)],
    ...buckets.flatMap((bucket) => ['--bucket', bucket]),
    ...(dir === undefined ? [] : ['--dir', dir]),
    ...(pageSize === undefined ? [] : ['--page-size', String(pageSize)]),
  ];
  const program = join(import.meta.dirname, 'gcs-double.ts');
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', process.execPath, program, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = await Promise.race([
    once(createInterface({ input: child.stdout }), 'line'),
    once(child, 'exit').then(([code]) => {
      throw new Error(`the double ended with ${code}`);
    }),
  ]);
  const { url }: { url: string } = JSON.parse(line);
  return ruled(child, url);
}

function ruled(child: ChildProcess, url: string): GcsDoubleProcess {
  const control = async (what: string, given: unknown): Promise<string> => {
    const response = await fetch(`${url}/double/${what}`, { method: 'POST', body: JSON.stringify(given) });
    if (!response.ok) throw new Error(`the double answers ${response.status}`);
    return response.text();
  };
  return {
    url,
    pid: child.pid!,
    setFaults: async (plan) => void (await control('faults', plan)),
    deny: async (permissions) => void (await control('deny', permissions)),
    setLatency: async (ms) => void (await control('latency', ms)),
    counters: async (options = {}) => JSON.parse(await control('counters', options)),
    freeze: () => void child.kill('SIGSTOP'),
    thaw: () => void child.kill('SIGCONT'),
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const gone = once(child, 'exit');
      child.kill('SIGKILL');
      await gone;
    },
  };
}
