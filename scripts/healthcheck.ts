import { adminUrl } from '../src/admin-url.ts';
import { DEFAULT_CONFIG_FILE } from '../src/cli/config-file.ts';
import { loadConfig } from '../src/config.ts';
import { messageOf } from '../src/errors.ts';

// The HEALTHCHECK of the image: asks the daemon whether it is alive, where its config says that it listens.

const ANSWER_MS = 8_000;

async function problem(): Promise<string | null> {
  const { admin } = await loadConfig(process.env.SHIPMATE_CONFIG || DEFAULT_CONFIG_FILE, { lazy: true });
  if (!admin?.port)
    return 'admin.listen names no port that could be asked: set one, or run the container with --no-healthcheck';
  const url = `${adminUrl({ admin })}/healthz`;
  const { ok, status } = await fetch(url, { signal: AbortSignal.timeout(ANSWER_MS) });
  return ok ? null : `${url} answers ${status}`;
}

const found = await problem().catch(messageOf);
if (found !== null) process.stderr.write(`error: ${found}\n`);
process.exitCode = found === null ? 0 : 1;
