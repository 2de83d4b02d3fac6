import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { freePort } from './ports.ts';
import { until } from './wait.ts';

/** As scripts/setup installs it where there is Go. */
const VERSION = 'v1.56.1';
const PROGRAM = join(import.meta.dirname, '..', '..', '.cache', 'bin', `fake-gcs-server-${VERSION}`);

/** Why there is none, for the report of a test that is skipped; null where there is. */
export const noFakeGcsServer = existsSync(PROGRAM)
  ? null
  : `fake-gcs-server ${VERSION} is not here (scripts/setup builds it where there is Go)`;

export interface FakeGcsServer {
  /** For `apiEndpoint`. */
  readonly url: string;
  /** Makes an empty bucket, and returns its name. */
  newBucket(): Promise<string>;
  stop(): Promise<void>;
}

/** Another hand's double of Google Cloud Storage: what both doubles agree on is likely what Google does. */
export async function startFakeGcsServer(): Promise<FakeGcsServer> {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const args = [
    ...['-scheme', 'http', '-host', '127.0.0.1', '-port', String(port), '-public-host', `127.0.0.1:${port}`],
    ...['-backend', 'memory', '-log-level', 'error'],
  ];
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', PROGRAM, ...args], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  let buckets = 0;
  await until('fake-gcs-server answers', async () => {
    if (child.exitCode !== null) throw new Error(`it ended with ${child.exitCode}`);
    return (await fetch(`${url}/storage/v1/b?project=test`)).ok;
  });
  return {
    url,
    async newBucket() {
      const name = `archive-${buckets++}`;
      const response = await fetch(`${url}/storage/v1/b?project=test`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ name }),
      });
      if (!response.ok) throw new Error(`no bucket: ${response.status} ${await response.text()}`);
      return name;
    },
    stop: () => end(child),
  };
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill('SIGKILL');
  await gone;
}
