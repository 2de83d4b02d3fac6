import { randomBytes, randomInt } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, jest, test } from '@jest/globals';
import { ChainReader } from '../helpers/archive.ts';
import { type Daemon, prepareDaemon } from '../helpers/daemon.ts';
import { CREATING } from '../helpers/gcs-double-faults.ts';
import { type GcsDoubleProcess, spawnGcsDouble } from '../helpers/gcs-double-process.ts';
import { type Mariadb, startMariadb } from '../helpers/mariadb.ts';
import { measured, measuredShare } from '../helpers/measured.ts';
import { until } from '../helpers/wait.ts';

/**
 * A store that is away while the database is written to at full load: most of a minute here, longer by hand:
 * SHIPMATE_OUTAGE_SECONDS=1800 npm run jest -- test/cluster/outage
 */
const SECONDS = Number(process.env.SHIPMATE_OUTAGE_SECONDS ?? 40);
/** What a daemon may take more than at rest: a window of encoded chunks, and its pool of blocks, full at once. */
const MORE_BYTES = 150 * 2 ** 20;
/** …and more than it takes a few seconds into the outage, however long that lasts. */
const GROWTH_BYTES = 40 * 2 ** 20;
const FULL_AFTER_SECONDS = 15;
const SPEED_SHARE = 0.8;
const BUCKET = 'archive';
const ROW_BYTES = 100_000;
const ROWS_PER_SECOND = 150;
/** What no codec makes smaller: rows are parts of it. */
const NOISE = randomBytes(8 << 20);
/** Uploads that were under way when the outage ended wait for their next attempt: the speed is that of those behind. */
const WINDOW = 8;

jest.setTimeout((SECONDS * 2 + 180) * 1_000);

let dir: string;
let server: Mariadb;
let gcs: GcsDoubleProcess;
const daemons: Daemon[] = [];
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'shipmate-outage-'));
  [server, gcs] = await Promise.all([
    startMariadb({ serverId: 21, args: ['--sync-binlog=0', '--innodb-flush-log-at-trx-commit=0'] }),
    spawnGcsDouble({ dir, buckets: [BUCKET] }),
  ]);
  // A table that keeps nothing: half an hour's log is 27 GB as it is.
  await server.query("INSTALL SONAME 'ha_blackhole'");
  await server.query('CREATE DATABASE shop');
  await server.query('CREATE TABLE shop.bulk (id BIGINT PRIMARY KEY, body LONGBLOB) ENGINE = BLACKHOLE');
});
afterAll(async () => {
  await Promise.all(daemons.map((daemon) => daemon.kill()));
  await Promise.all([server?.stop(), gcs?.stop()]);
  await rm(dir, { recursive: true, force: true });
});

test('costs no memory, and is caught up as fast as any backlog (timed)', async () => {
  const { daemon, chain } = await shipTo('outage');
  await writeFor(5);
  await reachesEnd(chain);
  const before = await residentBytes(daemon);

  await gcs.setFaults({ rules: [{ kind: 'refuse', status: 503, operations: [...CREATING, 'read', 'head', 'list'] }] });
  const shipped = (await chain.read()).length;
  const sizes: number[] = [];
  const watching = setInterval(async () => {
    sizes.push(await residentBytes(daemon).catch(() => 0));
  }, 1_000);
  await writeFor(FULL_AFTER_SECONDS);
  const full = Math.max(...sizes);
  await writeFor(SECONDS - FULL_AFTER_SECONDS);
  expect(Math.max(...sizes) - full).toBeLessThan(GROWTH_BYTES);
  expect((await chain.read()).length).toBe(shipped);

  await gcs.setFaults({ rules: [] });
  const endedMs = performance.now();
  await until('the first object after the outage', async () => (await chain.read()).length > shipped);
  measured('from the end of the outage to the first object', performance.now() - endedMs, 15_000);
  await reachesEnd(chain);
  clearInterval(watching);
  const after = await speed(chain, shipped);
  await daemon.stop();
  await rm(chain.root, { recursive: true });

  const again = await shipTo('again');
  await reachesEnd(again.chain);
  const ordinary = await speed(again.chain, 0);
  await again.daemon.stop();

  const most = Math.max(...sizes);
  process.stderr.write(
    `      measured: ${mib(after)}/s after the outage, ${mib(ordinary)}/s from any backlog; memory ${mib(before)}, at most ${mib(most)}\n`,
  );
  expect(most - before).toBeLessThan(MORE_BYTES);
  measuredShare('speed after the outage, of that from any backlog', after / ordinary, SPEED_SHARE);
});

const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/** A daemon of its own that ships all of the server's log below a prefix. */
async function shipTo(prefix: string): Promise<{ daemon: Daemon; chain: ChainReader }> {
  const daemon = await prepareDaemon({
    node: prefix,
    dir: join(dir, `daemon-${prefix}`),
    storePath: dir,
    store: { type: 'gcs', bucket: BUCKET, apiEndpoint: gcs.url },
    prefix,
    source: { dir: server.dataDir, url: server.url },
  });
  daemons.push(daemon);
  await daemon.start();
  const chain = new ChainReader({ root: join(dir, BUCKET, prefix) });
  await daemon.becomesMaster();
  return { daemon, chain };
}

/** Rows at a steady pace. */
async function writeFor(seconds: number): Promise<void> {
  const beganMs = performance.now();
  for (let rows = 0; rows < seconds * ROWS_PER_SECOND; rows++) {
    const at = randomInt(NOISE.length - ROW_BYTES);
    await server.query('INSERT INTO shop.bulk VALUES (?, ?)', [rows, NOISE.subarray(at, at + ROW_BYTES)]);
    const aheadMs = beganMs + (rows * 1_000) / ROWS_PER_SECOND - performance.now();
    if (aheadMs > 0) await delay(aheadMs);
  }
}

function reachesEnd(chain: ChainReader): Promise<unknown> {
  return until(
    'all is shipped',
    async () => {
      const [end] = await server.query('SHOW MASTER STATUS');
      const reached = await chain.end();
      return reached?.segment === end?.File && reached?.offset === Number(end?.Position);
    },
    { withinMs: SECONDS * 1_000 + 60_000, describe: () => daemons.map((daemon) => daemon.tail()).join('\n') },
  );
}

/** Bytes a second over the chunks behind the first window after so many objects, as they came in. */
async function speed(chain: ChainReader, after: number): Promise<number> {
  const links = (await chain.read()).slice(after).filter(({ header }) => header.kind === 'chunk');
  const chunks = links.slice(WINDOW);
  const [first] = chunks;
  const bytes = chunks.slice(1).reduce((sum, { header }) => sum + (header.kind === 'chunk' ? header.length : 0), 0);
  return bytes / ((chunks.at(-1)!.metAtMs - first!.metAtMs) / 1_000);
}

async function residentBytes({ url }: Daemon): Promise<number> {
  const metrics = await (await fetch(`${url}/metrics`)).text();
  return Number(/^process_resident_memory_bytes (\S+)$/m.exec(metrics)?.[1]);
}
