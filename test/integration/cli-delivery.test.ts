import { cp, mkdir, mkdtemp, readFile, rm, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { parse, stringify } from 'yaml';
import { prepareDaemon, shipmate } from '../helpers/daemon.ts';
import { LogFiles } from '../helpers/log-files.ts';
import { until } from '../helpers/wait.ts';

const FIRST_CHUNK = 'orders/terms/00000001/0000000001';

/** An archive with one copy, made by a daemon that has left. */
describe('what operators script against', () => {
  let dir: string;
  let files: LogFiles;
  let config: string;

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'shipmate-delivery-'));
    const [storePath, nas] = [join(dir, 'main'), join(dir, 'nas')];
    await Promise.all([storePath, nas, join(dir, 'db-1')].map((path) => mkdir(path)));
    files = new LogFiles();
    for (let segment = 0; segment < 4; segment++) {
      files.rotate();
      files.append({ bytes: 2_000 });
    }
    const source = { type: 'files', dir: files.dir, settle: '0s' };
    const daemon = await prepareDaemon({ node: 'db-1', dir: join(dir, 'db-1'), storePath, copies: { nas }, source });
    config = daemon.configFile;
    const written = parse(await readFile(config, 'utf8'));
    written.limits = { link: '10MiB/s', classes: { slow: '1MiB/s' } };
    written.streams.orders.keep = { segments: 1 };
    await writeFile(config, stringify(written));
    // Two lives, so that the first term is sealed.
    for (const term of [1, 2]) {
      await daemon.start();
      try {
        await until(`all is shipped and copied in term ${term}`, () => isWhole(term), {
          describe: () => daemon.tail(),
        });
      } finally {
        await daemon.stop();
      }
    }
  });
  afterAll(async () => {
    files?.remove();
    await rm(dir, { recursive: true, force: true });
  });

  const run = (...args: string[]) => shipmate(config, ...args);
  const isWhole = async (ofTerm: number) => {
    const { streams } = JSON.parse((await run('status', '--json')).stdout);
    const [{ term, cursor, lagBytes, stores }] = streams;
    return term === ofTerm && cursor.id.startsWith(files.newest) && lagBytes === 0 && stores[1].lagBytes === 0;
  };
  const inStore = (store: string, key = FIRST_CHUNK) => join(dir, store, key);

  test('check tells of each copy, of the limits in force, and whether this account may prune', async () => {
    const said = async () => {
      const { code, stdout } = await run('check', '--json');
      const { findings }: { findings: { about: string; level: string; message: string }[] } = JSON.parse(stdout);
      return { code, said: findings.map(({ about, level, message }) => `${about} ${level}: ${message}`) };
    };
    const whole = await said();
    expect(whole.code).toBe(0);
    expect(whole.said).toContain('limits ok: in force: link 10 MiB/s, shipping 50%, slow 1.0 MiB/s');
    expect(whole.said).toContain('store nas ok: this account may delete, as "prune" must');
    expect(whole.said).toContainEqual(expect.stringMatching(/^store nas ok: a copy of orders; it goes on at term 2, /));

    const file = inStore('nas', 'orders/stream.json');
    const mine = await readFile(file, 'utf8');
    const other = { ...JSON.parse(mine), archive: '00000000-0000-4000-8000-000000000000' };
    await writeFile(file, JSON.stringify(other));
    const mixedUp = await said();
    await writeFile(file, mine);
    expect(mixedUp.code).toBe(1);
    expect(mixedUp.said).toContainEqual(
      expect.stringMatching(/^store nas error: .* different archives of stream orders/),
    );
  });

  test('limits set and clear answer in JSON, and tell of a node that is not there', async () => {
    const set = await run('limits', 'set', '--class', 'slow=2MiB/s', '--for', '1h', '--node', 'db2', '--json');
    expect(set).toMatchObject({ code: 0, stderr: expect.stringMatching(/^warning: no daemon of node db2 is alive/) });
    const { override, waitsFor } = JSON.parse(set.stdout);
    expect({ override, waitsFor }).toMatchObject({
      override: { node: 'db2', change: { classes: { slow: 2 << 20 } } },
      waitsFor: null,
    });
    expect(JSON.parse((await run('limits', '--json')).stdout).overrides).toEqual([override]);
    expect(JSON.parse((await run('limits', 'clear', '--json')).stdout)).toEqual({ cleared: [override] });
  });

  test('repair: one document, the same keys each time; 3 where the source has a hole', async () => {
    await unlink(inStore('nas'));
    const keys = ['stream', 'from', 'to', 'dryRun', 'flaws', 'objects', 'generation', 'hole', 'mended'];
    const holed = await run('repair', 'orders', '--from', 'nas', '--to', 'main', '--dry-run', '--json');
    expect(holed).toMatchObject({ code: 3, stderr: expect.stringContaining('nas itself lacks term 1, slot 1') });
    expect(JSON.parse(holed.stdout).hole).not.toBeNull();
    const mended = await run('repair', 'orders', '--from', 'main', '--to', 'nas', '--yes', '--json');
    expect(mended.code).toBe(0);
    for (const { stdout } of [holed, mended]) expect(Object.keys(JSON.parse(stdout))).toEqual(keys);
    expect(JSON.parse(mended.stdout)).toMatchObject({ flaws: [{ key: FIRST_CHUNK, what: 'missing' }], mended: true });
    expect(await readFile(inStore('nas'))).toEqual(await readFile(inStore('main')));
  });

  test('a slip in the options ends with 2, and nothing is done', async () => {
    const before = join(dir, 'before');
    await cp(join(dir, 'main'), before, { recursive: true });
    const slips: [string[], RegExp][] = [
      [['prune', 'orders', '--yes', '--without-copy', 'nsa'], /no copy in a store "nsa"\nhint: did you mean "nas"/],
      [['prune', 'ordres', '--yes'], /no stream "ordres"\nhint: did you mean "orders"/],
      [['verify', '--identity', '/nowhere'], /--identity goes with --deep/],
      [['verify', '--restart'], /--restart goes with --deep/],
      [['limits', 'set', '--class', 'slow'], /slow has no rate/],
    ];
    for (const [args, complaint] of slips) {
      const outcome = await run(...args);
      expect(outcome).toMatchObject({ code: 2, stdout: '', stderr: expect.stringMatching(complaint) });
    }
    expect(await readFile(inStore('main'))).toEqual(await readFile(join(before, FIRST_CHUNK)));
  });

  test('prune says in JSON whether it was a dry run: one on a terminal only, or when told', async () => {
    const reports = [];
    for (const args of [['--dry-run'], []]) {
      const { code, stdout } = await run('prune', 'orders', '--json', ...args);
      expect(code).toBe(0);
      reports.push(JSON.parse(stdout).streams[0]);
    }
    const [told, done] = reports;
    expect([told.dryRun, done.dryRun]).toEqual([true, false]);
    expect(told.stores[0]).toMatchObject({ store: 'main', role: 'primary', raised: true });
    expect(done.stores[0]).toEqual(told.stores[0]);
    await expect(readFile(inStore('main'))).rejects.toThrow('ENOENT');
  });
});
