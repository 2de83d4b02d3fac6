import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { TlsPaths } from './client.ts';

const PEM = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/**
 * When the configured certificates expire, by `ca` and `cert`, milliseconds since 1970: as the files are now, since a
 * renewed one is taken up by itself. An authority's file is good for as long as any certificate in it; of our own the first
 * one counts, the rest is its chain. What can't be read is left out.
 */
export async function expiriesOf({ ca, cert }: TlsPaths): Promise<Map<string, number>> {
  const [authorities, [own]] = await Promise.all([expiriesIn(ca), expiriesIn(cert)]);
  return new Map([
    ...(authorities.length > 0 ? [['ca', Math.max(...authorities)] as const] : []),
    ...(own !== undefined ? [['cert', own] as const] : []),
  ]);
}

async function expiriesIn(path: string | undefined): Promise<number[]> {
  if (path === undefined) return [];
  try {
    const found = (await readFile(path, 'utf8')).match(PEM) ?? [];
    return found.map((pem) => Date.parse(new X509Certificate(pem).validTo));
  } catch {
    return [];
  }
}
