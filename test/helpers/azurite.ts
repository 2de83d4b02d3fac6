import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BlobServiceClient } from '@azure/storage-blob';
import { freePort } from './ports.ts';
import { until } from './wait.ts';

const BIN = join(import.meta.dirname, '..', '..', 'node_modules', '.bin');

/** Microsoft's emulator of Azure Blob Storage, in memory. */
export interface Azurite {
  readonly connectionStringFile: string;
  /** Makes an empty container, and returns its name. */
  newContainer(): Promise<string>;
  stop(): Promise<void>;
}

export async function startAzurite(): Promise<Azurite> {
  const dir = await mkdtemp(join(tmpdir(), 'shipmate-azurite-'));
  const port = await freePort();
  // An account of the test's own.
  const key = Buffer.from('a key that is no secret').toString('base64');
  const flags = ['--silent', '--skipApiVersionCheck', '--disableTelemetry', '--inMemoryPersistence'];
  const child = spawn(
    'setpriv',
    ['--pdeathsig', 'KILL', '--', join(BIN, 'node'), join(BIN, 'azurite-blob'), '--blobPort', String(port), ...flags],
    { cwd: dir, stdio: 'ignore', env: { ...process.env, AZURITE_ACCOUNTS: `shipmate:${key}` } },
  );
  const exited = once(child, 'exit');
  const endpoint = `http://127.0.0.1:${port}/shipmate`;
  const text = `DefaultEndpointsProtocol=http;AccountName=shipmate;AccountKey=${key};BlobEndpoint=${endpoint};`;
  const connectionStringFile = join(dir, 'connection-string');
  await writeFile(connectionStringFile, `${text}\n`, { mode: 0o600 });
  const service = BlobServiceClient.fromConnectionString(text, { retryOptions: { maxTries: 1 } });
  await until(
    'Azurite answers',
    async () => {
      return (await fetch(endpoint)).status > 0;
    },
    { withinMs: 30_000, describe: () => `it ended with ${child.exitCode}` },
  );
  let containers = 0;
  return {
    connectionStringFile,
    async newContainer() {
      const name = `archive-${containers++}`;
      await service.createContainer(name);
      return name;
    },
    async stop() {
      child.kill('SIGKILL');
      await exited;
      await rm(dir, { recursive: true, force: true });
    },
  };
}
