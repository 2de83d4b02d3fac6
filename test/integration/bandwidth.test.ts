import { afterAll, beforeAll, expect, test } from '@jest/globals';
import type { LimitsReport } from '../../src/cli/limits-text.ts';
import { BandwidthRun } from '../helpers/bandwidth-run.ts';
import { shipmate } from '../helpers/daemon.ts';
import { measured, measuredShare } from '../helpers/measured.ts';
import { until } from '../helpers/wait.ts';

const MIB = 1024 * 1024;

/** Incompressible bytes over a link that both together fill: ten seconds of work. */
let run: BandwidthRun;
beforeAll(async () => {
  run = await BandwidthRun.prepare({
    historyMib: 40,
    linkMib: 8,
    shipping: 0.75,
    chunk: '512KiB',
    liveBytesPerSecond: 200_000,
  });
});
afterAll(() => run?.stop());

test('a copy in class slow has its rate beside log shipping, which it does not hold up, and the link when that is idle (timed)', async () => {
  const { lagMaxMs, slow, lentAfterMs, copiedMib } = await run.run();
  expect(copiedMib).toBe(40);
  measured('the longest lag of a log that is written meanwhile', lagMaxMs, 1_000);
  // Of a few seconds the first and last chunks are a part that shows; half a minute is held to 0.9 by "npm run bench".
  for (const { share, ofLeft } of slow) {
    measuredShare('what slow has of its rate', share, 0.8);
    measuredShare('what log shipping leaves of the link, of what slow has', 1 / ofLeft, 0.8);
  }
  measured('until what log shipping leaves unused is lent', lentAfterMs, 1_000);
}, 120_000);

// On the daemon of that run.
test('limits are changed while the daemon runs, and refused with the reason and the time where they do not fit (timed)', async () => {
  const { configFile } = run.daemon;
  const link = async () => {
    const metrics = await (await fetch(`${run.daemon.url}/metrics`)).text();
    return Number(/^shipmate_bandwidth_limit_bytes\{class="link"\} (\d+)$/m.exec(metrics)?.[1]);
  };
  expect(await link()).toBe(8 * MIB);
  const set = await shipmate(
    configFile,
    'limits',
    'set',
    '--link',
    '4MiB/s',
    '--class',
    'slow=512KiB/s',
    '--for',
    '2m',
  );
  expect(set).toMatchObject({ code: 0, stdout: expect.stringContaining('link 4.0 MiB/s, slow 512 KiB/s') });
  await until('the daemon goes by it', async () => (await link()) === 4 * MIB);
  // What daemons tell of themselves may be half a second old.
  const { overrides } = await until('the report says so', async () => {
    const { stdout } = await shipmate(configFile, 'limits', '--json');
    const report: LimitsReport = JSON.parse(stdout);
    const slow = report.nodes[0]?.bandwidth?.classes.find(({ name }) => name === 'slow');
    return slow?.guaranteed === MIB / 2 && Number.isFinite(slow.measured) && report;
  });
  expect(overrides).toHaveLength(1);

  // The link carries it again when those two minutes are over.
  const more = ['limits', 'set', '--class', 'slow=1500KiB/s', '--for', '1h'];
  const refused = await shipmate(configFile, ...more);
  expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining("more than the link's 4.0 MiB/s") });
  expect(refused.stderr).toMatch(/hint: it could be honoured from \d{4}-\d\d-\d\d \d\d:\d\d .* on: with --queue/);
  expect(await shipmate(configFile, ...more, '--queue')).toMatchObject({ code: 0 });
  expect(await link()).toBe(4 * MIB);
  await shipmate(configFile, 'limits', 'clear');
  await until('the config counts again', async () => (await link()) === 8 * MIB);
}, 120_000);
