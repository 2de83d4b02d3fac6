import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { comparePlaces, placeOf } from '../../src/core/keys.ts';
import { prepareDaemon, SHIPMATE, shipmate } from '../helpers/daemon.ts';
import { type Etcd, startEtcd } from '../helpers/etcd.ts';
import type { GcsFault } from '../helpers/gcs-double-faults.ts';
import { type GcsDoubleProcess, spawnGcsDouble } from '../helpers/gcs-double-process.ts';
import { LogFiles } from '../helpers/log-files.ts';
import { STREAM, Twins } from '../helpers/twins.ts';
import { until } from '../helpers/wait.ts';

const DELAY_MS = 3_000;

/** Two daemons that ship to a bucket all the time, with a copy on a disk, while it is pruned. */
describe('prune beside daemons that ship', () => {
  let dir: string;
  let files: LogFiles;
  let double: GcsDoubleProcess;
  let etcd: Etcd;
  let twins: Twins;
  let writing: NodeJS.Timeout;
  let lines = 0;
  const commands: ChildProcess[] = [];

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'shipmate-retention-'));
    const [storePath, nas] = [join(dir, 'store'), join(dir, 'nas')];
    await Promise.all([storePath, nas].map((path) => mkdir(path)));
    files = new LogFiles();
    files.rotate();
    [double, etcd] = await Promise.all([spawnGcsDouble({ dir: storePath }), startEtcd()]);
    await double.deny(['storage.objects.delete']);
    const common = {
      endpoints: etcd.endpoints,
      storePath,
      store: { type: 'gcs', bucket: 'archive', apiEndpoint: double.url },
      copies: { nas },
      delay: `${DELAY_MS}ms`,
      source: { type: 'files', dir: files.dir, cut: 'line', settle: '50ms', shared: true },
    };
    const daemons = await Promise.all(
      ['db-1', 'db-2'].map((node) => prepareDaemon({ node, dir: join(dir, node), ...common })),
    );
    twins = new Twins({ dir, etcd, storePath: join(storePath, 'archive'), daemons, proxies: new Map() });
    await twins.ready();
    writing = setInterval(() => {
      files.append({ bytes: 200 });
      if (++lines % 12 === 0) files.rotate();
    }, 20);
  });
  afterAll(async () => {
    clearInterval(writing);
    for (const command of commands) command.kill('SIGKILL');
    await Promise.all((twins?.daemons ?? []).map((daemon) => daemon.kill()));
    await Promise.all([double?.stop(), etcd?.stop()]);
    files?.remove();
    await rm(dir, { recursive: true, force: true });
  });

  const anyConfig = () => twins.daemons[0]!.configFile;
  const run = (...args: string[]) => shipmate(anyConfig(), ...args);
  const prune = (...args: string[]) => run('prune', STREAM, '--keep-segments', '3', '--yes', '--json', ...args);
  const inStore = async (path: string) =>
    (await readdir(path, { recursive: true, withFileTypes: true })).filter((each) => each.isFile()).length;
  const objects = () => inStore(join(dir, 'store'));
  const copied = () => inStore(join(dir, 'nas'));

  /** So many more files of the log are shipped. */
  async function shipped(count: number): Promise<void> {
    const from = files.written.length;
    await until(`${count} files more are shipped`, async () => {
      const { cursor } = await twins.told();
      return Number(/\d+/.exec(cursor?.segment ?? '')?.[0] ?? 0) >= from + count;
    });
  }

  test('without the right to delete the daemons work on, and prune says which right it lacks', async () => {
    await shipped(5);
    const before = await objects();
    const refused = await prune();
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('storage.objects.delete') });
    expect(await objects()).toBeGreaterThanOrEqual(before);
    expect(await run('ls', STREAM)).toMatchObject({ code: 0, stdout: expect.stringContaining('audit-1.log:0') });
    await shipped(2);
    for (const daemon of twins.daemons) await daemon.demandNoSurprise();
  }, 120_000);

  test('with it, what is not asked for goes: over a prune that dies, and a take-over in the middle', async () => {
    await double.deny([]);
    await until('the copy has come some way', async () => (await copied()) > 30);
    const dying = spawn(SHIPMATE, ['prune', STREAM, '--keep-segments', '3', '--yes', '-c', anyConfig()], {
      stdio: 'ignore',
    });
    commands.push(dying);
    await double.setFaults({ rules: [{ kind: 'slow', operations: ['delete'], delayMs: 300 }] });
    await until('it has begun to delete', async () => ((await double.counters()).requests.delete ?? 0) > 3);
    dying.kill('SIGKILL');
    await once(dying, 'exit');
    await double.setFaults({ rules: [] });

    const { master, standby } = await twins.ready();
    const since = standby.mark();
    const [done] = await Promise.all([prune(), master.kill()]);
    expect(done.code).toBe(0);
    await standby.becomesMaster({ since });
    await master.start();
    await shipped(4);
    const again = await prune();
    expect(again.code).toBe(0);
    const [main] = JSON.parse(again.stdout).streams[0].stores;
    expect(main).toMatchObject({ store: 'main', role: 'primary', raised: true, locked: 0, denied: 0 });
    expect(main.objects).toBeGreaterThan(0);
    await twins.ready();
  }, 120_000);

  test('deletions reach the copy later, and both stores are whole and restore the same end of the log', async () => {
    const nas = async () => {
      const { code, stdout } = await prune();
      expect(code).toBe(0);
      return JSON.parse(stdout).streams[0].stores[1];
    };
    await until('the copy is pruned too', async () => (await nas()).objects > 0, { everyMs: 500 });
    clearInterval(writing);
    const last = `${files.newest}:${files.written.at(-1)!.length}`;
    await until('all is shipped, and copied', async () => {
      const { stdout } = await run('ls', STREAM, '--json', '--store', 'nas');
      return JSON.parse(stdout).streams[0].recoverable.at(-1).to.id === last;
    });
    for (const store of ['main', 'nas']) {
      expect(await run('verify', STREAM, '--deep', '--store', store)).toMatchObject({ code: 0 });
      const to = join(dir, `restored-${store}`);
      expect(await run('restore', STREAM, '--to', to, '--store', store)).toMatchObject({ code: 0 });
      const names = (await readdir(to)).sort((a, b) => Number(/\d+/.exec(a)) - Number(/\d+/.exec(b)));
      const restored = (await Promise.all(names.map((name) => readFile(join(to, name), 'utf8')))).join('');
      expect(names.length).toBeGreaterThanOrEqual(3);
      expect(names.length).toBeLessThan(files.written.length);
      expect(restored).toBe(files.written.slice(-names.length).join(''));
    }
  }, 120_000);

  test('a deep look that is killed goes on where it was', async () => {
    await Promise.all(twins.daemons.map((daemon) => daemon.stop()));
    const chunks = (await readdir(join(dir, 'store', 'archive', STREAM, 'terms'), { recursive: true })).sort();
    const [late, last] = [chunks.at(-5)!, chunks.at(-1)!];
    // Each is read twice: its header first.
    const second = (match: string, fault: Pick<GcsFault, 'kind' | 'delayMs'>): GcsFault[] => [
      { kind: 'slow', operations: ['read'], match, delayMs: 0, times: 1 },
      { operations: ['read'], match, ...fault },
    ];
    const rules = [...second(late, { kind: 'slow', delayMs: 2_500 }), ...second(last, { kind: 'hang' })];
    await double.setFaults({ rules });
    const verifying = () => {
      const env = { ...process.env, XDG_CACHE_HOME: join(dir, 'cache') };
      const args = ['verify', STREAM, '--deep', '--json', '-c', anyConfig()];
      return spawn(SHIPMATE, args, { stdio: ['ignore', 'pipe', 'ignore'], env });
    };
    const dying = verifying();
    commands.push(dying);
    const notes = join(dir, 'cache', 'shipmate', 'verify');
    const reached = placeOf(`${STREAM}/terms/${chunks.at(-8)}`)!;
    await until('it has noted that it came so far', async () => {
      const [note] = (await readdir(notes)).filter((name) => name.endsWith('.json'));
      return note && comparePlaces(JSON.parse(await readFile(join(notes, note), 'utf8')).upTo, reached) >= 0;
    });
    dying.kill('SIGKILL');
    await once(dying, 'exit');
    await double.setFaults({ rules: [] });
    const found = JSON.parse(await text(verifying().stdout!)).streams[0];
    expect(found).toMatchObject({ whole: true });
    expect(found.provenBefore).toBeGreaterThan(3);
  }, 120_000);
});
