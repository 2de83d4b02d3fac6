import type { CoordinationConfig } from '../config.ts';
import { readTls } from '../coordination/etcd/client.ts';
import { diagnose } from '../coordination/etcd/diagnose.ts';
import { messageOf } from '../errors.ts';
import type { Finding } from '../source/source.ts';

/** Each endpoint by itself: that one answers hides that another would not when it is needed. */
export async function inspectEndpoints({
  endpoints,
  tls,
}: Extract<CoordinationConfig, { kind: 'etcd' }>): Promise<Finding[]> {
  if (endpoints.length === 1) return []; // what is wrong with it is told by whoever needs it
  const files = await readTls(tls ?? null).catch(() => null);
  const found = await Promise.all(
    endpoints.map(async (endpoint): Promise<Finding[]> => {
      const wrong = await diagnose(endpoint, files).catch((error: unknown) => ({
        message: messageOf(error),
        hint: '',
      }));
      return wrong === null ? [] : [{ level: 'warning', message: `${endpoint}: ${wrong.message}`, hint: wrong.hint }];
    }),
  );
  return found.flat();
}
