import type { Config } from './config.ts';
import { UsageError } from './errors.ts';

/** Where the daemon of this host is asked: `http://127.0.0.1:9187`. Throws UsageError where the config does not say. */
export function adminUrl({ admin }: Pick<Config, 'admin'>): string {
  if (admin === null || admin.port === 0) {
    throw new UsageError(
      'the config does not say where the daemon can be asked',
      'set admin.listen, such as 127.0.0.1:9187',
    );
  }
  const anywhere: Readonly<Record<string, string>> = { '0.0.0.0': '127.0.0.1', '::': '::1' };
  const host = anywhere[admin.host] ?? admin.host;
  return `http://${host.includes(':') ? `[${host}]` : host}:${admin.port}`;
}
