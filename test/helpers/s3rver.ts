import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from './ports.ts';
import { until } from './wait.ts';

const MODULES = join(import.meta.dirname, '..', '..', 'node_modules');

/** A look-alike of S3 that takes `If-None-Match: *` and overwrites all the same. */
export async function startS3rver(): Promise<{ url: string; bucket: string; stop(): Promise<void> }> {
  const dir = await mkdtemp(join(tmpdir(), 'shipmate-s3rver-'));
  const port = String(await freePort());
  const bucket = 'archive';
  const flags = ['-d', dir, '-a', '127.0.0.1', '-p', port, '--configure-bucket', bucket, '--silent'];
  const program = [join(MODULES, '.bin', 'node'), join(MODULES, 's3rver', 'bin', 's3rver.js'), ...flags];
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...program], { stdio: 'ignore' });
  const exited = once(child, 'exit');
  const url = `http://127.0.0.1:${port}`;
  await until('s3rver answers', async () => (await fetch(url)).status > 0, {
    withinMs: 30_000,
    describe: () => `it ended with ${child.exitCode}`,
  });
  return {
    url,
    bucket,
    async stop() {
      child.kill('SIGKILL');
      await exited;
      await rm(dir, { recursive: true, force: true });
    },
  };
}
