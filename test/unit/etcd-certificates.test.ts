import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { expiriesOf } from '../../src/coordination/etcd/certificates.ts';
import { type Certificates, makeCertificates } from '../helpers/certificates.ts';

const DAY_MS = 86_400_000;
let dir: string;
let [soon, later]: Certificates[] = [];
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'shipmate-certificates-'));
  [soon, later] = await Promise.all(
    [2, 40].map(async (days) => {
      await mkdir(join(dir, String(days)));
      return makeCertificates(join(dir, String(days)), { days });
    }),
  );
});
afterAll(() => rm(dir, { recursive: true, force: true }));

/** To how many days from now on. */
const daysOf = async (paths: Partial<Certificates>) =>
  Object.fromEntries(
    [...(await expiriesOf(paths))].map(([name, ms]) => [name, Math.round((ms - Date.now()) / DAY_MS)]),
  );

async function joined(name: string, ...parts: string[]): Promise<string> {
  const path = join(dir, name);
  await writeFile(path, (await Promise.all(parts.map((part) => readFile(part, 'utf8')))).join('# the next one\n'));
  return path;
}

test('each is told as its file is now', async () => {
  expect(await daysOf(soon!)).toEqual({ ca: 2, cert: 2 });
  const cert = await joined('renewed.pem', soon!.cert);
  expect(await daysOf({ cert })).toEqual({ cert: 2 });
  await joined('renewed.pem', later!.cert);
  expect(await daysOf({ cert })).toEqual({ cert: 40 });
});

test('of a chain its own certificate counts, of authorities that are changed the last one', async () => {
  const cert = await joined('chain.pem', soon!.cert, later!.ca);
  const ca = await joined('authorities.pem', soon!.ca, later!.ca);
  expect(await daysOf({ cert, ca })).toEqual({ ca: 40, cert: 2 });
});

test('what can’t be read is left out: what is not known is no alarm of this kind', async () => {
  const broken = join(dir, 'broken.pem');
  await writeFile(broken, '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n');
  expect(await daysOf({ ca: join(dir, 'missing.pem'), cert: broken })).toEqual({});
  expect(await daysOf({})).toEqual({});
});
